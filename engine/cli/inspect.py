"""Looking without computing: `layers` of a network, `verify` of a run."""

from typing import Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import weights_for_shapes


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(layers)
    app.command()(verify)


def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for --model.")],
    every: Annotated[bool, typer.Option("--all", help="Every module, by its path.")] = False,
    resize: o.Resize = None,
    crop: o.Crop = None,
    json: o.Json = False,
) -> None:
    """List a network's layers: names, shapes, receptive fields, bytes a row.

    Example: `fc7 layers alexnet`

    A row's bytes are those of float16: of `LAYER.max` and `LAYER.argmax`, and of whole maps.
    """
    from fc7.engine.cli.console import emit_json, emit_table
    from fc7.engine.features.plan import list_layers
    from fc7.engine.models import load_model
    from fc7.engine.words import bytes_text

    weights = weights_for_shapes(model)
    network = load_model(model, weights=weights, device="cpu", resize=resize, crop=crop)
    listed = list_layers(network, every)
    if json:
        emit_json({"model": model, "input_size": network.input_size, "layers": listed})
        return
    rows: list[list[Any]] = []
    for entry in listed:
        field = entry["receptive_field"]
        rows.append(
            [
                entry["name"],
                entry["path"],
                entry["kind"],
                " x ".join(map(str, entry["shape"])),
                _field_text(field),
                bytes_text(entry["bytes_per_row"]),
                bytes_text(entry["map_bytes_per_row"]) if entry["map_bytes_per_row"] else "",
            ]
        )
    height, width = network.input_size
    title = f"{model}, images of {height} x {width} pixels"
    headings = ("layer", "module", "type", "shape", "receptive field", "bytes a row", "with --maps")
    emit_table(headings, rows, title)


def verify(run: o.RunFolder, json: o.Json = False) -> None:
    """Read every byte of a run and compare it with what was committed.

    Example: `fc7 verify runs/photos`

    Exit code 1 when something is damaged; each damaged file is named, with the cure.
    """
    from fc7.engine.cli.console import FAILED, emit_json, progress, say
    from fc7.engine.store import open_store
    from fc7.engine.store import verify as verify_run

    opened = open_store(run)
    with progress() as report:
        damage = verify_run(opened, report)
    if json:
        emit_json({"run": str(run), "damage": [{"path": d.path, "what": d.what} for d in damage]})
    else:
        for one in damage:
            say(f"{one.path} {one.what}")
        parts = sum(len(job.committed()) for job in opened.jobs().values())
        say(f"{run}: {len(damage)} damaged files; {parts} parts of {len(opened.jobs())} jobs")
    if damage:
        raise typer.Exit(FAILED)


def _field_text(field: dict[str, Any] | None) -> str:
    if field is None:
        return ""
    if field["is_global"]:
        return "whole image"
    if 0 in field["stride"]:  # adaptive pooling: every position has a size of its own
        return "varies"
    (height, width), (down, across), (top, left) = field["size"], field["stride"], field["offset"]
    if height == width and down == across and top == left:
        return f"{height} every {down}, from {top}"
    return f"{height} x {width} every {down} x {across}, from {top}, {left}"
