"""Arguments and options that several verbs share, each said once."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder, a tar or a glob of tars, Parquet files, a text file of paths, or "
        "shapes:N:SEED (built in).",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A torchvision classifier, tiny-shapes, tiny-cifar10, module:function, or a file "
        "made by fc7 prune.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(help="default, a name torchvision knows, random (with --seed), or a file."),
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Precision = Annotated[str, typer.Option(help="Of the forward pass: fp32, bf16 or fp16.")]
Layers = Annotated[
    str,
    typer.Option("--layers", "-l", help="Comma-separated, such as conv5,fc7; see fc7 layers."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="The run's folder.")]
Mean = Annotated[
    str | None, typer.Option(help="Subtracted from each channel in [0, 1]: 0.5,0.5,0.5.")
]
Std = Annotated[str | None, typer.Option(help="Then divided by, each channel.")]
Resize = Annotated[
    int | None, typer.Option(help="The short side in pixels; 0 leaves images as they are.")
]
Crop = Annotated[int | None, typer.Option(help="The side in pixels of the centre crop.")]
Dtype = Annotated[str, typer.Option(help="Of stored activations: float16 or float32.")]
Maps = Annotated[bool, typer.Option("--maps", help="Store whole maps of convolutional layers.")]
TopK = Annotated[int, typer.Option(min=0, help="Maximal patches of each channel.")]
Batch = Annotated[int, typer.Option(min=1, help="Images in one forward pass.")]
PartRows = Annotated[int, typer.Option(min=1, help="Rows committed together, in a new run.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Decoding threads; as many as cores.")]
Sample = Annotated[
    int | None, typer.Option(min=5, help="Project this many rows, chosen at random.")
]
Parts = Annotated[
    str | None,
    typer.Option(help="A slice of the parts, such as 0::8: one task of a job array."),
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Images with more pixels are bad rows.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 when a row is bad.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Layer = Annotated[
    str | None, typer.Option("--layer", "-l", help="By default the deepest vector layer.")
]

Target = Annotated[
    str,
    typer.Option(help="The class asked about: predicted, label (the row's own), or one class."),
]


def split_colour(text: str | None, option: str) -> float | tuple[float, float, float] | None:
    """Read one number, three comma-separated ones, or #rrggbb."""
    if text is None:
        return None
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = bytes.fromhex(text[1:])
            return red / 255, green / 255, blue / 255
        numbers = [float(field) for field in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    raise typer.BadParameter(
        f"{text!r} is not a number or a colour such as 0.5 or 1,0,0 or #7f7f7f", param_hint=option
    )


def split_layers(text: str, option: str = "--layers") -> list[str]:
    """Split `conv5, fc7` at commas."""
    layers = [name.strip() for name in text.split(",") if name.strip()]
    if not layers:
        raise typer.BadParameter("name at least one layer, such as fc7", param_hint=option)
    return layers


def split_unit(text: str | None) -> int | tuple[int, int, int] | None:
    """Read a channel, or channel, row and column."""
    if text is None:
        return None
    try:
        numbers = [int(field) for field in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    raise typer.BadParameter(
        f"{text!r} is not a channel such as 17, or channel, row and column such as 17,5,8",
        param_hint="--unit",
    )


def split_channels(text: str | None, count: int) -> list[int]:
    """Read comma-separated channel numbers; the first 16 of `count` when there is no text."""
    if text is None:
        return list(range(min(16, count)))
    try:
        channels = [int(field) for field in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list such as 3,17", param_hint="--channels"
        ) from None
    if not all(0 <= channel < count for channel in channels):
        raise typer.BadParameter(f"channels go from 0 to {count - 1}", param_hint="--channels")
    return channels


def split_numbers(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Read three comma-separated numbers."""
    if text is None:
        return None
    try:
        first, second, third = (float(field) for field in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not three numbers such as 0.5,0.5,0.5", param_hint=option
        ) from None
    return first, second, third


def split_weights(text: str | None, option: str) -> tuple[float, ...]:
    """Read comma-separated weights; none without text."""
    if text is None:
        return ()
    try:
        return tuple(float(field) for field in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of weights such as 3,1", param_hint=option
        ) from None


def split_size(text: str | None, option: str) -> tuple[int, int] | None:
    """Read a height and a width in pixels, or one side of both."""
    if text is None:
        return None
    try:
        sides = [int(field) for field in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise typer.BadParameter(
            f"{text!r} is no size such as 224 or 240x320", param_hint=option
        ) from None
    return sides[0], sides[-1]
