"""Memory of pictures larger than a pass can hold, painted with the losses of VGG19 in tiles.

    python -m fc7.bench.style_tiles

Peak memory of a process that brings one picture of 2048 x 1536 pixels down by L-BFGS, with as much
as its pairs take when there are all of them; and how far the gradient in tiles is from the whole
image's, on an image that fits. That is compared in float64: in float32 a maximum or a ReLU next to
a tie falls the other way by rounding alone, in tiles as for an image whose pixels are changed by
their last bit, of which the distance is recorded too.
Weights are random: neither depends on them.
"""

import argparse
import shlex
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fc7.bench.processes import measure
from fc7.bench.record import record
from fc7.engine.models import Network, load_model
from fc7.engine.style.layers import style_layers
from fc7.engine.style.perceptual import Perceptual
from fc7.engine.style.picture import DescentOptions, descend
from fc7.engine.style.tiled import TiledPerceptual

MODEL = "vgg19"
MOST_BYTES = 8 << 30
MOST_APART = 1e-6
"""Of the largest gradient: float32's rounding of what float64 found."""
_SMALL, _SMALL_TILE = (301, 260), 264


def main() -> int:
    """Measure and record; return 1 where tiles are not the whole, or memory is above the bar."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.style_tiles", description=__doc__)
    parser.add_argument("--height", type=int, default=1536)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--evaluations", type=int, default=2)
    parser.add_argument("--tile", type=int, help="side of a tile in pixels; the usual one if none")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = (arguments.height, arguments.width)
    if arguments.alone:
        print(paint(size, arguments.evaluations, arguments.tile))
        return 0
    equality = compared()
    print(equality)
    if equality["float64"] > MOST_APART:
        print(f"gradients are more than {MOST_APART} apart; memory is not reported")
        return 1
    command = [sys.executable, "-m", "fc7.bench.style_tiles", "--alone", *sys.argv[1:]]
    measured = measure(command)
    gibibytes = measured.peak_bytes / 2**30
    print(f"{size[1]} x {size[0]}, {measured.output.strip()}: peak {gibibytes:.2f} GiB")
    results = {
        "model": MODEL,
        "size": size,
        "evaluations": arguments.evaluations,
        "tiles": measured.output.strip(),
        "peak_bytes": measured.peak_bytes,
        "bar": MOST_BYTES,
        "met": measured.peak_bytes <= MOST_BYTES,
        "gradients_apart": equality,
    }
    words = ["python", "-m", "fc7.bench.style_tiles", *sys.argv[1:]]
    print(record("style_tiles", results, shlex.join(words)))
    return int(not results["met"])


def paint(size: tuple[int, int], evaluations: int, tile: int | None) -> str:
    """Bring a picture down, and say in how many tiles."""
    network = load_model(MODEL, weights="random", device="cpu")
    layers = style_layers(network)
    judge = TiledPerceptual(network, layers.style, layers.content, tile=tile)
    content = image(size, 0)
    targets = judge.targets(content, judge.grams(image(size, 1)))
    options = DescentOptions(evaluations)
    # The pairs of steps that L-BFGS remembers take memory only once they are written.
    pairs = torch.ones(2 * options.pairs, *content.shape)
    found = descend(judge, targets, content, options)
    del pairs
    if not bool(torch.isfinite(found.totals).all()):
        raise SystemExit("the loss is no number")
    return f"{judge.tiles(size)} tiles of at most {judge.tile} pixels"


def compared() -> dict[str, Any]:
    """Return how far gradients in tiles are from whole ones, as shares of the largest."""
    x, content, style = (image(_SMALL, seed) for seed in range(3))
    network = load_model(MODEL, weights="random", device="cpu")
    layers = style_layers(network)
    whole = Perceptual(network, layers.style, layers.content)
    tiled = TiledPerceptual(network, layers.style, layers.content, tile=_SMALL_TILE)
    targets = whole.targets(content, whole.grams(style))
    plain = whole(x, targets).gradients
    nudged = whole(torch.nextafter(x, torch.ones(())), targets).gradients
    found: dict[str, Any] = {
        "size": _SMALL,
        "tile": _SMALL_TILE,
        "tiles": tiled.tiles(_SMALL),
        "float32": apart(tiled(x, targets).gradients, plain),
        "float32_last_bit_of_the_image": apart(nudged, plain),
    }
    wide = in_float64(network)
    whole = Perceptual(wide, layers.style, layers.content)
    tiled = TiledPerceptual(wide, layers.style, layers.content, tile=_SMALL_TILE)
    found["float64"] = apart(tiled(x, targets).gradients, whole(x, targets).gradients)
    return found


def in_float64(network: Network) -> Network:
    """Turn a network, and all that it returns, into float64."""
    network.model.double()
    mean, std = (torch.tensor(each).double()[:, None, None] for each in (network.mean, network.std))
    network.__dict__["normalise"] = lambda images: (images.double() - mean) / std
    return network


def apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, as a share of the largest number that is wanted."""
    return float(f"{float((found - wanted).abs().max() / wanted.abs().max()):.2g}")


def image(size: tuple[int, int], seed: int) -> Tensor:
    """Return uniform noise, smoothed to have something at every scale: (1, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.zeros(1, 3, *size)
    for octave in range(6):
        small = [max(2, side >> octave) for side in size]
        coarse = torch.rand(1, 3, *small, generator=generator)
        noise += functional.interpolate(coarse, size, mode="bilinear") / 6
    return noise


if __name__ == "__main__":
    sys.exit(main())
