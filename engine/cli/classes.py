"""What a network would paint for its classes, channels and neurons: `classes`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import conclude, open_network, outcome_of

_PART_ROWS, _BATCH = 16, 16


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(classes)


def classes(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of few images, a .png."),
    ],
    model: o.Model = "alexnet",
    classes: Annotated[
        str | None,
        typer.Option(help="Numbers, spans or names: 0-9,17,tench. All by default."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Units of this layer instead of classes.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Of the layer: 0-31,40. All by default.")
    ] = None,
    neurons: Annotated[
        bool, typer.Option("--neurons", help="The neuron in the middle, not a channel's mean.")
    ] = False,
    starts: Annotated[int, typer.Option(min=1, help="Images of each, from other noise.")] = 1,
    preset: Annotated[
        str, typer.Option(help="lucid, simonyan, or yosinski-1 to yosinski-4.")
    ] = "lucid",
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Of the images: HxW or one side; of layers alone.")
    ] = None,
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that ascend together.")] = _BATCH,
    part_rows: o.PartRows = _PART_ROWS,
    parts: o.Parts = None,
    json: o.Json = False,
) -> None:
    """Paint what a class, a channel or a neuron wants to see, by gradient ascent from noise.

    Example: `fc7 classes --model alexnet --out runs/classes`

    Example: `fc7 classes --model alexnet --layer conv5 --units 0-31 --out conv5.png`

    Give the same command again after a stop, and it continues. fc7 report shows the images.
    """
    from fc7.engine.synthesis.classes import ClassesOptions
    from fc7.engine.synthesis.workflow import targets_of

    network = open_network(model, weights, seed, device, precision, mean, std, resize, crop)
    source = targets_of(network, _classes(classes), layer, _units(units), starts)
    options = ClassesOptions(
        preset=preset,
        steps=steps,
        neurons=neurons,
        size=o.split_size(size, "--size"),
        seed=seed,
        batch_rows=batch,
        part_rows=part_rows,
        parts=parts,
    )
    from fc7.engine.drawing.sheet import PICTURES

    if out.suffix.lower() in PICTURES:
        _draw(source, network, out, options, json)
        return
    made, summary = _made(source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], False, json)


def _made(source: Any, network: Any, out: Path, options: Any) -> tuple[Any, Any]:
    from fc7.engine.cli.computing import with_progress
    from fc7.engine.synthesis.workflow import classes_with_summary

    return with_progress(classes_with_summary, source, network, out, options)


def _draw(source: Any, network: Any, out: Path, options: Any, json: bool) -> None:
    """Make the images in a run that nobody keeps, and draw them."""
    import tempfile

    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.drawing.sheet import save_picture
    from fc7.engine.errors import OptionError
    from fc7.engine.synthesis.class_figure import MOST_TILES, class_figure
    from fc7.engine.synthesis.stored import stored_classes

    out.parent.stat()  # before a minute is spent on what could not be written
    if len(source) > MOST_TILES:
        raise OptionError(f"{len(source)} images are too many for {out.name}; name a folder")
    with tempfile.TemporaryDirectory(prefix="fc7-") as folder:
        made, _ = _made(source, network, Path(folder) / "run", options)
        stored = stored_classes(made)[0]
        save_picture(lambda: class_figure(stored, network), out)
        found = [
            {
                "key": key,
                "score": stored.value("score", row),
                "status": stored.status(row),
                "steps": int(stored.value("steps", row)),
            }
            for row, key in enumerate(made.rows["key"].to_pylist())
        ]
    if json:
        emit_json({"picture": str(out), "images": found})
    else:
        say(f"{out}: {len(found)} images")


def _classes(text: str | None) -> list[int | str] | None:
    """Return classes as they were named: numbers and spans, and what else stands between commas."""
    if text is None:
        return None
    import re

    from fc7.engine.data.targets import parse_units

    found: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        found += parse_units(part) if re.fullmatch(r"\d+(-\d+)?", part) else [part] if part else []
    return found


def _units(text: str | None) -> list[int] | None:
    if text is None:
        return None
    from fc7.engine.data.targets import parse_units

    return parse_units(text)
