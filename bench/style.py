"""Style transfer beside the plain way, and many pictures at once beside one by one.

    python -m fc7.bench.style [--images GLOB]

Loss: a content and a style for `torch.optim.LBFGS` on raw pixels, as Gatys, Ecker and Bethge (2016)
went about it, with no line search and with its strong Wolfe one, and for ours by several
parametrisations, after equally many evaluations. Pictures are then brought to 256 levels, as a file
has them, and judged in float64 by a formula written down anew. Ours may not be above the better of
torch's two.

Speed: CPU-seconds of eight pictures together, over those of the same one by one.

Nothing is reported unless both formulas agree on the gradient, and eight pictures with those made
one by one. Images are those that come with fc7, unless others are named: the first is the style.
"""

import argparse
import glob
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fc7.bench.record import record
from fc7.bench.style_reference import PlainTransfer
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.models import Network, load_model
from fc7.engine.style.grams import at_scale, at_size
from fc7.engine.style.layers import style_layers
from fc7.engine.style.picture import Pictures
from fc7.engine.style.transfer import Look, Transfer
from fc7.engine.style.transfer_options import StyleOptions
from fc7.engine.synthesis.parametrisation import Parametrisation, Pixels, SigmoidPixels
from fc7.engine.synthesis.picture_files import read_picture, rounded

NETWORKS = ("tiny-cifar10", "vgg19")
TOGETHER, SIDE = 8, 96
MOST_LOSS, MOST_SECONDS = 1.0, 1.0
OURS = "a sigmoid, started off its ends"
WAYS: dict[str, Parametrisation | None] = {
    OURS: None,
    "a sigmoid": SigmoidPixels(),
    "raw pixels": Pixels(),
}
SEARCHES = {"torch, raw pixels": None, "torch, raw pixels, strong Wolfe": "strong_wolfe"}
_GRADIENT_ERROR, _TOGETHER_ERROR = 1e-4, 1e-3


def pictures(pattern: str | None, side: int, count: int) -> list[Tensor]:
    """Return images, each (1, 3, H, W), the longer side of `side` pixels."""
    if pattern is not None:
        files = sorted(glob.glob(pattern))
        if len(files) < 2:
            raise SystemExit(
                f"{pattern} names {len(files)} files; a style and a content are needed"
            )
        return [read_picture(files[place % len(files)], side)[None] for place in range(count)]
    source = ShapesSource(count, 0)
    images = [source.decode(source.read(row)).float().div(255)[None] for row in range(count)]
    return [at_size(image, (side, side)) for image in images]


def plain(network: Network, content: Tensor, style: Tensor, dtype: torch.dtype) -> PlainTransfer:
    """Return the reference, asked for what ours is by default."""
    usual, layers = StyleOptions(), style_layers(network)
    return PlainTransfer(
        network,
        content,
        at_scale(style, max(content.shape[2:]) / max(style.shape[2:])),
        layers.style,
        {name: share * usual.content_weight for name, share in layers.content.items()},
        usual.variation,
        dtype,
    )


def gradient_error(network: Network, content: Tensor, style: Tensor) -> float:
    """Return how far both formulas' gradients are apart, as a share, at a picture between both."""
    transfer = Transfer(network, StyleOptions(variation=0.0), (content.shape[2], content.shape[3]))
    size = content.shape[2], content.shape[3]
    # A little noise: where a picture is flat, rounding decides which of equals a pooling takes.
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(0))
    picture = (4 * content + 4 * at_size(style, size) + noise) / 9
    found = transfer.judge(picture, transfer.targets(content, size, [Look([style])])).gradients
    reference = plain(network, content, style, torch.float64)
    reference.variation = 0.0
    wide = picture.double().requires_grad_()
    (expected,) = torch.autograd.grad(reference(wide), wide)
    return float((found.double() - expected).norm() / expected.norm())


def losses(network: Network, content: Tensor, style: Tensor, evaluations: int) -> dict[str, float]:
    """Return where each contestant ends."""
    judge = plain(network, content, style, torch.float64)
    found = {}
    for who, way in WAYS.items():
        options = StyleOptions(evaluations=evaluations)
        transfer = Transfer(network, options, (content.shape[2], content.shape[3]), way=way)
        found[who] = transfer(content, [Look([style])]).images
    reference = plain(network, content, style, torch.float32)
    for who, search in SEARCHES.items():
        found[who] = reference.descend(content, evaluations, search)
    with torch.no_grad():
        return {
            who: float(judge(rounded(image.clamp(0, 1)).double())) for who, image in found.items()
        }


