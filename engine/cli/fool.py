"""What a network falls for: `fool`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from fc7.engine.models import Network
    from fc7.engine.store import Run
    from fc7.engine.synthesis.fool_job import FoolOptions
    from fc7.engine.synthesis.stored_fool import Outcome

_PART_ROWS = 128


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(fool)


def fool(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ],
    model: o.Model = "alexnet",
    method: Annotated[
        str,
        typer.Option(
            help="margin (up the margin until fooled), ddn (the smallest Euclidean norm), fgsm or "
            "pgd (no pixel changes by more than --epsilon)."
        ),
    ] = "margin",
    target: Annotated[
        str,
        typer.Option(
            help="What the network is to say: random, least-likely, next, untargeted (anything "
            "but what it says now), or one class."
        ),
    ] = "random",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Gradients of an image at most: margin 500, ddn 100, pgd 40."),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="Of margin, an Euclidean norm, 0.05; of pgd, a quarter of --epsilon."),
    ] = None,
    probability: Annotated[float, typer.Option(help="That margin goes on to.")] = 0.0,
    epsilon: Annotated[
        float, typer.Option(help="Of fgsm and pgd: the largest change of a pixel in [0, 1].")
    ] = 8 / 255,
    dtype: Annotated[str, typer.Option(help="Of stored changes: float16 or float32.")] = "float16",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: Annotated[int, typer.Option(min=1, help="Images attacked together.")] = 16,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Change images so little that only the network is fooled: adversarial examples.

    Example: `fc7 fool photos/ --model alexnet --method ddn --out runs/photos`

    Example: `fc7 fool cat.jpg --model alexnet --target 17 --out fooled.png`

    Give the same command again after a stop, and it continues; other options make other examples
    in the same run. fc7 report shows them.
    """
    from fc7.engine.synthesis.fool_job import FoolOptions

    options = FoolOptions(
        method=method,
        steps=steps,
        step=step,
        probability=probability,
        epsilon=epsilon,
        seed=seed,
        target=target,
        dtype=dtype,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    network_options = model, weights, seed, device, precision, mean, std, resize, crop
    if draws_one(data, out):
        _draw(data, out, open_network(*network_options), options, max_pixels, json)
        return
    source, network = open_data_and_network(data, max_pixels, *network_options)
    from fc7.engine.synthesis.fool_workflow import fool_with_summary

    made, summary = with_progress(fool_with_summary, source, network, out, options)
    outcome, lines = outcome_of(made, [summary]), []
    if summary.is_complete:
        found = _outcome_of(made, summary.job)
        outcome["outcome"], lines = dataclasses.asdict(found), [_words(found)]
    conclude(outcome, [summary], strict, json, lines)


def _outcome_of(run: "Run", job: str) -> "Outcome":
    from fc7.engine.synthesis.stored_fool import stored_fools

    return next(one.outcome() for one in stored_fools(run) if one.name == job)


def _words(found: "Outcome") -> str:
    from fc7.engine.words import number, plural, share

    line = (
        f"  {share(found.success)} of {plural(found.rows, 'image')} fool the network, "
        f"{share(found.success_8bit)} after rounding to 8 bits"
    )
    if not found.success > 0:
        return line
    return (
        f"{line}; in the median L2 {number(found.l2)}, largest change {number(found.linf)}, "
        f"{plural(round(found.evaluations), 'gradient evaluation')}"
    )


def _draw(
    file: str,
    out: Path,
    network: "Network",
    options: "FoolOptions",
    max_pixels: int,
    json: bool,
) -> None:
    """Draw the adversarial example of one image."""
    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.drawing.sheet import save_sheet
    from fc7.engine.synthesis.fool_figure import figure, fool_file
    from fc7.engine.words import number, share

    found = fool_file(file, network, options, max_pixels)
    save_sheet(figure(found), out)
    if json:
        emit_json(
            {
                "image": file,
                "picture": str(out),
                "method": found.method,
                "success": found.success,
                "class": found.predicted,
                "target": found.target,
                "became": found.became,
                "numbers": found.columns,
            }
        )
        return
    before, after = (share(found.columns[name]) for name in ("probability", "certainty"))
    how = "" if found.success else "not fooled: "
    say(
        f"{out}: {how}{found.predicted} {before}, then {found.became} {after}; "
        f"L2 {number(found.columns['l2'])}"
    )
