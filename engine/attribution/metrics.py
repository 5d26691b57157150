"""How good attribution maps are: do they point at the object, and does the network need it?

The pointing game is Zhang et al., "Top-down Neural Attention by Excitation Backprop" (ECCV 2016),
without their margin of 15 pixels around the object. Deletion and insertion are Petsiuk et al.,
"RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018), section 4.2.
Masks are compared with the true ones by intersection over union (Jaccard, 1901).

A metric says little by itself: a large object is easily hit, and a network may lose its way
wherever pixels go missing. So there are maps that know nothing to compare with: the distance to
the centre, a baseline as old as Judd et al. (ICCV 2009), and noise.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fc7.engine.attribution.question import Question
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import check_classes, class_numbers


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether each map's largest value lies on the object, 1 or 0.

    Where several pixels share it, the share of them that does: the chance that one drawn among
    them hits.

    Args:
        maps: (N, H, W), the higher the more important.
        masks: (N, H, W) bool, where the object is.

    Returns:
        (N,) float64.

    Raises:
        ValueError: maps and masks have different shapes, the masks another dtype, or the maps NaN.
    """
    if maps.ndim != 3 or maps.shape != masks.shape or masks.dtype != torch.bool:
        raise ValueError(
            f"expected maps (N, H, W) and bool masks of that shape, got {tuple(maps.shape)} and "
            f"{masks.dtype} {tuple(masks.shape)}"
        )
    _refuse_nan(maps)
    flat = maps.flatten(1)
    largest = flat == flat.amax(1, keepdim=True)
    hits = (largest & masks.flatten(1).to(maps.device)).sum(1)
    return hits.double() / largest.sum(1).double()


def iou(masks: Tensor, truths: Tensor) -> Tensor:
    """Return how well each mask covers the object: their intersection over their union.

    Of a pixel set A and the true one B it is |A and B| / |A or B|, Jaccard's index. Where both are
    empty it is 1: there was nothing to find and nothing was found, and 1 - iou stays a metric in
    the sense of geometry, of which equal sets have the distance 0.

    Args:
        masks: (N, H, W) bool, what was found.
        truths: (N, H, W) bool, where the object is.

    Returns:
        (N,) float64, in [0, 1].

    Raises:
        ValueError: they have different shapes, or another dtype.
    """
    is_bool = masks.dtype == truths.dtype == torch.bool
    if masks.ndim != 3 or masks.shape != truths.shape or not is_bool:
        raise ValueError(
            "expected two bool tensors (N, H, W) of one shape, got "
            f"{masks.dtype} {tuple(masks.shape)} and {truths.dtype} {tuple(truths.shape)}"
        )
    truths = truths.to(masks.device)
    both = (masks & truths).flatten(1).sum(1).double()
    either = (masks | truths).flatten(1).sum(1).double()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def deletion_auc(
    network: Network,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | Sequence[int],
    steps: int = 64,
    fill: float | Sequence[float] | None = None,
    batch: int = 64,
) -> Tensor:
    """Return the area under a class's probability as pixels are covered, the most important first.

    With p(k) the probability when a share x(k) of the pixels is covered, k = 0 to `steps` and x(k)
    the multiples of 1 / steps rounded to whole pixels, that is

        sum over k of (x(k) - x(k - 1)) (p(k) + p(k - 1)) / 2.

    The lower the better: what a good map finds important is soon missed. Pixels of equal
    importance go in reading order.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1].
        maps: (N, H, W), the higher the more important.
        targets: N class numbers.
        steps: in how many steps all pixels are covered.
        fill: what covers, in [0, 1]: a number, or a colour (r, g, b). None is the network's mean
            colour, which it sees as zero.
        batch: images that run together.

    Returns:
        (N,) float64, in [0, 1].

    Raises:
        OptionError: an option or a class is out of range.
        ValueError: images and maps do not fit together, or the maps hold NaN.
    """
    curves = _curves(network, images, maps, targets, steps, fill, batch, deletes=True)
    return _areas(curves, images, steps)


