"""Textures from a patch: pictures of any size whose Gram matrices are the patch's.

    min over x of  sum over layers l of  w_l |G_l(x) - G_l(patch)|^2 / |G_l(patch)|^2

Gatys, Ecker and Bethge (2015), "Texture synthesis using convolutional neural networks", by L-BFGS
from noise, with pooling by the mean; at the end, if asked, the histogram of colours is matched, as
in the code they published, which takes the picture away from the Gram matrices again.

Where this departs from the paper: layers count as shares (see `Perceptual`), the noise has the
patch's own colours, and convolutions pad with a mirror, not with black, for a small patch has more
of a border than a large picture can take on. The picture may lie on a torus, so that it tiles. It
is made from coarse to fine, each octave twice the last, so that what is larger than a receptive
field finds its place first; the paper has one octave. Filters need not be learnt (Ustyuzhaninov et
al., 2016, "Texture synthesis using shallow convolutional networks with random filters").

    made = synthesise(load_model("vgg19"), patches, TextureOptions(size=(512, 512)))
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.receptive import receptive_field
from fc7.engine.models.sizes import Sizes
from fc7.engine.style.grams import rows_at_size
from fc7.engine.style.histogram import HISTOGRAMS, NONE, check_histogram
from fc7.engine.style.layers import texture_layers
from fc7.engine.style.perceptual import Perceptual
from fc7.engine.style.picture import DescentOptions, after, descend
from fc7.engine.style.ways import Mirrored, MirroredAveraging, Wrapped, WrappedAveraging
from fc7.engine.synthesis.evaluation import Way
from fc7.engine.synthesis.keyed import keys_of_rows
from fc7.engine.synthesis.randomness import Keys, Purpose, uniform

POOLINGS = ("average", "max")
# By pooling: how a patch is read, and a picture that does not tile; and one that does.
_WAYS: Mapping[str, tuple[Way, Way]] = {
    "average": (MirroredAveraging, WrappedAveraging),
    "max": (Mirrored, Wrapped),
}


@dataclass(frozen=True)
class TextureOptions:
    """How textures are made.

    Attributes:
        size: height and width of the pictures in pixels; twice the patch's sides if None.
        layers: whose Gram matrices are compared, "NAME" or "NAME=WEIGHT"; see `texture_layers`.
        tileable: whether the picture continues itself on all sides.
        pooling: "average", or "max" as the network has it.
        octaves: sizes of the picture, its own among them, each half the next; fewer where a patch
            that small does not reach the layers.
        evaluations: passes through the network and back, in each octave.
        pairs: that L-BFGS remembers.
        histogram: matched at the end: of "channels", of "colours" along their principal axes, or
            "none".
        seed: of the noise.
    """

    size: tuple[int, int] | None = None
    layers: tuple[str, ...] = ()
    tileable: bool = False
    pooling: str = "average"
    octaves: int = 2
    evaluations: int = 300
    pairs: int = 20
    histogram: str = NONE
    seed: int = 0

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        if self.size is not None and min(self.size) < 1:
            raise OptionError(f"size is {self.size}; each side is 1 or more")
        if self.octaves < 1 or self.seed < 0:
            raise OptionError(
                f"octaves is {self.octaves} and seed {self.seed}; they are 1 and 0 or more"
            )
        if self.pooling not in POOLINGS:
            raise OptionError(f"no pooling {self.pooling!r}; there are {' and '.join(POOLINGS)}")
        check_histogram(self.histogram)
        self.descent.check()

    @property
    def descent(self) -> DescentOptions:
        """How an octave comes down."""
        return DescentOptions(self.evaluations, variation=0.0, pairs=self.pairs)


@dataclass(frozen=True)
class Textures:
    """What was made of N patches.

    Attributes:
        images: (N, 3, H, W) float32 in [0, 1].
        before: (N,) float32, the loss of the noise, of the picture's own size.
        after: (N,) float32, of the picture, its histogram matched.
        losses: by term, without its weight, (N,) float32, likewise of the picture.
        curves: likewise, (N, E) float32, of the last octave, before histograms are matched.
        evaluations: (N,) int64, of the last octave.
    """

    images: Tensor
    before: Tensor
    after: Tensor
    losses: Mapping[str, Tensor]
    curves: Mapping[str, Tensor]
    evaluations: Tensor

    @property
    def ratio(self) -> Tensor:
        """What is left of the noise's loss, (N,) float32; 0 where it had none."""
        return torch.where(self.before == 0, 0.0, self.after / self.before)


def synthesise(
    network: Network,
    patches: Tensor,
    options: TextureOptions | None = None,
    keys: Keys | None = None,
) -> Textures:
    """Make a texture from each of N patches of one size.

    Args:
        network: the network.
        patches: (N, 3, h, w), float in [0, 1], N at least 1.
        options: how.
        keys: of the rows' noise; of rows 0 to N - 1 of the options' seed if None.

    Returns:
        A row's texture does not depend on the other rows. On the network's device.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, the patches or the pictures are too small to reach
            a layer, or the pictures' sides cannot tile.
        QuestionError: nothing flows back to the pixels, or a pooling has no mean.
        ValueError: the patches have another shape or dtype, or keys are too few.
    """
    return Synthesiser(network, options)(patches, keys)


