"""How good maps are on shapes that the network has not seen.

    python -m fc7.bench.attribution_quality

Every method's maps of `tiny-shapes`, for the labels, by the pointing game, deletion and insertion,
beside maps that know nothing: the centre and noise. Gradients become one number a pixel in each of
the ways of `fc7.engine.attribution.pixel_importance`, as they are and smoothed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from fc7.bench.record import record
from fc7.engine.attribution.guided import guided_maps
from fc7.engine.attribution.metrics import (
    centre_prior,
    deletion_auc,
    insertion_auc,
    pointing_game,
    random_maps,
)
from fc7.engine.attribution.pixel_importance import How, importance
from fc7.engine.attribution.saliency import (
    gradient_maps,
    integrated_gradients_maps,
    smoothgrad_maps,
)
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.models import Network, load_model

SEED = 987654
"""Of the pictures; training used another."""
BAR = 0.2
"""By how much guided maps must point better than the centre."""
BLURS = (0.0, 2.0)
METHODS: dict[str, Callable[..., Tensor]] = {
    "guided": guided_maps,
    "gradient": gradient_maps,
    "smoothgrad": smoothgrad_maps,
    "integrated": integrated_gradients_maps,
}


def pictures(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, (N, 3, 64, 64) float in [0, 1], the objects' masks, and the labels."""
    source = ShapesSource(rows, SEED)
    images = torch.stack([source.decode(source.read(row)) for row in range(rows)]).float() / 255
    masks = torch.from_numpy(source.masks(range(rows)))
    return images, masks, torch.tensor(source.rows()["label"].to_pylist())


def measured(
    network: Network, images: Tensor, masks: Tensor, labels: Tensor, maps: Tensor, steps: int
) -> dict[str, float]:
    """Return the means over the images."""
    found = {"pointing": pointing_game(maps, masks)}
    if steps:
        found["deletion"] = deletion_auc(network, images, maps, labels, steps)
        found["insertion"] = insertion_auc(network, images, maps, labels, steps)
    return {name: float(each.mean()) for name, each in found.items()}


def quality(rows: int, steps: int, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Any]:
    """Measure each method, and what knows nothing.

    Args:
        rows: how many pictures.
        steps: of deletion and insertion; 0 leaves them out.
        methods: which of `METHODS`.
    """
    network = load_model("tiny-shapes", device="cpu")
    images, masks, labels = pictures(rows)
    size = (images.shape[2], images.shape[3])
    found = {}
    for name, maps in (
        ("centre", centre_prior(size).expand(rows, -1, -1)),
        ("random", random_maps(rows, size, 0)),
    ):
        found[name] = measured(network, images, masks, labels, maps, steps)
    for method in methods:
        gradients = METHODS[method](network, images, labels)
        for how in get_args(How):
            for blur in BLURS:
                maps = importance(gradients, how, blur)
                name = f"{method}, {how}" + (f", smoothed by {blur:g} pixels" if blur else "")
                # Smoothing is for the pointing game, which looks at a single pixel.
                areas = 0 if blur else steps
                found[name] = measured(network, images, masks, labels, maps, areas)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 when the bar was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--steps", type=int, default=8, help="of deletion and insertion")
    arguments = parser.parse_args(argv)
    found = quality(arguments.rows, arguments.steps)
    for name, each in found.items():
        print(f"{name:40s}", ", ".join(f"{what} {value:.3f}" for what, value in each.items()))
    margin = found["guided, largest"]["pointing"] - found["centre"]["pointing"]
    results = {"rows": arguments.rows, "steps": arguments.steps, "methods": found}
    results |= {"guided_over_centre": margin, "bar": BAR}
    command = f"python -m fc7.bench.attribution_quality --rows {arguments.rows}"
    print(record("attribution_quality", results, command))
    if margin < BAR:
        print(f"MISSED guided maps' pointing over the centre's: {margin:.2f}, bar {BAR}")
    return 0 if margin >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
