"""What an answer depends on: `occlude`."""

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
    from fc7.engine.attribution.occlusion.job import OccludeOptions
    from fc7.engine.models import Network
    from fc7.engine.store import Run, Summary

# An image takes seconds to minutes of a CPU: a stop should not cost a thousand of them.
_PART_ROWS = 32


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(occlude)


def occlude(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ],
    model: o.Model = "alexnet",
    window: Annotated[int, typer.Option(min=1, help="Side of the square in pixels.")] = 16,
    stride: Annotated[int, typer.Option(min=1, help="Pixels from place to place.")] = 8,
    fill: Annotated[
        str | None,
        typer.Option(
            help="What covers: a number or r,g,b in [0, 1], or #rrggbb. By default the network's "
            "mean colour."
        ),
    ] = None,
    score: Annotated[str, typer.Option(help="probability or logit.")] = "probability",
    target: o.Target = "predicted",
    refine: Annotated[
        bool,
        typer.Option(
            "--refine",
            help="Approximate: coarse to fine, every place only where the map is strongest. Rank "
            "correlation to exact 0.80 on shapes, 2.2 times as fast on ResNet18.",
        ),
    ] = False,
    growth: Annotated[
        float,
        typer.Option(
            help="Approximate below 1: the largest share of a layer's side that the square may "
            "change. Likewise 0.91 and 1.4 at 0.75; 0.78 and 2.2 at 0.5."
        ),
    ] = 1.0,
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; as many as suit the network.")
    ] = None,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Show which parts of each image the network's answer depends on, by covering them.

    Example: `fc7 occlude photos/ --model alexnet --window 16 --stride 8 --out runs/photos`

    Example: `fc7 occlude cat.jpg --model alexnet --out map.png`

    Maps are exact unless --refine or --growth is given. Give the same command again after a stop,
    and it continues; other options make other maps in the same run. fc7 report shows them.
    """
    from fc7.engine.attribution.occlusion.job import OccludeOptions
    from fc7.engine.attribution.workflow import occlude_with_summary

    options = OccludeOptions(
        window=window,
        stride=stride,
        fill=o.split_colour(fill, "--fill"),
        score=score,  # type: ignore[arg-type]  # it is checked where it is used
        target=target,
        refine=refine,
        growth=growth,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    if draws_one(data, out):
        network = open_network(model, weights, seed, device, precision, mean, std, resize, crop)
        _draw(data, out, network, options, max_pixels, json)
        return
    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, precision, mean, std, resize, crop
    )
    # The network as it was loaded is not needed beside its folded twin.
    network = network.folded([])
    made, summary = with_progress(occlude_with_summary, source, network, out, options)
    if not json:
        _say_what_is_slow(made, summary)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _draw(
    file: str,
    out: Path,
    network: "Network",
    options: "OccludeOptions",
    max_pixels: int,
    json: bool,
) -> None:
    """Draw the map of one image."""
    from fc7.engine.attribution.occlusion.figure import save_figure
    from fc7.engine.attribution.occlusion.one_image import occlude_image
    from fc7.engine.attribution.occlusion.pictures import strongest_window
    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.words import number, share

    found = occlude_image(file, network, options, max_pixels)
    save_figure(found, out)
    largest = float(found.drops.max())
    if json:
        window = strongest_window(found.drops, found.size, found.window, found.stride)
        outcome: dict[str, Any] = {
            "image": file,
            "picture": str(out),
            "class": found.target,
            "probability": found.probability,
            "predicted": found.predicted,
            "largest_drop": largest,
            "window": dict(zip(("top", "left", "bottom", "right"), window, strict=True)),
            "drops": found.drops.tolist(),
        }
        emit_json(outcome)
        return
    say(
        f"{out}: {found.target} {share(found.probability)}, its {found.score} falls by "
        f"{number(largest)} at most"
    )


def _say_what_is_slow(made: "Run", summary: "Summary") -> None:
    from fc7.engine.cli.console import say

    functions = made.job(summary.job).meta["notes"]["runs_in_full_from"]
    if functions:
        say(f"  no shortcut through {', '.join(functions)}: from there each place runs in full")
