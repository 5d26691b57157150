"""Who makes an occlusion map: Captum, a hand-batched forward pass, and fc7.

Each is a function without arguments that covers one image at every place and returns what it
found. Captum runs the network as torchvision has it; the hand-batched one has BatchNorm folded
into the convolutions and its memory channels last, as fc7 does.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.grid import places, to_pixels
from fc7.engine.models import Network, load_model

Box = tuple[int, int, int, int]
CAPTUM_BATCHES = (4, 8, 16)
HAND_BATCHES = (8, 16, 32)
SAMPLE = 96
"""Places of a sample, about."""
_TUNED_PLACES = 48


@dataclass(frozen=True)
class Case:
    """One map to make: of a network's first logit for one image of noise.

    Attributes:
        model: torchvision's name of the network; its weights are random.
        size: side of the image in pixels.
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        sampled: whether the peers cover a sample of the places, for whole maps take them minutes.
    """

    model: str
    size: int = 224
    window: int = 16
    stride: int = 8
    sampled: bool = False

    @property
    def name(self) -> str:
        """The case in a word."""
        return f"{self.model}-{self.size}-{self.window}/{self.stride}"


class Bench:
    """The contestants of one case, and what they agree on.

    Args:
        case: the case.
        folded: whether to keep the folded network alone.
    """

    def __init__(self, case: Case, folded: bool = False) -> None:
        self.case = case
        network = load_model(case.model, weights="random", seed=0, device="cpu")
        # Where it folds, so that only one of the two is in memory, as in `fc7 occlude`.
        self.network = network.folded([]) if folded else network
        self.image = torch.rand(
            1, 3, case.size, case.size, generator=torch.Generator().manual_seed(0)
        )
        self.places = list(places((case.size, case.size), case.window, case.stride))

    @cached_property
    def _folded(self) -> Network:
        return self.network.folded([])

    @cached_property
    def occlusion(self) -> Occlusion:
        """Our side, with its plan made."""
        case = self.case
        size = case.size, case.size
        return Occlusion(self.network, case.window, case.stride, score="logit", size=size)

    def ours(self) -> Tensor:
        """Return the drop of the logit at every place, (places,)."""
        return self.occlusion.maps(self.image, [0]).drops.flatten()

    def by_hand(self, batch: int, chosen: Sequence[int] | None = None) -> Tensor:
        """Return the drop of the logit at chosen places, or all, by full inference in batches."""
        boxes = self.places if chosen is None else [self.places[number] for number in chosen]
        return drops_by_hand(self._folded, self.image, boxes, batch)

    def captum(self, batch: int, channels_last: bool, stride: int | None = None) -> Tensor:
        """Return Captum's map of pixels, (H, W)."""
        from captum.attr import Occlusion as Peer

        case = self.case
        form = torch.channels_last if channels_last else torch.contiguous_format
        model = self.network.model.to(memory_format=form)
        mean, std = torch.tensor(self.network.mean), torch.tensor(self.network.std)
        image = (self.image - mean[:, None, None]) / std[:, None, None]
        step = stride or case.stride
        found: Tensor = Peer(model).attribute(
            image.contiguous(memory_format=form),
            (3, max(case.window, step), max(case.window, step)),  # it wants no gaps
            (3, step, step),
            baselines=0,
            target=0,
            perturbations_per_eval=batch,
        )
        return found[0, 0]

    def hand_seconds(self, batch: int) -> float:
        """Return the CPU-seconds of `by_hand`, of a sample scaled up if the case says so."""
        if not self.case.sampled:
            return _seconds(lambda: self.by_hand(batch))
        step = max(1, len(self.places) // SAMPLE)
        some = range(0, step * SAMPLE, step)
        return _seconds(lambda: self.by_hand(batch, some)) * len(self.places) / SAMPLE

    def captum_seconds(self, batch: int, channels_last: bool) -> float:
        """Return the CPU-seconds of `captum`, of a sample scaled up if the case says so."""
        if not self.case.sampled:
            return _seconds(lambda: self.captum(batch, channels_last))
        stride, covered = self._coarse(SAMPLE)
        seconds = _seconds(lambda: self.captum(batch, channels_last, stride=stride))
        return seconds * len(self.places) / covered

    def _coarse(self, wanted: int) -> tuple[int, int]:
        """Return a stride with about so many places, and how many it has."""
        span = self.case.size - self.case.window
        stride = -(-span // (round(wanted**0.5) - 1))
        return stride, (-(-span // stride) + 1) ** 2

    def best_hand(self) -> int:
        """Return the batch at which full inference takes least for a place."""
        some = range(-(-_TUNED_PLACES // HAND_BATCHES[-1]) * HAND_BATCHES[-1])
        return min(HAND_BATCHES, key=lambda batch: _seconds(lambda: self.by_hand(batch, some)))

    def best_captum(self, channels_last: bool) -> int:
        """Return the `perturbations_per_eval` at which Captum takes least."""
        stride, _ = self._coarse(_TUNED_PLACES)
        return min(
            CAPTUM_BATCHES,
            key=lambda batch: _seconds(lambda: self.captum(batch, channels_last, stride)),
        )

    def check(self, sampled: int = 24) -> dict[str, float]:
        """Compare ours with full inference in float64 at some places.

        Returns:
            The largest error, full float32 inference's own, and the median effect.

        Raises:
            AssertionError: ours is further off than twice what full inference is.
        """
        generator = torch.Generator().manual_seed(1)
        every = len(self.places)
        chosen = [0, every - 1, *torch.randint(every, (sampled,), generator=generator).tolist()]
        mine, single = self.ours()[chosen].double(), self.by_hand(8, chosen).double()
        exact = exact_drops(self.network, self.image, [self.places[number] for number in chosen])
        error = float((mine - exact).abs().max())
        full = float((single - exact).abs().max())
        if not error <= 2 * full + 1e-7 * float(exact.abs().max()):
            raise AssertionError(f"{self.case.name}: off by {error}, full inference by {full}")
        return {"error": error, "full_error": full, "effect": float(exact.abs().median())}

    def check_captum(self, map_of_pixels: Tensor, drops: Tensor) -> None:
        """Compare Captum's map with ours, away from the edges, where its division is off.

        Raises:
            AssertionError: they differ by more than rounding.
        """
        case, side = self.case, self.occlusion.grid
        size = case.size, case.size
        mine = to_pixels(drops.view(1, *side), size, case.window, case.stride)[0]
        inner = slice(2 * case.window, case.size - 2 * case.window)
        apart = float((mine - map_of_pixels)[inner, inner].abs().max())
        if not apart <= 1e-3 * float(mine.abs().max()):
            raise AssertionError(f"{case.name}: Captum's map is another, by {apart}")


@torch.inference_mode()
def drops_by_hand(network: Network, image: Tensor, boxes: Sequence[Box], batch: int) -> Tensor:
    """Return by how much the first logit falls with each box covered, by full inference.

    Args:
        network: with BatchNorm folded, on its device.
        image: (1, 3, H, W) in [0, 1], there too.
        boxes: top, left, bottom and right of what is covered by the mean colour, half open.
        batch: images at once.
    """
    mean = image.new_tensor(network.mean)[:, None, None]
    image = image.contiguous(memory_format=torch.channels_last)
    whole = network(image)[0, 0]
    found = []
    for start in range(0, len(boxes), batch):
        some = boxes[start : start + batch]
        covered = image.expand(len(some), -1, -1, -1)
        covered = covered.contiguous(memory_format=torch.channels_last)
        for one, (top, left, bottom, right) in zip(covered, some, strict=True):
            one[:, top:bottom, left:right] = mean
        found.append(whole - network(covered)[:, 0])
    return torch.cat(found)


@torch.inference_mode()
def exact_drops(network: Network, image: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Return the same in float64, an image at a time; network and image are on the CPU."""
    model = copy.deepcopy(network.model).double()
    mean = torch.tensor(network.mean, dtype=torch.float64)[:, None, None]
    std = torch.tensor(network.std, dtype=torch.float64)[:, None, None]
    seen = (image.double() - mean) / std
    whole = model(seen)[0, 0]
    found = []
    for top, left, bottom, right in boxes:
        covered = seen.clone()
        covered[..., top:bottom, left:right] = 0
        found.append(whole - model(covered)[0, 0])
    return torch.stack(found)


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU-seconds of a call, over all threads, and what it returned."""
    begin = time.process_time()
    found = call()
    return time.process_time() - begin, found


def _seconds(call: Callable[[], Any]) -> float:
    return cpu_seconds(call)[0]
