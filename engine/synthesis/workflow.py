"""Synthesis as functions: what `fc7 classes` and its like do and `import fc7` offers.

run = classes("alexnet", "run/", classes=["tench", 7])
run["classes"]                                  (N, 3, H, W), an image of each
run = classes("alexnet", "run/", layer="conv5")
run = dream("photos/", "alexnet", "run/", DreamJobOptions(layer="relu4"))
run["dream"]                                    (N,), each a PNG file
"""

from collections.abc import Sequence
from pathlib import Path

from fc7.engine.data import Source
from fc7.engine.data.targets import TargetsSource
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.models.targets import class_number
from fc7.engine.store import Run, Summary
from fc7.engine.store.technique import carry_out, opened
from fc7.engine.synthesis.classes import ClassesOptions, ClassImages
from fc7.engine.synthesis.dream_job import Dream
from fc7.engine.synthesis.dream_options import DreamJobOptions
from fc7.engine.synthesis.terms import class_count_of


def classes(
    model: str | Network,
    out: str | Path,
    classes: Sequence[int | str] | None = None,
    layer: str | None = None,
    units: Sequence[int] | None = None,
    starts: int = 1,
    options: ClassesOptions | None = None,
) -> Run:
    """Make images of classes, channels or neurons in a run.

    A run that was begun is continued.

        run["classes"]                (N, 3, H, W) uint8, an image for each target
        run["classes.score"]          (N,) float32; see `fc7.engine.synthesis.classes` for the rest

    Args:
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        classes: numbers or names; all if neither they nor a layer are given.
        layer: in place of classes, a canonical name or module path.
        units: of the layer; all if None.
        starts: images of each target, each from another random start.
        options: how.

    Raises:
        FingerprintError: the run in `out` is of other targets, another network, or was begun with
            other options of these images.
        LayerError: there is no such layer.
        OptionError: or no such class or unit, or an option is out of range.
    """
    network = model if isinstance(model, Network) else load_model(model)
    source = targets_of(network, classes, layer, units, starts)
    return classes_with_summary(source, network, out, options or ClassesOptions())[0]


def classes_with_summary(
    source: TargetsSource, network: Network, out: str | Path, options: ClassesOptions
) -> tuple[Run, Summary]:
    """Make images of targets in a run, and say what was done; see `classes`."""
    job = ClassImages(network, source, options)
    return carry_out(job, source, network, out, options)


def targets_of(
    network: Network,
    classes: Sequence[int | str] | None = None,
    layer: str | None = None,
    units: Sequence[int] | None = None,
    starts: int = 1,
) -> TargetsSource:
    """Return what images are to be made of; arguments and errors are those of `classes`."""
    if starts < 1:
        raise OptionError(f"starts is {starts}; write 1 or more")
    if layer is not None:
        if classes is not None:
            raise OptionError(f"classes are no units of {layer}; name one or the other")
        count = network.layer(layer).shape[0]
        chosen = range(count) if units is None else units
        if not chosen:
            raise OptionError(f"no unit of {layer} is named; there are 0 to {count - 1}")
        return TargetsSource(layer, list(chosen), starts)
    if units is not None:
        raise OptionError("units of which layer? name one")
    count = class_count_of(network)
    if classes is None:
        return TargetsSource(None, range(count), starts)
    if not classes:
        raise OptionError(f"no class is named; there are 0 to {count - 1}")
    numbers = dict.fromkeys(class_number(wanted, network, count) for wanted in classes)
    return TargetsSource(None, list(numbers), starts)


def dream(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: DreamJobOptions,
) -> Run:
    """Dream of a data set in a run; see `dream_with_summary`."""
    return dream_with_summary(data, model, out, options)[0]


def dream_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: DreamJobOptions,
) -> tuple[Run, Summary]:
    """Dream of a data set in a run: each image with more of what a layer sees in it.

    A run that was begun is continued. Dreams that are asked for differently join it under a name
    of their own: `dream-2` beside `dream`.

        run["dream"]                (N,), PNG files, each of its image's size
        run["dream.gain"]           (N,), by how much what is asked for rose; see `Dream`

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how; at least a layer.

    Returns:
        The run, and what its job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these dreams were
            begun with another size of a batch or on another device.
        LayerError: there is no such layer.
        OptionError: an option is out of range, the guide cannot be used, or an image is too small
            for the layer.
        QuestionError: nothing flows back to the pixels.
    """
    source, network = opened(data, model)
    return carry_out(Dream(network, source, options), source, network, out, options)
