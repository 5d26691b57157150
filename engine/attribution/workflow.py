"""Attribution as functions: what `fc7 occlude` and its like do and `import fc7` offers.

run = occlude("photos/", "alexnet", "run/", OccludeOptions(window=32, stride=16))
run["occlusion"]                                (N, rows, columns)
run = saliency("photos/", "alexnet", "run/")
run["saliency"]                                 (N, H, W)
run = guided("photos/", "alexnet", "run/", GuidedOptions(layer="conv5", unit=17))
run["guided"]                                   (N, 3, H, W)
run = segment("photos/", "alexnet", "run/")
run["segment"]                                  (N,), each a PNG file
"""

from pathlib import Path

from fc7.engine.attribution.gradient_jobs import (
    GuidedOptions,
    SaliencyOptions,
    guided_job,
    saliency_job,
)
from fc7.engine.attribution.occlusion.job import Occlude, OccludeOptions
from fc7.engine.attribution.segmentation.job import Segment, SegmentOptions
from fc7.engine.data import Source
from fc7.engine.models import Network
from fc7.engine.store import Run, Summary
from fc7.engine.store.technique import carry_out, opened


def occlude(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: OccludeOptions | None = None,
) -> Run:
    """Make occlusion maps of a data set in a run; see `occlude_with_summary`."""
    return occlude_with_summary(data, model, out, options)[0]


def occlude_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: OccludeOptions | None = None,
) -> tuple[Run, Summary]:
    """Make occlusion maps of a data set in a run: which parts of each image the answer depends on.

    A run that was begun is continued. Maps that are asked for differently (another window,
    another target) join it under a name of their own: `occlusion-2` beside `occlusion`.

        run["occlusion"]              (N, rows, columns), by how much the score falls there
        run["occlusion.target"]       (N,), the class whose score it is; see `Occlude` for the rest

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its occlusion job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these maps were begun
            with another size of a batch or on another device.
        OptionError: an option is out of range, or the class is none of the network's.
    """
    options = options or OccludeOptions()
    source, network = opened(data, model)
    if not isinstance(model, Network):  # as it was loaded nobody needs it beside its folded twin
        network = network.folded([])
    return carry_out(Occlude(network, source, options), source, network, out, options)


def saliency(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: SaliencyOptions | None = None,
) -> Run:
    """Make saliency maps of a data set in a run; see `saliency_with_summary`."""
    return saliency_with_summary(data, model, out, options)[0]


def saliency_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: SaliencyOptions | None = None,
) -> tuple[Run, Summary]:
    """Make saliency maps of a data set in a run: how each pixel would change the answer.

    A run that was begun is continued. Maps that are asked for differently (another method,
    another target) join it under a name of their own: `saliency-2` beside `saliency`.

        run["saliency"]              (N, H, W), or (N, 3, H, W) by the method "gradient"
        run["saliency.target"]       (N,), the class whose logit it is; see
                                     `fc7.engine.attribution.makers` for the rest

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its saliency job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these maps were begun
            with another size of a batch or on another device.
        OptionError: an option is out of range, or the class is none of the network's.
        QuestionError: nothing flows back to the pixels.
    """
    options = options or SaliencyOptions()
    source, network = opened(data, model)
    return carry_out(saliency_job(network, source, options), source, network, out, options)


def guided(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: GuidedOptions | None = None,
) -> Run:
    """Make guided gradients of a data set in a run; see `guided_with_summary`."""
    return guided_with_summary(data, model, out, options)[0]


def guided_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: GuidedOptions | None = None,
) -> tuple[Run, Summary]:
    """Make guided gradients of a data set in a run: which pixels speak for a class or a unit.

        run["guided"]              (N, 3, H, W)
        run["guided.target"]       (N,), the class; of a unit `guided.value` and `guided.position`

    Arguments, the run and errors are those of `saliency_with_summary`.

    Raises:
        LayerError: there is no such layer.
        OptionError: it has no such unit.
        QuestionError: the network has no ReLU for the rule to change.
    """
    options = options or GuidedOptions()
    source, network = opened(data, model)
    return carry_out(guided_job(network, source, options), source, network, out, options)


def segment(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: SegmentOptions | None = None,
) -> Run:
    """Make masks of a data set's objects in a run; see `segment_with_summary`."""
    return segment_with_summary(data, model, out, options)[0]


def segment_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: SegmentOptions | None = None,
) -> tuple[Run, Summary]:
    """Make masks of a data set in a run: where the object is, found by nobody's having drawn it.

    A run that was begun is continued. Masks that are asked for differently join it under a name
    of their own: `segment-2` beside `segment`.

        run["segment"]                (N,), PNG files of one bit a pixel, each of its image's size
        run["segment.area"]           (N,), the mask's share; see `Segment` for the rest

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its segmentation job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these masks were begun
            with another size of a batch or on another device.
        QuestionError: nothing flows back to the pixels.
        OptionError: an option is out of range, or OpenCV is not installed.
    """
    options = options or SegmentOptions()
    source, network = opened(data, model)
    return carry_out(Segment(network, source, options), source, network, out, options)
