"""What a kernel's answer must satisfy before it is timed.

Each check has two halves. The kernel's own float64 reference, slow and plain, judges a sample that
is drawn anew each time. Beside it the whole answer is compared with a peer that computes the same
function: what the sample leaves out cannot hide. Nothing that `torch.empty` handed out and nobody
wrote can pass, since it is filled with NaN meanwhile.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.bench.kernel_peers import Rule
from fc7.kernels.gram import gram_reference
from fc7.kernels.gram_loss import gram_loss_reference
from fc7.kernels.guided_relu import guided_relu_reference
from fc7.kernels.merge_topk import topk_reference
from fc7.kernels.occlude import occlude_reference
from fc7.kernels.spatial_max import spatial_max_reference

_SAMPLED_ELEMENTS = 100_000  # for references that loop over them


class WrongAnswerError(AssertionError):
    """The kernel's answer is not what its definition says; nothing about it is reported."""


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN (integers with their largest), then go back."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some operator has no deterministic way
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


def error(found: Tensor, reference: Tensor) -> float:
    """Return the largest error, in units of the reference's largest value."""
    reference = reference.double()
    scale = max(reference.abs().max().item(), 1e-300)
    return (found.double() - reference).abs().max().item() / scale


def require(condition: bool, what: str) -> None:
    """Refuse unless it holds.

    Raises:
        WrongAnswerError: it does not hold.
    """
    if not condition:
        raise WrongAnswerError(what)


def require_within_twice(ours: Tensor, theirs: Tensor, reference: Tensor, what: str) -> float:
    """Refuse unless our error is at most twice torch's own plus 1e-6; return our error."""
    require(
        ours.shape == reference.shape,
        f"{what} has shape {tuple(ours.shape)}, not {tuple(reference.shape)}",
    )
    found, allowed = error(ours, reference), 2 * error(theirs, reference) + 1e-6
    require(found <= allowed, f"{what}: error {found:.3g}, but torch's own allows {allowed:.3g}")
    return found


def check_gram(inputs: Any, ours: Any, theirs: Any, rng: np.random.Generator) -> float:
    """Every image in float64, where the definition confirms some channels; and exact symmetry."""
    (features,) = inputs
    require(torch.equal(ours, ours.mT), "gram is not symmetric")
    whole = _grams(features)
    for image in _some(rng, len(features), 2):
        channels = _some(rng, features.shape[1], 16)
        definition = gram_reference(_numbers(features[image, channels])[None])[0]
        same = whole[image][channels][:, channels].cpu()
        require(error(same, torch.from_numpy(definition)) < 1e-9, "gram in float64")
    return require_within_twice(ours, theirs, whole, "gram")


def check_gram_loss(inputs: Any, ours: Any, theirs: Any, rng: np.random.Generator) -> float:
    """Losses and their gradient, 4 (G - T) F / (C^2 H W), in float64."""
    features, target = inputs
    n, c, h, w = features.shape
    difference = _grams(features) - target.double()
    losses = difference.square().mean((1, 2))
    (image,) = _some(rng, n, 1)
    definition = gram_loss_reference(_numbers(features[image])[None], _numbers(target))
    same = losses[image : image + 1].cpu()
    require(error(same, torch.from_numpy(definition)) < 1e-9, "gram_loss in float64")
    worst = require_within_twice(ours[0], theirs[0], losses, "gram_loss")
    gradient = torch.stack(
        [d @ f.double().flatten(1) for d, f in zip(difference, features, strict=True)]
    )
    gradient = gradient.reshape(n, c, h, w) * (4 / (c * c * h * w))
    found = require_within_twice(ours[1], theirs[1], gradient, "gram_loss's gradient")
    return max(worst, found)


