"""What a layer keeps of an image: `invert`."""

from pathlib import Path
from typing import Annotated

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
)

_PART_ROWS, _BATCH = 16, 16


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(invert)


def invert(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")],
    layers: Annotated[
        str,
        typer.Option("--layers", "--layer", "-l", help="Comma-separated, such as conv3,fc7."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ],
    model: o.Model = "alexnet",
    evaluations: Annotated[
        int, typer.Option(min=4, help="Passes through the network and back, of each search.")
    ] = 120,
    starts: Annotated[
        int, typer.Option(min=1, help="Searches for each image; the best is kept.")
    ] = 3,
    variation: Annotated[
        float, typer.Option(help="Weight of the differences between neighbours.")
    ] = 1e-5,
    colours: Annotated[
        float, typer.Option(help="Weight of the distance to the mean colour.")
    ] = 1e-6,
    optimiser: Annotated[str, typer.Option(help="lbfgs or adam.")] = "lbfgs",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that descend together.")] = _BATCH,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Show what a layer keeps of each image: another image to which it answers alike.

    Example: `fc7 invert photos/ --model alexnet --layers conv3,fc7 --out runs/photos`

    Example: `fc7 invert cat.jpg --model alexnet --layers conv1,conv3,conv5,fc7 --out cat.png`

    Give the same command again after a stop, and it continues; other layers join the run.
    """
    import dataclasses

    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.synthesis.invert_job import InvertJobOptions, invert_with_summaries

    named = o.split_layers(layers)
    options = InvertJobOptions(
        evaluations=evaluations,
        starts=starts,
        variation=variation,
        colours=colours,
        optimiser=optimiser,
        seed=seed,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    network_options = model, weights, seed, device, precision, mean, std, resize, crop
    if draws_one(data, out):
        from fc7.engine.drawing.sheet import save_sheet
        from fc7.engine.synthesis.invert_figure import invert_image
        from fc7.engine.words import share

        sheet, found = invert_image(
            data, open_network(*network_options), named, options, max_pixels
        )
        save_sheet(sheet, out)
        if json:
            layers_found = [one.to_dict() for one in found]
            emit_json({"image": data, "picture": str(out), "layers": layers_found})
        else:
            errors = (f"{one.layer} {share(one.error)}" for one in found)
            say(f"{out}: features are off by {', '.join(errors)}")
        return
    source, network = open_data_and_network(data, max_pixels, *network_options)
    with progress() as report:
        told = dataclasses.replace(options, report=report)
        made, summaries = invert_with_summaries(source, network, named, out, told)
    conclude(outcome_of(made, summaries), summaries, strict, json)
