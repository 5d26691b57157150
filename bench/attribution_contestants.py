"""Who makes gradients of a logit by the pixels: Captum and fc7.

Captum runs the network as torchvision makes it, its weights awaiting gradients and its memory
contiguous, and again with its memory channels last. Its guided backpropagation puts hooks on
modules, which fail where ReLUs work in place: it is given a copy whose ReLUs do not.
"""

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fc7.engine.attribution.backprop import Backprop
from fc7.engine.models import Network, load_model

Method = Literal["saliency", "guided"]
WHO = ("fc7", "captum", "captum, channels last")
BATCHES = (1, 4, 8, 16)

# ReLUs at zero switch with the rounding, in anybody's float32, and each switch changes the gradient
# of many pixels by a little; a wrong gradient differs by more than half.
SWITCHES = 0.02


@dataclass(frozen=True)
class Case:
    """Maps to make: of a network's logits, for images of noise.

    Attributes:
        model: torchvision's name of the network; its weights are random.
        method: which maps.
        size: side of the images in pixels.
    """

    model: str
    method: Method
    size: int = 224

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.method}-{self.model}-{self.size}"


class Bench:
    """The contestants of one case, and what they agree on.

    Args:
        case: the case.
    """

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def network(self) -> Network:
        """Ours; loaded when first asked for."""
        return load_model(self.case.model, weights="random", seed=0, device="cpu")

    @cached_property
    def backprop(self) -> Backprop:
        """Our side, ready."""
        return Backprop(self.network, "guided" if self.case.method == "guided" else "plain")

    @cached_property
    def bare(self) -> nn.Module:
        """The network as torchvision makes it, of the same weights."""
        model = copy.deepcopy(self.network.model).to(memory_format=torch.contiguous_format)
        return self._for_captum(model.requires_grad_())

    @cached_property
    def channels_last(self) -> nn.Module:
        """The same with its memory channels last."""
        return copy.deepcopy(self.bare).to(memory_format=torch.channels_last)

    def _for_captum(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.ReLU) and self.case.method == "guided":
                module.inplace = False
        return model

    def images(self, count: int) -> Tensor:
        """Return images of noise, the first ones the same for any count."""
        generator = torch.Generator().manual_seed(0)
        side = self.case.size
        return torch.stack([torch.rand(3, side, side, generator=generator) for _ in range(count)])

    def targets(self, count: int) -> Tensor:
        """Return the classes asked about, (count,)."""
        return torch.arange(count) * 61 % 1000

    def ours(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return our maps: (N, H, W) for saliency, (N, 3, H, W) for guided gradients."""
        gradients = self.backprop.of_classes(images, targets).maps
        return gradients.abs().amax(1) if self.case.method == "saliency" else gradients

    def captum(self, model: nn.Module, seen: Tensor, targets: Tensor) -> Tensor:
        """Return Captum's maps, (N, 3, H, W), of normalised images.

        For saliency they are absolute.
        """
        from captum.attr import GuidedBackprop, Saliency

        peer: Any = GuidedBackprop if self.case.method == "guided" else Saliency
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it sets hooks, and gradients of the images
            found: Tensor = peer(model).attribute(seen.requires_grad_(), target=targets)
        return found

    def normalised(self, images: Tensor) -> Tensor:
        """Return images as the bare network sees them."""
        mean, std = torch.tensor(self.network.mean), torch.tensor(self.network.std)
        return (images - mean[:, None, None]) / std[:, None, None]

    def call(self, who: str, batch: int) -> Callable[[], Tensor]:
        """Return what makes one batch of maps; all that is made once is made already."""
        images, targets = self.images(batch), self.targets(batch)
        if who == "fc7":
            _ = self.backprop
            return lambda: self.ours(images, targets)
        model = self.channels_last if "last" in who else self.bare
        form = torch.channels_last if "last" in who else torch.contiguous_format
        seen = self.normalised(images).contiguous(memory_format=form)
        return lambda: self.captum(model, seen.detach().clone(), targets)

    def seconds_an_image(self, who: str, batch: int) -> float:
        """Return the CPU-seconds of one batch over its images."""
        call = self.call(who, batch)
        begin = time.process_time()
        call()
        return (time.process_time() - begin) / batch

    def best_batch(self, who: str, batches: Sequence[int] = BATCHES) -> int:
        """Return the batch at which a contestant takes least for an image, the better of two."""
        return min(
            batches, key=lambda batch: min(self.seconds_an_image(who, batch) for _ in range(2))
        )

    def check(self, count: int = 2) -> dict[str, float]:
        """Compare all contestants with autograd in float64.

        Returns:
            By contestant, the distance of its maps to float64's as a share of their length, of the
            worse image.

        Raises:
            AssertionError: one is further off than switching ReLUs explain.
        """
        images, targets = self.images(count), self.targets(count)
        exact = self._exact(images, targets)
        std = torch.tensor(self.network.std, dtype=torch.float64)[:, None, None]
        errors = {}
        for who in WHO:
            found = self.call(who, count)().double()
            if who != "fc7":
                found = found / std
                found = found.amax(1) if self.case.method == "saliency" else found
            errors[who] = _apart(found, exact)
        for who, apart in errors.items():
            if not apart <= SWITCHES:
                raise AssertionError(f"{self.case.name}: {who} is off by {apart:.3f} of the map")
        return errors

    def _exact(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the maps in float64; ReLUs follow the rule by hooks on modules out of place."""
        model = copy.deepcopy(self.network.model).double()
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
                if self.case.method == "guided":
                    module.register_full_backward_hook(_positive)
        mean, std = (
            torch.tensor(each, dtype=torch.float64)[:, None, None]
            for each in (self.network.mean, self.network.std)
        )
        pixels = images.double().requires_grad_()
        logits = model((pixels - mean) / std)
        (found,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), pixels)
        return found.abs().amax(1) if self.case.method == "saliency" else found


def _positive(_module: nn.Module, gx: Any, _g: Any) -> tuple[Tensor]:
    return (gx[0].clamp(min=0),)


def _apart(found: Tensor, exact: Tensor) -> float:
    difference = (found - exact).flatten(1).norm(dim=1)
    return float((difference / exact.flatten(1).norm(dim=1)).max())
