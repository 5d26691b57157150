"""Styles in one pass: `stylize train` and `stylize apply`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import (
    MAX_PIXELS,
    conclude,
    draws_one,
    open_data_and_network,
    outcome_of,
    thread_count,
)

if TYPE_CHECKING:
    from fc7.engine.style.fast.options import StylizeOptions

_BATCH, _PART_ROWS, _TRAIN_PART_ROWS = 8, 64, 1024


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    verbs = typer.Typer(
        name="stylize",
        help="Train a network that gives any image a painting's style in one pass, and use it.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
    )
    verbs.command()(train)
    verbs.command()(apply)
    app.add_typer(verbs)


def train(
    data: o.Data,
    style: Annotated[
        list[Path],
        typer.Option("--style", "-s", metavar="FILE", help="An image of a style; may be repeated."),
    ],
    out: o.Out,
    model: o.Model = "vgg16",
    export: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Write the network here too: .safetensors or .onnx; repeatable."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of Adam.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls to 0.")] = 1e-3,
    crop: Annotated[
        int, typer.Option(min=8, help="Side in pixels of what is cut out of each image.")
    ] = 256,
    style_side: Annotated[
        int | None,
        typer.Option(min=8, help="Longest side of a style's image; by default twice the crop."),
    ] = None,
    content_weight: Annotated[float, typer.Option(min=0, help="Of the content's loss.")] = 1.0,
    style_weight: Annotated[float, typer.Option(help="Of the style's loss.")] = 5.0,
    variation: Annotated[
        float, typer.Option(min=0, help="Weight of neighbours' squared differences.")
    ] = 1e-3,
    style_layers: Annotated[
        str | None,
        typer.Option(help="Comma-separated, with weights if need be: relu1_1,relu2_1=2."),
    ] = None,
    content_layers: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    width: Annotated[
        int, typer.Option(min=1, help="Channels of the network at the image's size.")
    ] = 32,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks of the network.")] = 5,
    norm: Annotated[str, typer.Option(help="instance, or batch, of one style.")] = "instance",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    mean: o.Mean = None,
    std: o.Std = None,
    part_rows: o.PartRows = _TRAIN_PART_ROWS,
    threads: o.Threads = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    json: o.Json = False,
) -> None:
    """Train a network that gives any image a style in one pass.

    Example: `fc7 stylize train photos/ --style scream.jpg --model vgg16 --out runs/scream`

    Example: `fc7 stylize train photos/ -s scream.jpg -s waves.jpg -o runs/two --export two.onnx`

    What it makes of the images of DATA comes nearer, step by step, to their content and to the
    painting's style, as --model sees them (Johnson, Alahi and Fei-Fei, 2016). Several styles share
    one network, which can mix them. Give the same command again after a stop, and it continues.
    """
    from fc7.engine.cli.console import emit_json, emit_table, progress, say
    from fc7.engine.style.fast.options import TrainStylizerOptions
    from fc7.engine.style.fast.paintings import read_paintings
    from fc7.engine.style.fast.workflow import check_export, export_stylizer, train_stylizer

    for file in export or ():
        check_export(file)
    _check_run(out)
    read_paintings(style, style_side or 2 * crop)  # found wrong before a network is loaded
    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, "fp32", mean, std, None, None
    )
    with progress() as report:
        options = TrainStylizerOptions(
            steps=steps,
            batch_rows=batch,
            learning_rate=learning_rate,
            crop=crop,
            style_side=style_side,
            content_weight=content_weight,
            style_weight=style_weight,
            variation=variation,
            style_layers=o.split_layers(style_layers) if style_layers else (),
            content_layers=o.split_layers(content_layers) if content_layers else (),
            width=width,
            blocks=blocks,
            norm=norm,
            seed=seed,
            threads=thread_count(threads),
            part_rows=part_rows,
            report=report,
        )
        trained = train_stylizer(source, style, network, out, options)
    for file in export or ():
        export_stylizer(trained.file, file)
    info = trained.info
    if json:
        exported = [str(file) for file in export or ()]
        emit_json({"run": str(out), "network": str(trained.file), "exported": exported, **info})
        return
    losses = trained.losses[trained.losses[:, 0] == trained.losses[:, 0]]  # NaN: no image was good
    shown = max(1, min(20, len(losses) // 2))
    means = [part.mean(0, dtype="float64").tolist() for part in (losses[:shown], losses[-shown:])]
    rows = list(zip(info["terms"], *means, strict=True))
    emit_table(("loss", f"first {shown} steps", f"last {shown}"), rows)
    for file in export or ():
        say(f"{file} is the network too")
    say(
        f"{trained.file} is the network of {', '.join(info['styles'])}; "
        f"fc7 stylize apply DATA --network {out}"
    )


def apply(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")],
    network: Annotated[
        str,
        typer.Option(
            "--network", "-n", metavar="FILE", help="A trained network's file, or its run."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ],
    style: Annotated[
        str, typer.Option("--style", "-s", help="A name, a mixture such as scream=2,waves=1, all.")
    ] = "all",
    side: Annotated[
        int | None, typer.Option(min=1, help="Resize to so many pixels of the longer side first.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="Of a run's pictures: png, or webp, with some loss.")
    ] = "png",
    device: o.Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images of one size at a time.")] = _BATCH,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Give images the styles that a network was trained for, one pass each.

    Example: `fc7 stylize apply holiday/ --network runs/scream --out runs/holiday`

    Example: `fc7 stylize apply cat.jpg --network runs/two --style scream=2,waves=1 --out cat.png`

    Images keep their own size. One goes through whole, which takes about a kilobyte a pixel at the
    usual width; --side makes it smaller, and the strokes larger. Give the same command again after
    a stop, and it continues; another style joins the run. fc7 report shows them.
    """
    from fc7.engine.cli.console import progress
    from fc7.engine.data import open_source
    from fc7.engine.style.fast.options import StylizeOptions
    from fc7.engine.style.fast.stylizer import load_stylizer
    from fc7.engine.style.fast.workflow import stylize_with_summary, stylizer_file

    with progress() as report:
        options = StylizeOptions(
            style=style,
            side=side,
            form=form,
            batch_rows=batch,
            part_rows=part_rows,
            threads=thread_count(threads),
            parts=parts,
            report=report,
        )
        if draws_one(data, out):
            _draw(data, network, out, options, device, max_pixels, json)
            return
        source = open_source(data, max_pixels=max_pixels)
        stylizer = load_stylizer(stylizer_file(network), device)
        made, summary = stylize_with_summary(source, stylizer, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _draw(
    file: str,
    network: str,
    out: Path,
    options: "StylizeOptions",
    device: str,
    max_pixels: int,
    json: bool,
) -> None:
    """Write one image in one style."""
    from PIL import Image

    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.drawing.sheet import save_picture
    from fc7.engine.errors import OptionError
    from fc7.engine.style.fast.job import looks_of
    from fc7.engine.style.fast.stylizer import load_stylizer
    from fc7.engine.style.fast.workflow import stylizer_file
    from fc7.engine.synthesis.picture_files import as_array, read_picture
    from fc7.engine.words import share

    options.check()
    stylizer = load_stylizer(stylizer_file(network), device)
    looks = looks_of(stylizer, options.style)
    if len(looks) > 1:
        raise OptionError(
            f"{out} shows one picture, and the network has the styles "
            f"{', '.join(stylizer.styles)}; name one with --style, or a folder for --out"
        )
    (shares,) = looks.values()
    image = read_picture(file, options.side, max_pixels)
    found = stylizer(image[None], shares)[0]
    save_picture(lambda: Image.fromarray(as_array(found)), out)
    mixture = {name: part for name, part in zip(stylizer.styles, shares, strict=True) if part > 0}
    if json:
        outcome: dict[str, Any] = {"image": file, "picture": str(out), "styles": mixture}
        emit_json(outcome)
        return
    words = ", ".join(f"{share(part)} {name}" for name, part in mixture.items())
    say(f"{out}: {image.shape[1]} x {image.shape[2]} pixels, {words}")


def _check_run(out: Path) -> None:
    """Raise OptionError where a file is named and a folder is meant."""
    from fc7.engine.errors import OptionError

    if out.suffix in (".safetensors", ".onnx"):
        raise OptionError(
            f"{out} is to be a run's folder, from which training can go on; write the network with "
            f"--export {out}, and name a folder for --out"
        )
