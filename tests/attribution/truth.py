"""What occlusion maps should be: full inference in float64 on images covered by hand.

The reference is a copy of the bare network, made before ours has seen it, in float64, with the
normalisation written out. Errors are judged by those that full inference in float32 makes.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.data.transform import Transform
from fc7.engine.models import Network

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.3, 0.25)


class Case(nn.Module):
    """A network that a function makes of two convolutions a and b, to eight channels, and others.

    Its last layer is linear, on what the function returns: vectors, or maps, which are averaged.
    """

    def __init__(
        self,
        forward: Callable[[Any, Tensor], Tensor],
        size: tuple[int, int],
        **layers: nn.Module | nn.Parameter,
    ) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.features = forward
        self.last: nn.Module = nn.Identity()
        with torch.no_grad():
            self.last = nn.Linear(self.eval()(torch.rand(2, 3, *size)).shape[1], 5)

    def forward(self, images: Tensor) -> Tensor:
        out = self.features(self, images)
        return self.last(out.mean((2, 3)) if out.ndim == 4 else out)


def enliven(model: nn.Module, size: tuple[int, int], seed: int = 0) -> nn.Module:
    """Draw weights and measure statistics, so that covering an image changes logits visibly.

    Without statistics a deep network's activations grow or shrink by orders of magnitude, and what
    is left of covering its image drowns in rounding.
    """
    model.eval()  # or dropout would make statistics that differ from run to run
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            tensor.uniform_(low, high, generator=generator)

    norms = []
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
                uniform(module.weight, 0.6, 1.4)
                uniform(module.bias, -0.3, 0.3)
                norms.append(module)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                reach = (6 / module.weight[0].numel()) ** 0.5  # He et al. (2015), uniform
                uniform(module.weight, -reach, reach)
                uniform(module.bias, -0.2, 0.2)
        for norm in norms:
            if hasattr(norm, "reset_running_stats"):
                norm.reset_running_stats()
            norm.train()
            norm.momentum = 1.0
        model(torch.randn(4, 3, *size, generator=generator))
    return model.eval()


def network_of(model: nn.Module, size: tuple[int, int]) -> Network:
    transform = Transform(resize=size, crop=size)
    return Network(
        model, "test", weights="own", transform=transform, mean=MEAN, std=STD, device="cpu"
    )


@dataclass
class Truth:
    """The network as it was, in float64.

    Attributes:
        model: from normalised images to logits, float64.
        mean: per channel.
        std: per channel.
        together: images that run together.
    """

    model: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    together: int = 1

    @classmethod
    def of(cls, network: Network, together: int = 1) -> "Truth":
        return cls(copy.deepcopy(network.model).double(), network.mean, network.std, together)

    def logits(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, classes), float64."""
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (self.mean, self.std))
        x = (images.double() - mean[:, None, None]) / std[:, None, None]
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return _in_parts(self.model, x, self.together)


def _in_parts(model: nn.Module, images: Tensor, together: int) -> Tensor:
    return torch.cat([model(part).reshape(len(part), -1) for part in torch.split(images, together)])


def covered(
    image: Tensor, place: tuple[int, int], window: int, stride: int, fill: Tensor
) -> Tensor:
    """Return a copy of an image, (3, H, W), with the window's colour, (3,), over a place."""
    row, column = place
    image = image.clone()
    for y in range(row * stride, min(row * stride + window, image.shape[1])):
        for x in range(column * stride, min(column * stride + window, image.shape[2])):
            image[:, y, x] = fill
    return image


@dataclass
class Comparison:
    """Drops of logits at some places of some images, ours and the truth.

    Attributes:
        ours: (places,) float64.
        full: full inference in float32.
        truth: full inference in float64.
        largest: the largest logit.
    """

    ours: Tensor
    full: Tensor
    truth: Tensor
    largest: float

    @property
    def error(self) -> float:
        return float((self.ours - self.truth).abs().max())

    @property
    def allowed(self) -> float:
        """Four times what full inference errs by, or 32 units in the last place of the logits.

        Ours rounds as often as full inference does, but differences instead of activations. Where
        full inference happens to be almost exact, sums of hundreds of products still round, each
        to 24 bits.
        """
        theirs = float((self.full - self.truth).abs().max())
        return max(4 * theirs, 32 * 2**-24 * max(self.largest, self.effect))

    @property
    def effect(self) -> float:
        return float(self.truth.abs().max())

    def check(self, proves: float = 100) -> None:
        """Assert that the maps are right, and that wrong ones would have been seen."""
        said = f"error {self.error:.2g}, allowed {self.allowed:.2g}, effect {self.effect:.2g}"
        assert self.error <= self.allowed, said
        assert self.effect >= proves * self.allowed, f"proves nothing: {said}"


def compare(
    occlusion: Occlusion,
    truth: Truth,
    network: Network,
    images: Tensor,
    places: Sequence[tuple[int, int, int]],
    window: int,
    stride: int,
    fill: Sequence[float] | float | None,
) -> Comparison:
    """Compare maps of logits at places (image, row, column)."""
    colour = torch.tensor(network.mean if fill is None else fill, dtype=torch.float32).expand(3)
    with torch.inference_mode():
        found = occlusion.maps(images)
    numbers = torch.tensor([image for image, _, _ in places])
    targets = found.targets[numbers]
    hidden = torch.stack([covered(images[n], (r, c), window, stride, colour) for n, r, c in places])

    def drops(logits: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        whole, less = logits(images).double(), logits(hidden).double()
        picked = (whole[numbers] - less).gather(1, targets[:, None])[:, 0]
        return picked, whole

    expected, whole = drops(truth.logits)
    with torch.inference_mode():
        full, _ = drops(lambda x: _in_parts(network, x, truth.together))
    ours = torch.stack([found.drops[place] for place in places]).double()
    return Comparison(ours, full, expected, float(whole.abs().max()))


def corners_and(
    occlusion: Occlusion, images: int, sampled: int, seed: int = 0
) -> list[tuple[int, int, int]]:
    """Return the places at the four corners of the first image, and others drawn at random."""
    rows, columns = occlusion.grid
    found = [(0, r, c) for r in (0, rows - 1) for c in (0, columns - 1)]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(sampled):
        draw = torch.rand(3, generator=generator) * torch.tensor([images, rows, columns])
        found.append(tuple(int(number) for number in draw))  # type: ignore[arg-type]
    return found


def everywhere(occlusion: Occlusion, images: int) -> list[tuple[int, int, int]]:
    rows, columns = occlusion.grid
    return [(n, r, c) for n in range(images) for r in range(rows) for c in range(columns)]