class Synthesiser:
    """A network made ready to make textures of patches of any size.

    Args:
        network: the network.
        options: how.

    Attributes:
        layers: whose Gram matrices are compared, each with its share.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(self, network: Network, options: TextureOptions | None = None) -> None:
        self.options = options or TextureOptions()
        self.options.check()
        self.layers = texture_layers(network, self.options.layers)
        self._network = network
        self._sizes = Sizes(network, self.layers)

    @property
    def terms(self) -> tuple[str, ...]:
        """The losses' names, in order."""
        return tuple(f"style {name}" for name in self.layers)

    @cached_property
    def stride(self) -> tuple[int, int]:
        """What the sides of a picture that tiles are multiples of, in pixels."""
        found = [receptive_field(self._network, name).stride for name in self.layers]
        down, across = (math.lcm(*(max(1, one[axis]) for one in found)) for axis in range(2))
        return down, across

    def size(self, patch: tuple[int, int]) -> tuple[int, int]:
        """Return the pictures' height and width of patches of a size.

        Raises:
            OptionError: patch or picture do not reach the layers, or the picture cannot tile.
        """
        self._sizes.check(patch, "a patch")
        size = self.options.size
        if size is None:
            return self._tiling((2 * patch[0], 2 * patch[1]))
        self._sizes.check(size, "a picture")
        if self.options.tileable and self._tiling(size) != size:
            (down, across), (height, width) = self.stride, self._tiling(size)
            raise OptionError(
                f"a picture of {size[0]} x {size[1]} pixels does not tile: the layers' steps are "
                f"{down} x {across} pixels; ask for {height} x {width}"
            )
        return size

    def octaves(self, patch: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return sizes of patch and picture, the smallest first.

        Raises:
            OptionError: as of `size`.
        """
        size, found = self.size(patch), []
        for octave in range(self.options.octaves):
            smaller = [(round(a / 2**octave), round(b / 2**octave)) for a, b in (patch, size)]
            if not all(map(self._sizes.runs, smaller)):
                break
            found.append((smaller[0], self._tiling(smaller[1])))
        return found[::-1]

    def __call__(
        self,
        patches: Tensor,
        keys: Keys | None = None,
        report: Callable[[int], None] | None = None,
    ) -> Textures:
        """Make a texture from each patch; see `synthesise`.

        Args:
            patches: (N, 3, h, w), float in [0, 1].
            keys: of the rows' noise.
            report: called with the evaluations so far, after each.
        """
        _check_patches(patches)
        options, count = self.options, len(patches)
        if keys is None:
            keys = keys_of_rows(options.seed, range(count), [0] * count)
        if len(keys) != count:
            raise ValueError(f"{count} patches need as many keys, not {len(keys)}")
        own = patches.detach().to(self._network.device, torch.float32).contiguous()
        octaves = self.octaves((own.shape[2], own.shape[3]))
        size = octaves[-1][1]
        reader, judge = (
            Perceptual(self._network, self.layers, way=way, size=size)
            for way in _WAYS[options.pooling]
        )
        judge = judge if options.tileable else reader
        picture, done = None, 0
        for patch_size, picture_size in octaves:
            patch = rows_at_size(own, patch_size)
            targets = judge.targets(None, reader.grams(patch))
            if picture is None:
                picture = noise(patch, keys, picture_size)
            start = rows_at_size(picture, picture_size)
            found = descend(judge, targets, start, options.descent, report=after(report, done))
            picture, done = found.images, done + options.evaluations
        assert picture is not None
        matched = HISTOGRAMS[options.histogram](picture, own)
        first, last = judge(noise(own, keys, size), targets), judge(matched, targets)
        curves = {term: found.curves[term] for term in self.terms}
        return Textures(matched, first.total, last.total, last.losses, curves, found.evaluations)

    def _tiling(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return a size itself, or the next larger one that tiles where it has to."""
        if not self.options.tileable:
            return size
        height, width = (
            -(-side // step) * step for side, step in zip(size, self.stride, strict=True)
        )
        return height, width


def noise(patches: Tensor, keys: Keys, size: tuple[int, int]) -> Tensor:
    """Return pictures whose every pixel is drawn from the row's patch, (N, 3, H, W).

    Args:
        patches: (N, 3, h, w).
        keys: of the rows.
        size: height and width.
    """
    pixels = patches.flatten(2)
    drawn = (uniform(keys, Purpose.START, (math.prod(size),)).double() * pixels.shape[2]).long()
    places = drawn.to(patches.device)[:, None].expand(-1, 3, -1)
    return pixels.gather(2, places).view(len(patches), 3, *size)


def _check_patches(patches: Tensor) -> None:
    is_right = patches.ndim == 4 and patches.shape[1] == 3 and patches.is_floating_point()
    if not is_right or not len(patches):
        raise ValueError(
            f"expected float patches (N, 3, h, w) in [0, 1], not {patches.dtype} "
            f"{tuple(patches.shape)}"
        )
