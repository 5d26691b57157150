"""Who makes images of channels by gradient ascent: fc7, and loops that make one image at a time.

All do the same: Lucid's Fourier latents with decorrelated colours, its jitter, scaling and turns,
the mean of one channel, Adam. The loops hold their weights frozen and end at the layer, or, as
Lucent does, run the whole network, whose weights wait for gradients, and read the layer by a hook.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.objectives import channel
from fc7.engine.synthesis.parametrisation import COLOURS
from fc7.engine.synthesis.presets import recipe
from fc7.engine.synthesis.queue import AscentQueue, Task

WHO = ("fc7", "one by one, truncated, frozen", "one by one, whole, as Lucent")
DEVIATION, RATE = 0.01, 0.05


class Bench:
    """The contestants for one layer of one network.

    Args:
        model: torchvision's name; its weights are random.
        layer: whose channels are asked for.
        batch: images that ascend together, of ours.
        device: as torch names it.
        clock: the seconds that count.
    """

    def __init__(
        self,
        model: str = "alexnet",
        layer: str = "conv5",
        batch: int = 16,
        device: str = "cpu",
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.layer, self.batch, self._clock = layer, batch, clock
        self.network: Network = load_model(model, weights="random", seed=0, device=device)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.network.input_size

    @cached_property
    def truncated(self) -> nn.Module:
        """The network up to the layer, frozen, as torchvision makes it."""
        path = self.network.layer(self.layer).path
        group, _, number = path.partition(".")
        modules = list(self.network.model.get_submodule(group).children())[: int(number) + 1]
        model = nn.Sequential(*modules).to(memory_format=torch.contiguous_format)
        return model.requires_grad_(False).eval()

    @cached_property
    def whole(self) -> nn.Module:
        """The whole network, its weights waiting for gradients."""
        import copy

        model = copy.deepcopy(self.network.model).to(memory_format=torch.contiguous_format)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # or the hook's tensor is written over
        return model.requires_grad_().eval()

    def seconds_an_evaluation(self, who: str, channels: Sequence[int], steps: int) -> float:
        """Return the clock's seconds, by default all threads', over images times steps."""
        begin = self._clock()
        if who == WHO[0]:
            self.ours(channels, steps)
        else:
            for unit in channels:
                self.loop(who, unit, steps)
        return (self._clock() - begin) / (len(channels) * steps)

    def ours(self, channels: Sequence[int], steps: int) -> dict[int, Tensor]:
        """Return an image for each channel."""
        how = recipe("lucid", self.network, steps)
        queue = AscentQueue(self.network, channel(self.layer, 0), how, self.batch)
        tasks = (Task(unit, channel(self.layer, unit), unit) for unit in channels)
        return {made.row: made.image for group in queue(tasks) for made in group}

    def loop(self, who: str, unit: int, steps: int) -> Tensor:
        """Return an image for one channel, from a loop as it is written for one."""
        generator = torch.Generator().manual_seed(unit)
        height, width = self.size
        shape = (1, 3, height, width // 2 + 1, 2)
        start = torch.randn(shape, generator=generator) * DEVIATION
        spectrum = start.to(self.network.device).requires_grad_()
        adam = torch.optim.Adam([spectrum], lr=RATE)
        for _ in range(steps):
            adam.zero_grad()
            image = _image(spectrum, self.size)
            loss = -self.score(who, _moved(image, generator), unit)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        return _image(spectrum, self.size).detach()

    def score(self, who: str, image: Tensor, unit: int) -> Tensor:
        """Return the mean of a channel of one image (1, 3, H, W)."""
        seen = self.network.normalise(image).contiguous()
        found: list[Tensor] = []
        if who == WHO[1]:
            found.append(self.truncated(seen))
            return found[0][0, unit].mean()
        module = self.whole.get_submodule(self.network.layer(self.layer).path)
        handle = module.register_forward_hook(lambda _m, _a, output: found.append(output))
        try:
            self.whole(seen)
        finally:
            handle.remove()
        return found[0][0, unit].mean()

    def check(self, allowed: float = 1e-3) -> dict[str, float]:
        """Compare the gradient of a channel by the pixels with the loops' own.

        Args:
            allowed: the largest distance that is taken for rounding.

        Returns:
            By contestant, its distance to ours as a share of its length.

        Raises:
            AssertionError: one differs by more than rounding.
        """
        from fc7.engine.synthesis.evaluation import Evaluator
        from fc7.engine.synthesis.objectives import Batch

        device = self.network.device
        images = torch.rand(2, 3, *self.size, generator=torch.Generator().manual_seed(0)).to(device)
        batch = Batch([channel(self.layer, unit) for unit in (3, 77)], device)
        ours = Evaluator(self.network, batch.layers)(images, batch).gradients
        errors = {}
        for who in WHO[1:]:
            apart = 0.0
            for row, unit in enumerate((3, 77)):
                pixels = images[row : row + 1].clone().requires_grad_()
                (theirs,) = torch.autograd.grad(self.score(who, pixels, unit), pixels)
                apart = max(apart, float((ours[row] - theirs[0]).norm() / theirs.norm()))
            if not apart < allowed:
                raise AssertionError(f"{who}: the gradient is off by {apart:.1e}")
            errors[who] = apart
        return errors


def _image(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Return Lucid's image of a spectrum, (1, 3, H, W)."""
    height, width = size
    down = torch.fft.fftfreq(height, device=spectrum.device)[:, None]
    across = torch.fft.rfftfreq(width, device=spectrum.device)[None]
    scale = 1 / (down**2 + across**2).sqrt().clamp(min=1 / max(size))
    scaled = torch.view_as_complex(spectrum) * scale * math.sqrt(height * width)
    pixels = torch.fft.irfft2(scaled, s=size, norm="ortho") / 4
    colours = torch.from_numpy(COLOURS.astype(np.float32)).to(pixels.device)
    return torch.einsum("nchw,dc->ndhw", pixels, colours).sigmoid()


def _moved(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image padded, shifted, scaled, turned and shifted, as Lucid does by default."""
    height, width = image.shape[2:]

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    def shifted(x: Tensor, by: int) -> Tensor:
        top, left = whole(0, 2 * by), whole(0, 2 * by)
        return x[:, :, top : top + x.shape[2] - 2 * by, left : left + x.shape[3] - 2 * by]

    moved = shifted(functional.pad(image, (12, 12, 12, 12), value=0.5), 8)
    angle, factor = math.radians(whole(-10, 10)), 1 + whole(-5, 5) / 50
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    turn = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]], device=image.device)
    grid = functional.affine_grid(turn, list(moved.shape), align_corners=False)
    moved = functional.grid_sample(moved, grid, padding_mode="border", align_corners=False)
    moved = shifted(moved, 4)
    top, left = (moved.shape[2] - height) // 2, (moved.shape[3] - width) // 2
    if top >= 0 and left >= 0:
        return moved[:, :, top : top + height, left : left + width]
    return functional.interpolate(moved, size=(height, width), mode="bilinear")
