"""Where the object is: `segment`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import (
    MAX_PIXELS,
    conclude,
    draws_one,
    open_data_and_network,
    open_network,
    outcome_of,
    thread_count,
    with_progress,
)

if TYPE_CHECKING:
    from fc7.engine.attribution.segmentation.job import SegmentOptions
    from fc7.engine.models import Network

_PART_ROWS = 128


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(segment)


def segment(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ] = None,
    model: o.Model = "alexnet",
    mask: Annotated[
        Path | None, typer.Option(help="Of one image: write the plain mask, a .png of single bits.")
    ] = None,
    foreground: Annotated[
        float, typer.Option(help="The map's quantile from which on pixels are the object's.")
    ] = 0.95,
    probable: Annotated[
        float | None,
        typer.Option(help="From which on they probably are; that of --foreground if not given."),
    ] = None,
    background: Annotated[float, typer.Option(help="Up to which they are the background's.")] = 0.3,
    iterations: Annotated[int, typer.Option(min=1, help="Of GrabCut.")] = 5,
    blur: Annotated[
        float, typer.Option(help="How far the map is smoothed, as a share of its side; 0 is not.")
    ] = 0.1,
    side: Annotated[
        int, typer.Option(min=1, help="Pixels of the longer side at which GrabCut works.")
    ] = 512,
    guided: Annotated[
        bool,
        typer.Option("--guided", help="By guided backpropagation instead of the gradient."),
    ] = False,
    target: o.Target = "predicted",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Cut out the object that the network's answer depends on: a mask for each image.

    Example: `fc7 segment photos/ --model alexnet --out runs/photos`

    Example: `fc7 segment cat.jpg --model alexnet --out cut.png --mask mask.png`

    Nobody has drawn an object for it: the saliency map of the answer says which pixels are the
    object's, and GrabCut, by colours and edges, where it ends. It needs `pip install fc7[segment]`.
    Give the same command again after a stop, and it continues; other options make other masks in
    the same run. fc7 report shows them.
    """
    from fc7.engine.attribution.segmentation.job import SegmentOptions

    options = SegmentOptions(
        foreground=foreground,
        probable=foreground if probable is None else probable,
        background=background,
        iterations=iterations,
        blur=blur,
        side=side,
        rule="guided" if guided else "plain",
        target=target,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    if _is_one_image(data, out, mask):
        network = open_network(model, weights, seed, device, precision, mean, std, resize, crop)
        _draw(data, out, mask, network, options, max_pixels, json)
        return
    assert out is not None
    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, precision, mean, std, resize, crop
    )
    from fc7.engine.attribution.workflow import segment_with_summary

    made, summary = with_progress(segment_with_summary, source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _is_one_image(data: str, out: Path | None, mask: Path | None) -> bool:
    """Say whether one image is asked for; refuse what does not go together.

    Raises:
        OptionError: a picture of many images, a run of one file, or neither.
    """
    from fc7.engine.attribution.segmentation.one_image import check_mask_name
    from fc7.engine.errors import OptionError

    if mask is not None:
        check_mask_name(mask)
    draws = [draws_one(data, path) for path in (mask, out) if path is not None]
    if not draws:
        raise OptionError("name a folder for --out; of one image, a picture for --out or --mask")
    if not all(draws) and any(draws):
        raise OptionError(f"{out} is no picture, and {mask} is of one image; write {out}.png")
    return all(draws)


def _draw(
    file: str,
    out: Path | None,
    mask: Path | None,
    network: "Network",
    options: "SegmentOptions",
    max_pixels: int,
    json: bool,
) -> None:
    """Draw the mask of one image, write it, or both."""
    from fc7.engine.attribution.segmentation.figure import figure
    from fc7.engine.attribution.segmentation.one_image import save_mask, segment_file
    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.drawing.sheet import save_sheet
    from fc7.engine.words import share

    found = segment_file(file, network, options, max_pixels)
    if out is not None:
        save_sheet(figure(found), out)
    if mask is not None:
        save_mask(found.mask, mask)
    if json:
        outcome: dict[str, Any] = {
            "image": file,
            "picture": None if out is None else str(out),
            "mask": None if mask is None else str(mask),
            "class": found.target,
            "probability": found.probability,
            "predicted": found.predicted,
            "area": found.area,
            "how": found.how,
        }
        emit_json(outcome)
        return
    written = " and ".join(str(path) for path in (out, mask) if path is not None)
    say(
        f"{written}: {found.target} {share(found.probability)}, {share(found.area)} of the image, "
        f"{found.how_words}"
    )
