"""What a network sees in images, painted into them: `dream`."""

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
    from fc7.engine.models import Network
    from fc7.engine.synthesis.dream_options import DreamJobOptions

_BATCH, _PART_ROWS = 8, 16


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(dream)


def dream(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="RUN",
            help="The run's folder; of one image, a .png; of frames, their folder.",
        ),
    ],
    layer: Annotated[
        str, typer.Option("--layer", "-l", help="Whose activation grows, such as relu4.")
    ],
    model: o.Model = "alexnet",
    channel: Annotated[
        int | None, typer.Option(min=0, help="The one of its channels that shall.")
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="An image: more of what the layer sees of it."),
    ] = None,
    octaves: Annotated[int, typer.Option(min=1, help="Sizes of an image, the smallest first.")] = 4,
    ratio: Annotated[float, typer.Option(help="Of one octave's side to the last one's.")] = 1.4,
    steps: Annotated[int, typer.Option(min=1, help="Of each octave.")] = 10,
    step_size: Annotated[
        float, typer.Option(help="By how many of 255 levels a step moves pixels on average.")
    ] = 1.5,
    jitter: Annotated[
        int | None,
        typer.Option(min=0, help="The longest roll in pixels; 32, less of small images."),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of the longest side in one pass; by the layers' sizes."),
    ] = None,
    side: Annotated[
        int | None, typer.Option(min=1, help="Resize to so many pixels of the longer side first.")
    ] = None,
    zoom: Annotated[
        int | None,
        typer.Option(min=1, metavar="FRAMES", help="Of one image: dream, step closer, dream on."),
    ] = None,
    zoom_factor: Annotated[float, typer.Option(help="How much closer a frame is.")] = 1.05,
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
    """Let a network paint into images what it sees in them: DeepDream.

    Example: `fc7 dream photos/ --model vgg16 --layer relu4_3 --out runs/photos`

    Example: `fc7 dream sky.jpg --model vgg16 --layer relu4_3 --guide flowers.jpg --out dream.png`

    Example: `fc7 dream sky.jpg --model vgg16 --layer relu5_1 --zoom 60 --out frames`

    Images keep their own size, large ones go through the network in tiles. A layer named conv is
    what stands before its ReLU; relu asks for what is positive. Give the same command again after
    a stop, and it continues; other options make other dreams in the same run. fc7 report shows
    them.
    """
    from fc7.engine.synthesis.dream_options import DreamJobOptions

    options = DreamJobOptions(
        octaves=octaves,
        ratio=ratio,
        steps=steps,
        step_size=step_size,
        jitter=jitter,
        tile=tile,
        seed=seed,
        layer=layer,
        channel=channel,
        guide=guide,
        side=side,
        form=form,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    network_options = model, weights, seed, device, precision, mean, std, None, None
    if zoom is not None:
        _check_frames(data, out)
        network = open_network(*network_options)
        _zoom(data, out, network, options, zoom, zoom_factor, max_pixels, json)
        return
    if draws_one(data, out):
        _draw(data, out, open_network(*network_options), options, max_pixels, json)
        return
    source, network = open_data_and_network(data, max_pixels, *network_options)
    from fc7.engine.synthesis.workflow import dream_with_summary

    made, summary = with_progress(dream_with_summary, source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _check_frames(data: str, out: Path) -> None:
    """Raise OptionError where frames cannot be made of the data, or go where they shall."""
    from fc7.engine.drawing.sheet import PICTURES
    from fc7.engine.errors import OptionError

    if not Path(data).is_file():
        raise OptionError(f"{data} is not an image file, and --zoom is of one image; name a file")
    if out.suffix.lower() in PICTURES or out.is_file():
        raise OptionError(f"{out} holds one picture, and --zoom makes many; name a folder")
    out.absolute().parent.stat()


def _draw(
    file: str,
    out: Path,
    network: "Network",
    options: "DreamJobOptions",
    max_pixels: int,
    json: bool,
) -> None:
    """Write the dream of one image."""
    from PIL import Image

    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.drawing.sheet import save_picture
    from fc7.engine.synthesis.dream_options import Dreaming, gain_words
    from fc7.engine.synthesis.picture_files import as_array, read_picture

    dreamer = Dreaming(network, options).dreamer(1)
    image = read_picture(file, options.side, max_pixels)
    found = dreamer(image[None], [options.seed])
    save_picture(lambda: Image.fromarray(as_array(found.images[0])), out)
    before, after, gain = (float(each[0]) for each in (found.before, found.after, found.gain))
    octaves = dreamer.octaves((image.shape[1], image.shape[2]))
    if json:
        outcome: dict[str, Any] = {
            "image": file,
            "picture": str(out),
            "layer": options.layer,
            "channel": options.channel,
            "guide": options.guide,
            "octaves": octaves,
            "before": before,
            "after": after,
            "gain": gain,
        }
        emit_json(outcome)
        return
    sizes = ", ".join(f"{height} x {width}" for height, width in octaves)
    say(f"{out}: {options.layer} {gain_words(before, after)}; octaves of {sizes}")


def _zoom(
    file: str,
    out: Path,
    network: "Network",
    options: "DreamJobOptions",
    frames: int,
    factor: float,
    max_pixels: int,
    json: bool,
) -> None:
    """Write frames, each from a step closer into the last."""
    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.store import Progress
    from fc7.engine.synthesis.dream_options import Dreaming
    from fc7.engine.synthesis.picture_files import digest_of_picture, read_picture
    from fc7.engine.synthesis.zoom import zoom_to_folder

    dreaming = Dreaming(network, options)
    image = read_picture(file, options.side, max_pixels)
    asked = {
        "network": network.describe(),
        "device": network.device.type,
        "image": digest_of_picture(image),
        **dreaming.asked,
    }
    with progress() as report:
        animation = zoom_to_folder(
            dreaming.dreamer(1),
            image,
            out,
            frames,
            factor,
            asked,
            lambda done: report(Progress("dream", done, frames)),
        )
    if json:
        emit_json(
            {"image": file, "frames": frames, "folder": str(out), "animation": str(animation)}
        )
        return
    say(f"{animation}: {frames} frames, which lie beside it as PNG files")