def speed(
    network: Network,
    contents: Tensor,
    style: Tensor,
    evaluations: int,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Any]:
    """Paint all contents at once and one by one, in turns, by a clock's seconds."""
    size = contents.shape[2], contents.shape[3]
    transfer = Transfer(network, StyleOptions(evaluations=evaluations), size)
    look = Look([style])
    seconds: dict[str, list[float]] = {"together": [], "one by one": []}
    early = {}
    for number in range(rounds):
        for who in list(seconds)[:: -1 if number % 2 else 1]:
            begun = clock()
            if who == "together":
                made = [transfer(contents, [look] * len(contents))]
            else:
                made = [transfer(one, [look]) for one in torch.split(contents, 1)]
            spent = clock() - begun
            seconds[who].append(spent / (len(contents) * evaluations))
            # Of the first step, after which other last bits lead other ways.
            early[who] = torch.cat([_early(one) for one in made])
    apart = (early["together"] / early["one by one"] - 1).abs().max()
    medians = {who: statistics.median(each) for who, each in seconds.items()}
    return {
        "seconds_an_evaluation": medians,
        "rounds": seconds,
        "images_a_pass": transfer.judge.together,
        "ratio": medians["together"] / medians["one by one"],
        "losses_apart": float(apart),
    }


def _early(pictures: Pictures) -> Tensor:
    """Return losses of style after two evaluations, (N, layers)."""
    return torch.stack(
        [curve[:, 1] for term, curve in pictures.curves.items() if term.startswith("style")], 1
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and record; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.style", description=__doc__)
    parser.add_argument("--images", metavar="GLOB", help="images; the first is the style")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--evaluations", type=int, default=100, help="of each contestant")
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contents", type=int, default=2, help="that losses are compared on")
    parser.add_argument("--without-record", action="store_true")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    style, *contents = pictures(arguments.images, arguments.side, 1 + TOGETHER)
    results: dict[str, Any] = {
        "side": arguments.side,
        "evaluations": arguments.evaluations,
        "bars": {"loss": MOST_LOSS, "cpu_seconds": MOST_SECONDS},
        "cases": {},
    }
    missed = []
    for name in arguments.networks.split(","):
        weights = "default" if name.startswith("tiny-") else "random"
        network = load_model(name, weights=weights, device="cpu")
        error = gradient_error(network, contents[0], style)
        if error > _GRADIENT_ERROR:
            print(f"RED {name}: gradients differ by {error:.2e}")
            return 1
        ends = [
            losses(network, content, style, arguments.evaluations)
            for content in contents[: arguments.contents]
        ]
        better = [min(end[who] for who in SEARCHES) for end in ends]
        ratios = {
            who: statistics.median(end[who] / best for end, best in zip(ends, better, strict=True))
            for who in (*WAYS, *SEARCHES)
        }
        same = [one for one in contents if one.shape == contents[0].shape]
        quick = speed(network, torch.cat(same), style, 10, arguments.rounds)
        if quick["losses_apart"] > _TOGETHER_ERROR:
            print(f"RED {name}: together and alone differ by {quick['losses_apart']:.2e}")
            return 1
        results["cases"][name] = {
            "weights": weights,
            "gradient_error": error,
            "losses": ends,
            "of_torchs_better": ratios,
            "speed": quick,
        }
        print(name, f"gradient {error:.1e}", ends, ratios, sep="\n  ", flush=True)
        print("  speed", {key: quick[key] for key in quick if key != "rounds"}, flush=True)
        if ratios[OURS] > MOST_LOSS:
            missed.append(f"{name}: loss {ratios[OURS]:.3f} of torch's, bar {MOST_LOSS}")
        if quick["ratio"] > MOST_SECONDS:
            missed.append(f"{name}: CPU-seconds {quick['ratio']:.3f}, bar {MOST_SECONDS}")
    results["missed"] = missed
    if not arguments.without_record:
        command = ["python", "-m", "fc7.bench.style", *(sys.argv[1:] if argv is None else argv)]
        print(record("style", results, shlex.join(command)))
    for line in missed:
        print("MISSED", line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
