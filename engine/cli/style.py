"""Images in the style of others: `style`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import (
    MAX_PIXELS,
    conclude,
    open_network,
    outcome_of,
    thread_count,
    with_progress,
)

if TYPE_CHECKING:
    from fc7.engine.data.pairs import PairsSource
    from fc7.engine.models import Network
    from fc7.engine.style.transfer_options import StyleJobOptions

_BATCH, _PART_ROWS = 8, 16


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(style)


def style(
    content: Annotated[
        str, typer.Argument(metavar="CONTENT", help="As for fc7 run; or one image file.")
    ],
    styles: Annotated[
        list[str],
        typer.Option("--style", "-s", metavar="DATA", help="An image file or a folder; repeat it."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ],
    mix: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="All styles at once, each by its weight: 3,1."),
    ] = None,
    model: o.Model = "vgg19",
    style_layers: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Comma-separated, such as relu1_1=2,relu2_1."),
    ] = None,
    content_layers: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Likewise, such as relu4_2.")
    ] = None,
    style_weight: Annotated[float, typer.Option(help="Of the style losses.")] = 1.0,
    content_weight: Annotated[
        float, typer.Option(help="Of the content losses; 0.1 keeps more of the content.")
    ] = 0.02,
    style_scale: Annotated[
        float, typer.Option(help="Of the strokes: the style's longer side by the content's.")
    ] = 1.0,
    scales: Annotated[int, typer.Option(min=1, help="Sizes of a picture, the smallest first.")] = 1,
    ratio: Annotated[float, typer.Option(help="Of one scale's side to the last one's.")] = 2.0,
    keep_colours: Annotated[
        bool, typer.Option("--keep-colours", help="Paint brightness alone.")
    ] = False,
    pooling: Annotated[
        str, typer.Option(help="max as the network has it, or average, which is smoother.")
    ] = "max",
    tile: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of the longest side in one pass; by the layers' sizes."),
    ] = None,
    start: Annotated[str, typer.Option(help="content or noise.")] = "content",
    evaluations: Annotated[
        int, typer.Option(min=1, help="Passes through the network and back, at each scale.")
    ] = 300,
    variation: Annotated[
        float, typer.Option(help="Weight of the differences between neighbours.")
    ] = 0.01,
    optimiser: Annotated[str, typer.Option(help="lbfgs or adam.")] = "lbfgs",
    side: Annotated[
        int | None,
        typer.Option(min=1, help="Resize contents to so many pixels of the longer side."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="Of a run's pictures: png, or webp, with some loss.")
    ] = "png",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    batch: Annotated[int, typer.Option(min=1, help="Images of one size at a time.")] = _BATCH,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Paint images in the style of others: Gatys, Ecker and Bethge (2016).

    Example: `fc7 style photo.jpg --style night.jpg --model vgg19 --side 512 --out night.png`

    Example: `fc7 style photos/ --style paintings/ --model vgg19 --side 512 --scales 3 --out run`

    Example: `fc7 style photo.jpg -s night.jpg -s scream.jpg --mix 3,1 --out both.png`

    Every content goes with every style, one row each; with --mix, with all of them at once. A
    style image is brought to its content's size first. Large images go through the network in
    tiles, with the same result. Give the same command again after a stop,
    and it continues; other options make other pictures in the same run. fc7 report shows them.
    """
    from fc7.engine.data.pairs import pairs_of
    from fc7.engine.style.transfer_options import StyleJobOptions

    weighted = o.split_weights(mix, "--mix")
    options = StyleJobOptions(
        mix=weighted,
        style_layers=_names(style_layers, "--style-layers"),
        content_layers=_names(content_layers, "--content-layers"),
        style_weight=style_weight,
        content_weight=content_weight,
        style_scale=style_scale,
        scales=scales,
        ratio=ratio,
        keep_colours=keep_colours,
        pooling=pooling,
        tile=tile,
        start=start,
        evaluations=evaluations,
        variation=variation,
        optimiser=optimiser,
        seed=seed,
        side=side,
        form=form,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    options.check()
    source = pairs_of(content, styles, mix is not None, max_pixels)
    draws = _draws(source, content, out)
    network = open_network(model, weights, seed, device, precision, mean, std, None, None)
    if draws:
        _draw(source, out, network, options, json)
        return
    from fc7.engine.style.transfer_workflow import style_with_summary

    made, summary = with_progress(style_with_summary, source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _names(text: str | None, option: str) -> tuple[str, ...]:
    return () if text is None else tuple(o.split_layers(text, option))


def _draws(source: "PairsSource", content: str, out: Path) -> bool:
    """Return whether one picture is asked for, and not a run of many."""
    from fc7.engine.drawing.sheet import PICTURES
    from fc7.engine.errors import OptionError

    if out.suffix.lower() not in PICTURES:
        return False
    if not Path(content).is_file():
        raise OptionError(f"{out} shows one picture, and {content} is no image file; name one")
    if len(source) != 1:
        raise OptionError(
            f"{out} shows one picture, not {len(source)}; name one style, mix them (--mix), or "
            "name a folder for --out"
        )
    out.absolute().parent.stat()  # before minutes are spent on what could not be written
    return True


def _draw(
    source: "PairsSource", out: Path, network: "Network", options: "StyleJobOptions", json: bool
) -> None:
    """Write the picture of the one row."""
    from PIL import Image

    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.drawing.sheet import save_picture
    from fc7.engine.store import Progress
    from fc7.engine.style.transfer import Look, Transfer
    from fc7.engine.synthesis.picture_files import as_array, fit
    from fc7.engine.words import number

    content = fit(source.decode(source.read(0)), options.side).float().div_(255)
    styles = [source.style(style) for style in source.styles_of(0)]
    look = Look(styles, options.mix, [f"style {source.style_key(n)}" for n in source.styles_of(0)])
    transfer = Transfer(network, options, together=1)
    total = options.evaluations * len(transfer.scales((content.shape[1], content.shape[2])))
    with progress() as report:
        found = transfer(
            content[None], [look], report=lambda done: report(Progress("style", done, total))
        )
    save_picture(lambda: Image.fromarray(as_array(found.images[0])), out)
    first = {term: float(curve[0, 0]) for term, curve in found.curves.items()}
    last = {term: float(curve[0, -1]) for term, curve in found.curves.items()}
    if json:
        emit_json(
            {
                "image": source.key(0),
                "picture": str(out),
                "evaluations": int(found.evaluations[0]),
                "first": first,
                "last": last,
            }
        )
        return
    said = (f"{term} {number(first[term])} \u2192 {number(last[term])}" for term in first)
    say(f"{out}: {', '.join(said)}")