def check_guided_relu(
    rule: Rule, inputs: Any, ours: Any, theirs: Any, rng: np.random.Generator
) -> float:
    """Bit for bit: the definition on a run of elements, the peer on all of them."""
    x, gradient = inputs
    ours = ours if isinstance(ours, tuple) else (x.clamp_min(0), ours)
    theirs = theirs if isinstance(theirs, tuple) else (x.clamp_min(0), theirs)
    start = int(rng.integers(0, max(1, x.numel() - _SAMPLED_ELEMENTS)))
    run = slice(start, start + _SAMPLED_ELEMENTS)
    sampled_x, sampled_gradient = (_numbers(tensor.flatten()[run]) for tensor in (x, gradient))
    definition = guided_relu_reference(sampled_x, sampled_gradient, rule)
    for found, peer, exact, what in zip(ours, theirs, definition, ("y", "gradient"), strict=True):
        same = np.array_equal(_numbers(found.flatten()[run]), exact)
        require(same, f"guided_relu's {what} is not its definition's")
        require(torch.equal(found, peer), f"guided_relu's {what} is not torch's")
    return 0.0


def check_occlude(inputs: Any, ours: Any, theirs: Any, rng: np.random.Generator) -> float:
    """Bit for bit: the definition at some positions, the peer at all of them."""
    images, boxes, fill = inputs
    some = _some(rng, len(boxes), 4)
    cover = np.full(images.shape, fill)
    definition = occlude_reference(_numbers(images), boxes[some].cpu().numpy(), cover)
    same = np.array_equal(_numbers(ours[:, some]), definition)
    require(same, "occlude is not its definition")
    require(torch.equal(ours, theirs), "occlude is not torch.where")
    require(ours.stride() == theirs.stride(), f"occlude has strides {ours.stride()}")
    return 0.0


def check_spatial_max(inputs: Any, ours: Any, theirs: Any, rng: np.random.Generator) -> float:
    """Bit for bit: the definition for some maps, torch's values and first places for all."""
    (activations,) = inputs
    values, positions = ours
    n, c, h, w = activations.shape
    count = max(1, min(16, _SAMPLED_ELEMENTS // (h * w)))
    images, channels = rng.integers(0, n, count), rng.integers(0, c, count)
    maps = _numbers(activations[images, channels])
    exact: tuple[NDArray[Any], ...] = spatial_max_reference(maps[None])
    for found, definition, what in zip(ours, exact, ("values", "positions"), strict=True):
        same = np.array_equal(_numbers(found[images, channels]), definition[0])
        require(same, f"spatial_max's {what} are not its definition's")
    require(positions.dtype == torch.int32, f"spatial_max's positions are {positions.dtype}")
    require(torch.equal(values, theirs[0]), "spatial_max's values are not torch's")
    places = torch.arange(h * w, dtype=torch.int32, device=activations.device)
    for image, image_values, image_positions in zip(activations, values, positions, strict=True):
        strongest = image.flatten(1) == image_values[:, None]
        first = torch.where(strongest, places, h * w).amin(1)
        require(torch.equal(first, image_positions), "spatial_max's positions are not the first")
    return 0.0


def check_merge_topk(inputs: Any, ours: Any, theirs: Any, rng: np.random.Generator) -> float:
    """Bit for bit: the definition for some channels, two stable sorts for all."""
    values, ids, new_values, new_ids = inputs
    some = _some(rng, len(values), 64)
    candidates = torch.cat([values, new_values], 1)[some], torch.cat([ids, new_ids], 1)[some]
    numbers, all_ids = _numbers(candidates[0]), candidates[1].cpu().numpy()
    definition = topk_reference(numbers, all_ids, values.shape[1])
    for found, peer, exact, what in zip(ours, theirs, definition, ("values", "ids"), strict=True):
        same = found[some].tolist() == exact
        require(same, f"merge_topk's {what} are not its definition's")
        require(torch.equal(found, peer), f"merge_topk's {what} are not those of two sorts")
    return 0.0


def _grams(features: Tensor) -> Tensor:
    """The formula in float64, image by image: the copies of all of them might not fit."""
    grams = []
    for image in features:
        flat = image.double().flatten(1)
        grams.append(flat @ flat.T / flat.shape[1])
    return torch.stack(grams)


def _some(rng: np.random.Generator, count: int, most: int) -> list[int]:
    chosen: list[int] = rng.choice(count, min(count, most), replace=False).tolist()
    return chosen


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()
