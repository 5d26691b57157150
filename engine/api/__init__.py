"""fc7: what has a convolutional network learnt? A batch engine that answers over whole data sets.

    import fc7

    run = fc7.extract("photos/", model="alexnet", layers=["conv5", "fc7"], out="run/")
    run["fc7"]                          # (N, 4096), array-like over memory maps
    run.rows                            # row, key, label, status: a pyarrow table
    fc7.index(run, "fc7")               # every row's nearest rows
    fc7.project(run, "fc7", "umap")     # every row as a point
    fc7.occlude("photos/", "alexnet", "run/")   # what each answer depends on: run["occlusion"]
    fc7.saliency("photos/", "alexnet", "run/")  # how each pixel would change it: run["saliency"]
    fc7.guided("photos/", "alexnet", "run/")    # which pixels speak for it: run["guided"]
    fc7.guided_maps(network, images, layer="conv5", unit=17)    # the same of tensors
    fc7.segment("photos/", "alexnet", "run/")   # where the object is: run["segment"], PNG masks
    fc7.importance("photos/", "alexnet", "run/")        # which channels matter
    fc7.prune(run, "small.safetensors", fc7.PruneOptions(fraction=0.2))     # the others, removed
    fc7.classes("alexnet", "classes/")  # what it would paint for each class: run["classes"]
    fc7.fool("photos/", "alexnet", "run/")      # what it falls for: run["fool"], changes of pixels
    fc7.dream("photos/", "alexnet", "run/", fc7.DreamJobOptions(layer="relu4"))     # DeepDream
    fc7.invert("photos/", "alexnet", ["conv5"], "run/")     # what a layer keeps of each image
    fc7.texture("patches/", "vgg19", "run/")    # pictures of any size with their textures
    fc7.style("photos/", ["paintings/"], "vgg19", "run/")     # photos, painted: run["style"]
    fc7.train_stylizer("photos/", ["scream.jpg"], "vgg16", "scream/")   # a network of a style
    fc7.stylize("holiday/", "scream/", "run/")  # which any image gets in one pass: run["stylize"]
    fc7.facets(run, "facets/", [3])     # the kinds of image that excite class 3: run["facets"]
    fc7.open_store("run/")              # later, without torch

Names are imported when first used, so `import fc7` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fc7.engine.attribution.gradient_jobs import GuidedOptions, SaliencyOptions
    from fc7.engine.attribution.guided import guided_maps
    from fc7.engine.attribution.importance.criteria import read_importance
    from fc7.engine.attribution.importance.job import ImportanceOptions
    from fc7.engine.attribution.importance.workflow import importance
    from fc7.engine.attribution.occlusion import occlusion_maps
    from fc7.engine.attribution.occlusion.job import OccludeOptions
    from fc7.engine.attribution.pruning.training import FineTuneOptions
    from fc7.engine.attribution.pruning.workflow import PruneOptions, prune
    from fc7.engine.attribution.saliency import saliency_maps
    from fc7.engine.attribution.segmentation.job import SegmentOptions
    from fc7.engine.attribution.workflow import guided, occlude, saliency, segment
    from fc7.engine.data import open_source
    from fc7.engine.errors import Fc7Error
    from fc7.engine.features.search import find_neighbors
    from fc7.engine.features.workflow import ExtractOptions, extract, index, project
    from fc7.engine.information.job import InversionImportanceOptions, inversion_importance
    from fc7.engine.models import load_model
    from fc7.engine.report import write_report
    from fc7.engine.store import open_store, verify
    from fc7.engine.store.patches import read_patches
    from fc7.engine.style.fast.options import StylizeOptions, TrainStylizerOptions
    from fc7.engine.style.fast.stylizer import load_stylizer
    from fc7.engine.style.fast.workflow import export_stylizer, stylize, train_stylizer
    from fc7.engine.style.texture import TextureOptions, synthesise
    from fc7.engine.style.texture_job import texture
    from fc7.engine.style.texture_options import TextureJobOptions
    from fc7.engine.style.transfer import style_images
    from fc7.engine.style.transfer_options import StyleJobOptions, StyleOptions
    from fc7.engine.style.transfer_workflow import style
    from fc7.engine.synthesis.attack_options import AttackOptions
    from fc7.engine.synthesis.classes import ClassesOptions
    from fc7.engine.synthesis.dream import DreamOptions, dream_images
    from fc7.engine.synthesis.dream_options import DreamJobOptions
    from fc7.engine.synthesis.facet_workflow import facets
    from fc7.engine.synthesis.facets import FacetsOptions
    from fc7.engine.synthesis.fool import fool_images
    from fc7.engine.synthesis.fool_job import FoolOptions
    from fc7.engine.synthesis.fool_workflow import fool
    from fc7.engine.synthesis.invert import InvertOptions, invert_images
    from fc7.engine.synthesis.invert_job import InvertJobOptions, invert
    from fc7.engine.synthesis.workflow import classes, dream
    from fc7.engine.synthesis.zoom import dream_zoom

_HOMES = {
    "AttackOptions": "fc7.engine.synthesis.attack_options",
    "ClassesOptions": "fc7.engine.synthesis.classes",
    "DreamJobOptions": "fc7.engine.synthesis.dream_options",
    "DreamOptions": "fc7.engine.synthesis.dream",
    "ExtractOptions": "fc7.engine.features.workflow",
    "FacetsOptions": "fc7.engine.synthesis.facets",
    "Fc7Error": "fc7.engine.errors",
    "FineTuneOptions": "fc7.engine.attribution.pruning.training",
    "FoolOptions": "fc7.engine.synthesis.fool_job",
    "GuidedOptions": "fc7.engine.attribution.gradient_jobs",
    "ImportanceOptions": "fc7.engine.attribution.importance.job",
    "InvertJobOptions": "fc7.engine.synthesis.invert_job",
    "InvertOptions": "fc7.engine.synthesis.invert",
    "OccludeOptions": "fc7.engine.attribution.occlusion.job",
    "PruneOptions": "fc7.engine.attribution.pruning.workflow",
    "SaliencyOptions": "fc7.engine.attribution.gradient_jobs",
    "SegmentOptions": "fc7.engine.attribution.segmentation.job",
    "TextureJobOptions": "fc7.engine.style.texture_options",
    "TextureOptions": "fc7.engine.style.texture",
    "StyleJobOptions": "fc7.engine.style.transfer_options",
    "StyleOptions": "fc7.engine.style.transfer_options",
    "StylizeOptions": "fc7.engine.style.fast.options",
    "TrainStylizerOptions": "fc7.engine.style.fast.options",
    "classes": "fc7.engine.synthesis.workflow",
    "dream": "fc7.engine.synthesis.workflow",
    "dream_images": "fc7.engine.synthesis.dream",
    "dream_zoom": "fc7.engine.synthesis.zoom",
    "export_stylizer": "fc7.engine.style.fast.workflow",
    "extract": "fc7.engine.features.workflow",
    "facets": "fc7.engine.synthesis.facet_workflow",
    "find_neighbors": "fc7.engine.features.search",
    "fool": "fc7.engine.synthesis.fool_workflow",
    "fool_images": "fc7.engine.synthesis.fool",
    "guided": "fc7.engine.attribution.workflow",
    "guided_maps": "fc7.engine.attribution.guided",
    "importance": "fc7.engine.attribution.importance.workflow",
    "InversionImportanceOptions": "fc7.engine.information.job",
    "inversion_importance": "fc7.engine.information.job",
    "index": "fc7.engine.features.workflow",
    "invert": "fc7.engine.synthesis.invert_job",
    "invert_images": "fc7.engine.synthesis.invert",
    "load_model": "fc7.engine.models",
    "load_stylizer": "fc7.engine.style.fast.stylizer",
    "occlude": "fc7.engine.attribution.workflow",
    "occlusion_maps": "fc7.engine.attribution.occlusion",
    "open_source": "fc7.engine.data",
    "open_store": "fc7.engine.store",
    "project": "fc7.engine.features.workflow",
    "prune": "fc7.engine.attribution.pruning.workflow",
    "read_importance": "fc7.engine.attribution.importance.criteria",
    "read_patches": "fc7.engine.store.patches",
    "saliency": "fc7.engine.attribution.workflow",
    "saliency_maps": "fc7.engine.attribution.saliency",
    "segment": "fc7.engine.attribution.workflow",
    "synthesise": "fc7.engine.style.texture",
    "texture": "fc7.engine.style.texture_job",
    "style": "fc7.engine.style.transfer_workflow",
    "style_images": "fc7.engine.style.transfer",
    "stylize": "fc7.engine.style.fast.workflow",
    "train_stylizer": "fc7.engine.style.fast.workflow",
    "verify": "fc7.engine.store",
    "write_report": "fc7.engine.report",
}

__all__ = [
    "AttackOptions",
    "ClassesOptions",
    "DreamJobOptions",
    "DreamOptions",
    "ExtractOptions",
    "FacetsOptions",
    "Fc7Error",
    "FineTuneOptions",
    "FoolOptions",
    "GuidedOptions",
    "ImportanceOptions",
    "InversionImportanceOptions",
    "InvertJobOptions",
    "InvertOptions",
    "OccludeOptions",
    "PruneOptions",
    "SaliencyOptions",
    "SegmentOptions",
    "StyleJobOptions",
    "StyleOptions",
    "StylizeOptions",
    "TextureJobOptions",
    "TextureOptions",
    "TrainStylizerOptions",
    "classes",
    "dream",
    "dream_images",
    "dream_zoom",
    "export_stylizer",
    "extract",
    "facets",
    "find_neighbors",
    "fool",
    "fool_images",
    "guided",
    "guided_maps",
    "importance",
    "index",
    "inversion_importance",
    "invert",
    "invert_images",
    "load_model",
    "load_stylizer",
    "occlude",
    "occlusion_maps",
    "open_source",
    "open_store",
    "project",
    "prune",
    "read_importance",
    "read_patches",
    "saliency",
    "saliency_maps",
    "segment",
    "style",
    "style_images",
    "stylize",
    "synthesise",
    "texture",
    "train_stylizer",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"fc7 has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
