"""What approximate occlusion maps are worth: how alike they are to exact ones, and how much faster.

Likeness is Spearman's rank correlation over the places of a map, the mean over images, on a
network that has learnt something and images that it has not seen; the time is ResNet18's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from fc7.bench.occlusion_contestants import cpu_seconds
from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.refined import RefinedOcclusion
from fc7.engine.data import open_source
from fc7.engine.data.reader import read_rows
from fc7.engine.models import Network, load_model

IMAGES = 64
_UNSEEN = f"shapes:{IMAGES}:909"
Maker = Callable[[Network, int, int], Any]
APPROXIMATIONS: dict[str, Maker] = {
    "growth 0.75": lambda network, window, stride: Occlusion(network, window, stride, growth=0.75),
    "growth 0.5": lambda network, window, stride: Occlusion(network, window, stride, growth=0.5),
    "refined": RefinedOcclusion,
}


def compare(rounds: int = 3) -> dict[str, Any]:
    """Return each approximation's rank correlation to exact, and how many times it is faster."""
    small, images = load_model("tiny-shapes", device="cpu"), _images()
    exact = Occlusion(small, 16, 4).maps(images).drops
    alike = {
        name: rank_correlation(exact, make(small, 16, 4).maps(images).drops)
        for name, make in APPROXIMATIONS.items()
    }
    large = load_model("resnet18", weights="random", seed=0, device="cpu")
    image = torch.rand(1, 3, *large.input_size, generator=torch.Generator().manual_seed(0))
    makers = {"exact": Occlusion(large)} | {
        name: make(large, 16, 8) for name, make in APPROXIMATIONS.items()
    }
    for maker in makers.values():  # some plan on the way
        maker.maps(image)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, maker in makers.items():
            seconds[name].append(cpu_seconds(partial(maker.maps, image))[0])
    least = {name: sorted(each)[rounds // 2] for name, each in seconds.items()}
    return {
        name: {"rank_correlation": alike[name], "faster": least["exact"] / least[name]}
        for name in APPROXIMATIONS
    }


def rank_correlation(exact: Tensor, other: Tensor) -> float:
    """Return the mean over images of Spearman's rank correlation of two sets of maps, (N, R, C)."""
    pairs = zip(exact.flatten(1).tolist(), other.flatten(1).tolist(), strict=True)
    found = [float(spearmanr(a, b).statistic) for a, b in pairs]
    return sum(found) / len(found)


def _images() -> Tensor:
    network, source = load_model("tiny-shapes", device="cpu"), open_source(_UNSEEN)
    rows = read_rows(source, range(IMAGES), network.transform)
    return torch.stack([row.image for row in rows if row.image is not None]).float() / 255
