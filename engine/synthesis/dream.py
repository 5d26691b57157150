"""DeepDream: images in which a network sees more of what it sees already.

Mordvintsev, Olah and Tyka, "Inceptionism" (Google Research, 2015), and the notebook that they
published with it. An image is climbed up the gradient of a layer's activation, from a small copy of
it (an octave) to itself; what was painted into one octave, the detail, is enlarged and added to the
next. Each step

    image += step / mean |gradient| * gradient,     clamped to [0, 1]

is taken with the image rolled by a random distance, so that no place is special. The notebook's
images are of 255 grey levels and are not divided by a deviation: so is the step here, of pixels.
Beside what a pass keeps, which has a bound, a dream takes about six times its image's float32.

    dreams = dream_images(network, images, "conv4", DreamOptions(octaves=3))
    dreams = dream_images(network, images, channel("conv4", 5) + 0.1 * activation_norm("conv3"))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.sizes import Sizes
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.objectives import Objective, activation_norm
from fc7.engine.synthesis.octaves import octave_sizes, resized
from fc7.engine.synthesis.randomness import Keys, Purpose, uniform
from fc7.engine.synthesis.tiles import WindowedGradient, Windows, usual_tile, windows_of
from fc7.engine.synthesis.transforms import rolled

_JITTER, _JITTER_SIDE = 32, 224
_LEVELS = 255


@dataclass(frozen=True)
class DreamOptions:
    """How to dream.

    Attributes:
        octaves: sizes of an image, its own among them; fewer where the smallest would be too small
            for the network.
        ratio: of one octave's side to the next smaller one's.
        steps: of each octave.
        step_size: by how many of 255 grey levels a step moves a pixel on average.
        jitter: the longest roll in pixels, along each axis; 32 of images of 224 pixels or more,
            proportionally less of smaller ones, if None. At least half a tile of larger ones.
        tile: the longest side in pixels of what goes through the network at once; larger images
            go in windows. So that a pass keeps no more than a gibibyte if None.
        seed: of the rolls.
    """

    octaves: int = 4
    ratio: float = 1.4
    steps: int = 10
    step_size: float = 1.5
    jitter: int | None = None
    tile: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        for name, value, least in (
            ("octaves", self.octaves, 1),
            ("steps", self.steps, 1),
            ("jitter", self.jitter, 0),
            ("tile", self.tile, 1),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise OptionError(f"{name} is {value}; it is {least} or more")
        if not 1 < self.ratio < float("inf"):
            raise OptionError(f"ratio is {self.ratio}; one octave is larger than the next, by 1.4")
        if not 0 < self.step_size < float("inf"):
            raise OptionError(f"step_size is {self.step_size}; it is above 0, such as 1.5")


@dataclass(frozen=True)
class Dreams:
    """What N images became.

    Attributes:
        images: (N, 3, H, W) float32 in [0, 1].
        before: (N,) float32, what the images scored.
        after: (N,) float32, what they score now.
    """

    images: Tensor
    before: Tensor
    after: Tensor

    @property
    def gain(self) -> Tensor:
        """By how much the score rose, (N,) float32, as a share of what it was; 0 of none."""
        rise = self.after - self.before
        return torch.where(rise == 0, 0.0, rise / self.before.abs())


def dream_images(
    network: Network,
    images: Tensor,
    objective: str | Objective | Sequence[Objective],
    options: DreamOptions | None = None,
    seeds: Sequence[int] | None = None,
) -> Dreams:
    """Dream from images of one size.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], N at least 1; of any size that reaches the layers.
        objective: of all rows, or one a row, of one form; a layer's name stands for its
            `activation_norm`.
        options: how.
        seeds: one a row, of its rolls; `options.seed` for all if None.

    Returns:
        A row's dream does not depend on the other rows. On the network's device.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, the images are too small to reach a layer, or too
            large for an objective that looks at the whole of them.
        QuestionError: nothing flows back to the pixels.
        ValueError: the images have another shape or dtype, or objectives or seeds are too few.
    """
    dreamer = Dreamer(network, objectives_of(objective, len(images)), options)
    return dreamer(images, seeds_of(seeds, len(images), dreamer.options))


class Dreamer:
    """A network made ready to dream of some objectives, of images of any size.

    Args:
        network: the network.
        objectives: one a row, of one form.
        options: how.

    Attributes:
        options: how.
        tile: the longest side in pixels of what goes through the network at once.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        objectives: Sequence[Objective],
        options: DreamOptions | None = None,
    ) -> None:
        self.options = options or DreamOptions()
        self.options.check()
        for objective in dict.fromkeys(objectives):
            objective.check(network)
        self._network, self._objectives = network, objectives
        layers = objectives[0].layers
        self._evaluator = Evaluator(network, layers)
        self._sizes = Sizes(network, layers)
        self.tile = self.options.tile or usual_tile(network, layers)

    def octaves(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the octaves of an image in pixels, the smallest first.

        Raises:
            OptionError: the image itself is too small to reach the layers, or a tile of it.
        """
        windows = windows_of(size, self.tile)
        self._sizes.check(windows.window, "an image" if windows.is_whole else "a tile")
        sizes = octave_sizes(size, self.options.octaves, self.options.ratio)
        fits = [self._sizes.runs(windows_of(each, self.tile).window) for each in sizes]
        count = fits.index(False) if False in fits else len(sizes)
        return sizes[:count][::-1]

    def __call__(self, images: Tensor, seeds: Sequence[int], frame: int = 0) -> Dreams:
        """Dream from images (N, 3, H, W) in [0, 1], a row for each of the first N objectives.

        Args:
            images: of one size.
            seeds: one a row.
            frame: how many dreams there were before this one; each rolls otherwise.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected float images (N, 3, H, W) in [0, 1], not {images.dtype} "
                f"{tuple(images.shape)}"
            )
        objectives = self._objectives[: len(images)]
        if not len(images) == len(objectives) == len(seeds):
            raise ValueError(
                f"{len(images)} images need as many objectives and seeds, not {len(objectives)} "
                f"and {len(seeds)}"
            )
        own = images.detach().to(self._network.device, torch.float32).contiguous()
        full = own.shape[2], own.shape[3]
        sizes = self.octaves(full)
        bases = [own]
        for size in sizes[-2::-1]:
            bases.append(resized(bases[-1], size))
        step, detail = frame * self.options.octaves * self.options.steps, None
        while bases:
            base = bases.pop()
            size = base.shape[2], base.shape[3]
            windows = windows_of(size, self.tile)
            reach = self._reach(full, windows)
            gradient = WindowedGradient(self._network, self._evaluator, objectives, windows)
            dream = base if detail is None else resized(detail, size) + base
            if not bases:
                before = gradient.scores(own)
            for _ in range(self.options.steps):
                dream = self._stepped(dream, gradient, rolls_of(seeds, step, reach))
                step += 1
            detail = dream - base
        return Dreams(dream, before, gradient.scores(dream))

    def _stepped(self, images: Tensor, gradient: WindowedGradient, rolls: Tensor) -> Tensor:
        """Return the images a step further up."""
        found = rolled(gradient(rolled(images, rolls)).contiguous(), -rolls)
        # A row at a time, for then a mean is added up in the same order in any company.
        means = torch.stack([row.abs().mean() for row in found])
        rates = torch.where(means == 0, 0.0, self.options.step_size / _LEVELS / means)
        return found.mul_(rates[:, None, None, None]).add_(images).clamp_(0, 1)

    def _reach(self, size: tuple[int, int], windows: Windows) -> tuple[int, int]:
        """Return how far rows and columns roll.

        Args:
            size: of the whole image, in pixels; its octaves roll as far, as in the notebook.
            windows: of an octave; where there are several, it rolls as far as from seam to seam.
        """
        jitter = self.options.jitter
        if jitter is None:
            jitter = round(_JITTER * min(1.0, min(size) / _JITTER_SIDE))
        down, right = (
            jitter if whole == part else max(jitter, part // 2)
            for whole, part in zip(windows.size, windows.window, strict=True)
        )
        return down, right


def rolls_of(seeds: Sequence[int], step: int, reach: tuple[int, int]) -> Tensor:
    """Return how far rows roll down and to the right, (N, 2) int64, each in [-reach, reach].

    A row's roll depends on its seed and on the step alone.
    """
    keys = Keys(np.array(seeds, np.int64), np.full(len(seeds), step, np.int64))
    most = torch.tensor(reach)
    shares = uniform(keys, Purpose.JITTER, (2,)).double()
    return (shares * (2 * most + 1)).long() - most


def objectives_of(objective: str | Objective | Sequence[Objective], count: int) -> list[Objective]:
    """Return an objective for each of so many rows; a layer's name stands for its norm."""
    if isinstance(objective, str):
        objective = activation_norm(objective)
    return [objective] * count if isinstance(objective, Objective) else list(objective)


def seeds_of(seeds: Sequence[int] | None, count: int, options: DreamOptions) -> list[int]:
    """Return a seed for each of so many rows."""
    return [options.seed] * count if seeds is None else list(seeds)
