"""What kinds of image excite a class or a channel: `facets`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import conclude, outcome_of, with_progress

if TYPE_CHECKING:
    from fc7.engine.models import Network
    from fc7.engine.synthesis.facets import FacetsOptions, Plan

_PART_ROWS, _BATCH, _MOST, _NEAREST, _ROWS = 16, 16, 10, 15, 200
_AUTO = "auto"


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(facets)


def facets(
    run: o.RunFolder,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="A run's folder; of few facets, a .png."),
    ],
    classes: Annotated[
        str | None,
        typer.Option("--class", help="Numbers or names: 3,7,tench. Those of 0+4 are one class."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Units of this layer instead of classes.")
    ] = None,
    units: Annotated[str | None, typer.Option("--unit", help="Of the layer: 17 or 0-7,40.")] = None,
    count: Annotated[
        str, typer.Option("--facets", help="Of each; auto: as many as lie well apart.")
    ] = _AUTO,
    most: Annotated[int, typer.Option(min=1, help="Facets where auto chooses.")] = _MOST,
    by: Annotated[
        str | None, typer.Option(help="What is clustered; by default the deepest vectors.")
    ] = None,
    members: Annotated[
        str, typer.Option("--rows", help="A class's rows: auto, label or predicted.")
    ] = _AUTO,
    unit_rows: Annotated[
        int, typer.Option("--unit-rows", min=1, help="Rows that excite a unit most.")
    ] = _ROWS,
    nearest: Annotated[
        int, typer.Option(min=1, help="Rows whose mean an image begins with.")
    ] = _NEAREST,
    pull: Annotated[
        float | None, typer.Option(min=0, help="Towards its own kind; 0 as in the paper.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of all stages together.")] = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images that ascend together.")] = _BATCH,
    part_rows: o.PartRows = _PART_ROWS,
    parts: o.Parts = None,
    json: o.Json = False,
) -> None:
    """Paint each of the kinds of image that excite a class or a channel: it may have several.

    Example: `fc7 facets runs/photos --class "grocery store" --out runs/facets`

    Example: `fc7 facets runs/photos --layer conv5 --unit 17 --facets 4 --out facets.png`

    RUN is one that fc7 extract or fc7 run made, with its images still in place. Give the same
    command again after a stop, and it continues. fc7 report shows the images.
    """
    from fc7.engine.store import open_store
    from fc7.engine.store.network import network_of
    from fc7.engine.synthesis.facet_workflow import facets_with_summary, plan_of
    from fc7.engine.synthesis.facets import FacetsOptions

    options = FacetsOptions(
        facets=_count(count),
        most=most,
        by=by,
        members=members,
        rows_of_a_unit=unit_rows,
        nearest=nearest,
        pull=pull,
        steps=steps,
        seed=seed,
        batch_rows=batch,
        part_rows=part_rows,
        parts=parts,
    )
    held = open_store(run)
    network = network_of(held, device)
    plan = plan_of(held, network, _unions(classes), layer, _units(units), options)
    from fc7.engine.drawing.sheet import PICTURES

    if out.suffix.lower() in PICTURES:
        _draw(plan, network, out, options, json)
        return

    def make(_source: Any, network: Any, out: Path, options: Any) -> Any:
        return facets_with_summary(plan, network, out, options)

    made, summary = with_progress(make, plan.targets, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], False, json)


def _draw(
    plan: "Plan", network: "Network", out: Path, options: "FacetsOptions", json: bool
) -> None:
    """Make the images in a run that nobody keeps, and draw them."""
    import dataclasses
    import tempfile

    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.drawing.sheet import save_picture
    from fc7.engine.errors import OptionError
    from fc7.engine.synthesis.facet_figure import MOST_LINES, facet_figure
    from fc7.engine.synthesis.facet_workflow import facets_with_summary
    from fc7.engine.synthesis.stored_facets import stored_facets

    out.parent.stat()  # before a minute is spent on what could not be written
    if len(plan.targets) > MOST_LINES:
        raise OptionError(f"{len(plan.targets)} facets are too many for {out.name}; name a folder")
    with tempfile.TemporaryDirectory(prefix="fc7-") as folder, progress() as report:
        shown = dataclasses.replace(options, report=report, parts=None)
        made, _ = facets_with_summary(plan, network, Path(folder) / "run", shown)
        stored = stored_facets(made)[0]
        save_picture(lambda: facet_figure(stored, network), out)
        found = [
            {
                "key": key,
                "members": int(stored.value("members", row)),
                "nearest": stored.nearest(row).tolist(),
                "score": stored.value("score", row),
                "status": stored.status(row),
            }
            for row, key in enumerate(made.rows["key"].to_pylist())
        ]
    if json:
        emit_json({"picture": str(out), "facets": found})
    else:
        say(f"{out}: {len(found)} facets")


def _count(text: str) -> int | None:
    if text == _AUTO:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither auto nor a number", param_hint="--facets")
    return int(text)


def _unions(text: str | None) -> list[list[int | str]] | None:
    """Return classes as they were named; those between plus signs together."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [[name.strip() for name in part.split("+") if name.strip()] for part in parts]


def _units(text: str | None) -> list[int] | None:
    if text is None:
        return None
    from fc7.engine.data.targets import parse_units

    return parse_units(text)
