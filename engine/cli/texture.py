"""Pictures of any size with a patch's texture: `texture`."""

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
    from fc7.engine.style.texture_options import TextureJobOptions

_BATCH, _PART_ROWS = 4, 4


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(texture)


def texture(
    patches: Annotated[
        str, typer.Argument(metavar="PATCHES", help="Data as for fc7 run; or one image file.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
    ],
    model: o.Model = "vgg19",
    size: Annotated[
        str | None, typer.Option(help="Of the pictures: 512 or 384x512; twice the patch.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option("--layers", "-l", help="Comma-separated, NAME or NAME=WEIGHT; the paper's."),
    ] = None,
    tileable: Annotated[
        bool, typer.Option("--tileable", help="The picture goes on in itself on all sides.")
    ] = False,
    octaves: Annotated[
        int, typer.Option(min=1, help="Sizes, each half the next, from coarse to fine.")
    ] = 2,
    evaluations: Annotated[
        int, typer.Option(min=1, help="Passes through the network and back, in each octave.")
    ] = 300,
    histogram: Annotated[
        str, typer.Option(help="Matched at the end: of channels, of colours (by axes), or none.")
    ] = "none",
    pooling: Annotated[str, typer.Option(help="average, or max as the network has it.")] = (
        "average"
    ),
    samples: Annotated[
        int, typer.Option(min=1, help="Pictures of each patch, each from other noise.")
    ] = 1,
    side: Annotated[
        int | None,
        typer.Option(min=1, help="Resize patches to so many pixels of the longer side first."),
    ] = None,
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    batch: Annotated[int, typer.Option(min=1, help="Patches of one size at a time.")] = _BATCH,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Let a texture go on from a patch, to any size: texture synthesis.

    Example: `fc7 texture patches/ --model vgg19 --size 512 --out runs/textures`

    Example: `fc7 texture bark.png --model vgg19 --tileable --out bark-tile.png`

    Patches keep their own size. Further samples of one image are written beside the first,
    bark-tile-2.png and so on. Untrained filters do as well, nearly: --weights random. Give the same
    command again after a stop, and it continues; other options make other textures in the same
    run. fc7 report shows them.
    """
    from fc7.engine.style.texture_options import TextureJobOptions

    options = TextureJobOptions(
        size=o.split_size(size, "--size"),
        layers=() if layers is None else tuple(o.split_layers(layers)),
        tileable=tileable,
        pooling=pooling,
        octaves=octaves,
        evaluations=evaluations,
        histogram=histogram,
        seed=seed,
        samples=samples,
        side=side,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
    )
    options.check()
    network_options = model, weights, seed, device, precision, mean, std, None, None
    if draws_one(patches, out):
        _draw(patches, out, open_network(*network_options), options, max_pixels, json)
        return
    source, network = open_data_and_network(patches, max_pixels, *network_options)
    from fc7.engine.style.texture_job import texture_with_summary

    made, summary = with_progress(texture_with_summary, source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _draw(
    file: str,
    out: Path,
    network: "Network",
    options: "TextureJobOptions",
    max_pixels: int,
    json: bool,
) -> None:
    """Write the textures of one patch."""
    from PIL import Image

    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.drawing.sheet import save_picture
    from fc7.engine.store import Progress
    from fc7.engine.style.picture import after
    from fc7.engine.style.texture import Synthesiser
    from fc7.engine.style.texture_job import TECHNIQUE, sample_keys
    from fc7.engine.synthesis.picture_files import as_array, read_picture
    from fc7.engine.words import number

    synthesiser = Synthesiser(network, options)
    patch = read_picture(file, options.side, max_pixels)
    octaves = synthesiser.octaves((patch.shape[1], patch.shape[2]))
    each = len(octaves) * options.evaluations
    found = []
    with progress() as report:

        def told(done: int) -> None:
            report(Progress(TECHNIQUE, done, options.samples * each))

        for sample in range(options.samples):
            picture = out if not sample else out.with_stem(f"{out.stem}-{sample + 1}")
            keys = sample_keys(options.seed, [0], sample)
            made = synthesiser(patch[None], keys, after(told, sample * each))
            save_picture(Image.fromarray(as_array(made.images[0])).copy, picture)
            found.append((picture, made))
    pictures = [
        {
            "picture": str(picture),
            "before": float(made.before),
            "after": float(made.after),
            "ratio": float(made.ratio),
            "losses": {name: float(loss) for name, loss in made.losses.items()},
        }
        for picture, made in found
    ]
    if json:
        sizes = [size for _, size in octaves]
        emit_json({"patch": file, "octaves": sizes, "pictures": pictures})
        return
    height, width = octaves[-1][1]
    for one in pictures:
        say(
            f"{one['picture']}: {height} x {width} pixels; of the noise's loss "
            f"{number(100 * float(made.ratio))} % is left"
        )