def insertion_auc(
    network: Network,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | Sequence[int],
    steps: int = 64,
    fill: float | Sequence[float] | None = None,
    batch: int = 64,
) -> Tensor:
    """Return the area under a class's probability as pixels appear, the most important first.

    As `deletion_auc`, with p(k) the probability when a share x(k) of the pixels is seen before an
    even colour. The higher the better. (The paper uncovers a blurred image.)

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1].
        maps: (N, H, W), the higher the more important.
        targets: N class numbers.
        steps: in how many steps all pixels appear.
        fill: what is seen of the other pixels; see `deletion_auc`.
        batch: images that run together.

    Returns:
        (N,) float64, in [0, 1].

    Raises:
        OptionError: an option or a class is out of range.
        ValueError: images and maps do not fit together, or the maps hold NaN.
    """
    curves = _curves(network, images, maps, targets, steps, fill, batch, deletes=False)
    return _areas(curves, images, steps)


def centre_prior(size: tuple[int, int]) -> Tensor:
    """Return minus each pixel's distance to the centre, in halves of the sides.

    Args:
        size: height and width in pixels.

    Returns:
        (H, W) float64, from about 0 in the middle to -2 ** 0.5 beyond the corners.
    """
    down, across = (2 * (torch.arange(side, dtype=torch.float64) + 0.5) / side - 1 for side in size)
    return -torch.hypot(down[:, None], across[None, :])


def random_maps(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Return maps of independent numbers, the same for a seed on every machine.

    Args:
        count: N.
        size: height and width.
        seed: of the numbers; the first maps do not depend on N.

    Returns:
        (N, H, W) float64 in [0, 1).
    """
    return torch.from_numpy(np.random.default_rng(seed).random((count, *size)))


@torch.inference_mode()
def _curves(
    network: Network,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | Sequence[int],
    steps: int,
    fill: float | Sequence[float] | None,
    batch: int,
    deletes: bool,
) -> Tensor:
    """Return the probabilities, (steps + 1, N) float64."""
    question = Question(network, fill, "probability")
    classes = _checked(images, maps, targets, steps, batch)
    pixels = images.shape[2] * images.shape[3]
    found = torch.zeros(steps + 1, len(images), dtype=torch.float64)
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        seen = images[part].to(network.device, torch.float32)
        colour = question.colour.expand(3)[:, None, None]
        flat = maps[part].to(network.device).flatten(1)
        order = torch.argsort(flat, dim=1, descending=True, stable=True)
        ranks = torch.argsort(order, dim=1).view(len(seen), 1, *images.shape[2:])
        for step, count in enumerate(_counts(pixels, steps)):
            chosen = ranks < count
            logits = network(torch.where(chosen ^ (not deletes), colour, seen)).double()
            wanted = classes[part].to(logits.device)
            if step == start == 0:
                check_classes(classes.tolist(), network, logits.shape[1])
            found[step, part] = question.scores(logits, wanted).cpu()
    return found


def _counts(pixels: int, steps: int) -> Iterator[int]:
    for step in range(steps + 1):
        yield round(step * pixels / steps)


def _areas(curves: Tensor, images: Tensor, steps: int) -> Tensor:
    pixels = images.shape[2] * images.shape[3]
    shares = torch.tensor(list(_counts(pixels, steps)), dtype=torch.float64) / pixels
    return torch.trapezoid(curves, shares, dim=0)


def _checked(
    images: Tensor, maps: Tensor, targets: Tensor | Sequence[int], steps: int, batch: int
) -> Tensor:
    if steps < 1 or batch < 1:
        raise OptionError(f"steps is {steps} and batch {batch}; each must be at least 1")
    fits = images.ndim == 4 and maps.shape == (len(images), *images.shape[2:])
    if not fits or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            "expected float images (N, 3, H, W) in [0, 1] and maps (N, H, W), got "
            f"{images.dtype} {tuple(images.shape)} and {tuple(maps.shape)}"
        )
    _refuse_nan(maps)
    return class_numbers(targets, len(images))


def _refuse_nan(maps: Tensor) -> None:
    if maps.isnan().any():
        raise ValueError(
            "the maps hold NaN, which is neither more nor less important than a number"
        )
