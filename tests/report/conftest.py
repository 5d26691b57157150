"""One real run over a folder of hostile names, reported on once and read by many tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from fc7.engine.attribution.gradient_jobs import GuidedOptions, SaliencyOptions
from fc7.engine.attribution.guided_patches import GuidedPatches
from fc7.engine.attribution.importance.job import ImportanceOptions
from fc7.engine.attribution.importance.workflow import importance
from fc7.engine.attribution.occlusion.job import OccludeOptions
from fc7.engine.attribution.segmentation.job import SegmentOptions
from fc7.engine.attribution.workflow import guided, occlude, saliency, segment
from fc7.engine.data import open_source
from fc7.engine.data.shape_drawing import render
from fc7.engine.features.workflow import ExtractOptions, extract, index, project
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.store import Run, run_stage
from fc7.engine.style.fast.options import StylizeOptions
from fc7.engine.style.fast.paintings import read_paintings
from fc7.engine.style.fast.stylizer import Stylizer
from fc7.engine.style.fast.transformer import Architecture, Transformer
from fc7.engine.style.fast.workflow import stylize
from fc7.engine.style.texture_job import texture
from fc7.engine.style.texture_options import TextureJobOptions
from fc7.engine.synthesis.dream_options import DreamJobOptions
from fc7.engine.synthesis.fool_job import FoolOptions
from fc7.engine.synthesis.fool_workflow import fool
from fc7.engine.synthesis.invert_job import InvertJobOptions, invert
from fc7.engine.synthesis.workflow import dream

sys.path.insert(0, str(Path(__file__).parent))  # the tests are no package
from readers import HOSTILE, LABELS, ROWS, Page


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def network() -> Network:
    return load_model("tiny-shapes", weights="random", seed=3, device="cpu")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawings enlarged to 96 x 128, and three files that are no images, in 3 classes."""
    folder = tmp_path_factory.mktemp("hostile") / "pictures <&>"
    for row in range(ROWS):
        image, _, _ = render(5, row)
        name = folder / LABELS[row % 3] / f"{row:03d}.png"
        if row == 0:
            name = folder / HOSTILE
        name.parent.mkdir(parents=True, exist_ok=True)
        drawn = Image.fromarray(image.transpose(1, 2, 0))
        drawn.resize((128, 96), Image.Resampling.BICUBIC).save(name)
    (folder / LABELS[1] / "empty <i>.png").touch()
    (folder / LABELS[1] / "text.png").write_text("<script>not an image</script>")
    (folder / LABELS[2] / "cut.png").write_bytes((folder / HOSTILE).read_bytes()[:700])
    return folder


def painted(pictures: Path) -> dict[str, bytes]:
    files = [pictures / HOSTILE, pictures / LABELS[1] / "001.png"]
    found = zip("ab", read_paintings(files, 64), strict=True)
    return {name: painting.picture for name, painting in found}


@pytest.fixture(scope="session")
def run(pictures: Path, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The main job but for UMAP and t-SNE, which take longer than all these tests."""
    made = extract(
        open_source(pictures),
        network,
        ["fc7", "conv1", "conv5", "pixels"],
        tmp_path_factory.mktemp("run") / "run",
        ExtractOptions(part_rows=16, batch_rows=8, threads=1),
    )
    index(made, "fc7", k=12)
    index(made, "pixels", k=12)
    project(made, "fc7", "pca")
    project(made, "conv5.max", "pca", dimensions=3)
    occlude(pictures, network, made.folder, OccludeOptions(window=40, stride=24, threads=1))
    saliency(pictures, network, made.folder, SaliencyOptions(threads=1, part_rows=16))
    guided(pictures, network, made.folder, GuidedOptions(threads=1, layer="conv5", unit=2))
    source = open_source(pictures)
    run_stage(made, GuidedPatches(made, source, network, "conv5", [4, 0, 9], top=5))
    segment(pictures, network, made.folder, SegmentOptions(side=48, iterations=1, threads=1))
    importance(pictures, network, made.folder, ImportanceOptions(threads=1))
    fool(pictures, network, made.folder, FoolOptions(method="fgsm", threads=1))
    quick = DreamJobOptions(layer="conv2", octaves=1, steps=1, threads=1)
    dream(pictures, network, made.folder, quick)
    inverted = InvertJobOptions(evaluations=4, starts=1, threads=1)
    invert(pictures, network, ["conv1", "fc7"], made.folder, inverted)
    small = TextureJobOptions(size=(32, 32), layers=("conv1",), evaluations=1, threads=1)
    texture(pictures, network, made.folder, small)
    stylizer = Stylizer(Transformer(Architecture(4, 1, styles=2)).eval(), painted(pictures))
    stylize(pictures, stylizer, made.folder, StylizeOptions(style="b=3,a=1", threads=1))
    return made


@pytest.fixture(scope="session")
def report(run: Run, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "new folder" / "report.html"
    return write_report(run, path, network, channels_per_layer=3, queries=3)


@pytest.fixture(scope="session")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))
