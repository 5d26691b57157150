"""How near textures come to their patches: what is left of the noise's loss, texture by texture.

    python -m fc7.bench.texture
    python -m fc7.bench.texture --images 'paintings/*.jpg'

Patches of five procedural textures, and the middle of each real image, become pictures of twice
their sides, and tiles. Recorded are the Gram loss before and after as a ratio, with the histogram
matched and without, and for tiles how rough the seam is: the mean squared difference across the
wrapped edges, as a share of the median between neighbouring lines inside.

The bar is of the ratio of what does not tile, its histogram unmatched. A pattern of noise is
near its patch before it begins, having its colours, and comes down slowly. A tile ends higher,
however long it takes: what a patch's mirrored border adds to its Gram matrices has no counterpart
on a torus. For the same reason a patch that is small beside the deepest layer's receptive field
leaves more: by VGG19, dots of 48 pixels end at 2.9e-3 after 900 evaluations an octave, where those
of 96 pixels are at 3.1e-4 after 150.
"""

import argparse
import glob
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.bench.record import record, recorded_cases
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.style.texture import TextureOptions, synthesise
from fc7.engine.synthesis.picture_files import read_picture

MODELS = {"tiny-cifar10": "default", "vgg19": "random"}
MOST_LEFT = 1e-3
"""Of the noise's loss, before the histogram is matched."""

Plane = NDArray[np.float64]


def _stripes(y: Plane, x: Plane, _: np.random.Generator) -> Plane:
    return 0.5 + 0.5 * np.sin((x + 0.6 * y) * 2 * np.pi / 9)


def _checks(y: Plane, x: Plane, _: np.random.Generator) -> Plane:
    return ((x // 7 + y // 7) % 2).astype(np.float64)


def _dots(y: Plane, x: Plane, _: np.random.Generator) -> Plane:
    return (np.hypot(x % 12 - 6, y % 12 - 6) < 4).astype(np.float64)


def _noise(y: Plane, x: Plane, drawn: np.random.Generator) -> Plane:
    return drawn.random(y.shape)


def _clouds(y: Plane, x: Plane, drawn: np.random.Generator) -> Plane:
    frequency = np.hypot(np.fft.fftfreq(len(y))[:, None], np.fft.fftfreq(len(y))[None])
    spectrum = np.fft.fft2(drawn.standard_normal(y.shape)) / np.maximum(frequency, 1 / len(y))
    clouds = np.fft.ifft2(spectrum).real
    return np.asarray((clouds - clouds.min()) / np.ptp(clouds), np.float64)


PROCEDURAL: dict[str, Callable[[Plane, Plane, np.random.Generator], Plane]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "noise": _noise,
    "clouds": _clouds,
}


def procedural(name: str, side: int) -> Tensor:
    """Return a texture between two colours, (1, 3, side, side), with a little grain."""
    drawn = np.random.Generator(np.random.Philox(key=[side, list(PROCEDURAL).index(name)]))
    y, x = np.mgrid[:side, :side].astype(np.float64)
    share = PROCEDURAL[name](y, x, drawn)
    first, second = drawn.random((2, 3, 1, 1))
    grain = 0.05 * drawn.standard_normal((3, side, side))
    picture = first + share * (second - first) + grain
    return torch.from_numpy(picture.clip(0, 1)).float()[None]


def middle(file: str, side: int) -> Tensor:
    """Return the middle of an image, (1, 3, side, side)."""
    picture = read_picture(file)
    top, left = ((length - side) // 2 for length in picture.shape[1:])
    if min(top, left) < 0:
        raise OptionError(f"{file} has no {side} x {side} pixels")
    return picture[None, :, top : top + side, left : left + side].contiguous()


def seam(picture: Tensor) -> float:
    """Return how rough the wrapped edges of (3, H, W) are: the rougher one's share."""
    shares = []
    for axis in (1, 2):
        lines = (picture - picture.roll(1, axis)).square().mean((0, 3 - axis))
        shares.append(float(lines[0] / lines[1:].median()))
    return max(shares)


def main() -> int:
    """Measure and record, a network at a time; return 1 where a loss is above the bar."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.texture", description=__doc__)
    parser.add_argument("--images", metavar="GLOB", help="real images, such as paintings")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--patterns", default=",".join(PROCEDURAL), help="some of the five")
    parser.add_argument("--side", type=int, default=96, help="of a patch, in pixels")
    parser.add_argument("--evaluations", type=int, default=TextureOptions.evaluations)
    parser.add_argument("--bare", action="store_true", help="neither tiles nor histograms")
    parser.add_argument("--without-record", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in arguments.patterns.split(",") if name]
    if unknown := set(names) - PROCEDURAL.keys():
        parser.error(f"no pattern {', '.join(unknown)}; there are {', '.join(PROCEDURAL)}")
    patches = {name: procedural(name, arguments.side) for name in names}
    for file in sorted(glob.glob(arguments.images)) if arguments.images else ():
        patches[Path(file).stem] = middle(file, arguments.side)
    command = ["python", "-m", "fc7.bench.texture", "--models", arguments.models]
    command += ["--side", str(arguments.side), "--patterns", arguments.patterns]
    command += ["--images", arguments.images] if arguments.images else []
    command += ["--evaluations", str(arguments.evaluations)]
    command += ["--bare"] if arguments.bare else []
    above = []
    for model in arguments.models.split(","):
        network = load_model(model, weights=MODELS.get(model), device="cpu")
        for name, patch in patches.items():
            case = {
                "model": model,
                "side": arguments.side,
                "evaluations": arguments.evaluations,
                **measured(network, patch, arguments.evaluations, arguments.bare),
            }
            print(model, name, case, flush=True)
            if case["left"] > MOST_LEFT:
                above.append(f"{name} by {model}")
            if not arguments.without_record:
                results = recorded_cases("texture")
                results["cases"][f"{model}, {name}"] = case
                record("texture", results, shlex.join(command))
    if above:
        print(f"above {MOST_LEFT:g}: {', '.join(above)}")
    return int(bool(above))


def measured(network: Network, patch: Tensor, evaluations: int, bare: bool) -> dict[str, float]:
    """Return a patch's case; `bare` leaves out tiles and histograms."""
    options = TextureOptions(evaluations=evaluations)
    begun = time.process_time()
    plain = synthesise(network, patch, options)
    seconds = time.process_time() - begun
    found = {
        "left": round(float(plain.ratio), 6),
        "seam": round(seam(plain.images[0]), 2),
        "cpu_seconds": round(seconds, 1),
    }
    if bare:
        return found
    tile = synthesise(network, patch, replace(options, tileable=True))
    matched = synthesise(network, patch, replace(options, histogram="channels"))
    return found | {
        "left_tileable": round(float(tile.ratio), 6),
        "left_with_histogram": round(float(matched.ratio), 6),
        "seam_tileable": round(seam(tile.images[0]), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
