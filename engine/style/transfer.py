"""Style transfer: images with the content of one image in the style of another, or of several.

Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016).

    min over x of  a sum of content losses + b sum of style losses + v V(x)

with the losses of `fc7.engine.style.perceptual`, of features and Gram matrices. As in the paper a
style image is first brought to the size of the content, here with its own proportions; a style
scale other than 1 then enlarges or shrinks its strokes. With several scales x is found small first
and enlarged from each to the next, and content and style are resized by the same share: strokes
longer than the layers see come into reach so (Gatys et al., 2017, "Controlling Perceptual Factors
in Neural Style Transfer", section 6).

    found = style_images(network, contents, [starry_night])
    found = style_images(network, contents, [night, scream], StyleOptions(mix=(3, 1), scales=3))
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.models.sizes import Sizes
from fc7.engine.style.colours import Luminance, luminance, matched, recoloured
from fc7.engine.style.grams import at_scale, joined, mixed, mixture, rows_at_size
from fc7.engine.style.perceptual import Targets
from fc7.engine.style.picture import Pictures, after, descend, over_all
from fc7.engine.style.tiled import KEPT_BYTES, TiledPerceptual
from fc7.engine.style.transfer_options import StyleOptions
from fc7.engine.style.ways import Averaging
from fc7.engine.synthesis.evaluation import Way
from fc7.engine.synthesis.octaves import octave_sizes
from fc7.engine.synthesis.parametrisation import Parametrisation, SigmoidPixels
from fc7.engine.synthesis.randomness import Keys, Purpose, uniform
from fc7.engine.synthesis.rows import each_row
from fc7.engine.synthesis.tiles import usual_tile
from fc7.engine.words import sides

# Where a picture starts, in [0, 1]: nearer to black and white the sigmoid hardly moves. Nothing
# keeps the picture from going there later.
_MARGIN = 0.1
_WAYS: dict[str, Way] = {"max": "plain", "average": Averaging}
_MANY = 1 << 20


class Look:
    """A style, or several that are mixed.

    Args:
        images: at least one, each (3, H, W) or (1, 3, H, W), float in [0, 1] or uint8.
        mix: how much each counts; all alike if empty.
        names: of the images, for errors.

    Raises:
        OptionError: there are not as many weights as styles, or they are out of range.
        ValueError: there is no image, or it has another shape or dtype.
    """

    def __init__(
        self, images: Sequence[Tensor], mix: Sequence[float] = (), names: Sequence[str] = ()
    ) -> None:
        if not images:
            raise ValueError("no style; give one image at least")
        self.images = [_batch(image) for image in images]
        self.shares = mixture(len(images), mix)
        self.names = list(names) or ["a style image"] * len(images)


def style_images(
    network: Network,
    contents: Tensor,
    styles: Sequence[Tensor],
    options: StyleOptions | None = None,
    seeds: Sequence[int] | None = None,
    report: Callable[[int], None] | None = None,
) -> Pictures:
    """Paint images of one size in a style, or in a mixture of several.

    Args:
        network: the network.
        contents: (N, 3, H, W), float in [0, 1], N at least 1; of any size that reaches the layers.
        styles: one image or more, each (3, H, W) or (1, 3, H, W), of any size, float in [0, 1]
            or uint8.
        options: how.
        seeds: one a row, of its noise; `options.seed` for all if None.
        report: called with the evaluations so far, after each.

    Returns:
        Pictures in [0, 1], with the loss of each layer after each evaluation, scale after scale:
        curves are (N, scales x evaluations). Where colours are kept, totals and curves are those
        of the luminance.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, weights are not as many as styles, or an image is
            too small to reach a layer.
        QuestionError: nothing flows back to the pixels.
        ValueError: images have another shape or dtype, or seeds are too few.
    """
    options = options or StyleOptions()
    look = Look(styles, options.mix)
    transfer = Transfer(network, options, (contents.shape[-2], contents.shape[-1]))
    return transfer(contents, [look] * len(contents), seeds, report)


class Transfer:
    """A network made ready to paint contents of any size in any style.

    Args:
        network: the network.
        options: how; its mix is a `Look`'s.
        size: height and width of most images; how many best go through the network at once
            depends on it. The network's own if None.
        together: how many do, instead.
        way: from latents to pictures; a sigmoid if None.

    Attributes:
        options: how.
        judge: what compares images with their targets.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        options: StyleOptions | None = None,
        size: tuple[int, int] | None = None,
        together: int | None = None,
        way: Parametrisation | None = None,
    ) -> None:
        self.options = options or StyleOptions()
        self.options.check()
        own = self.options
        layers = own.layers(network)
        style = {name: share * own.style_weight for name, share in layers.style.items()}
        content = {name: share * own.content_weight for name, share in layers.content.items()}
        self.judge = TiledPerceptual(
            network,
            style,
            content,
            _WAYS[own.pooling],
            own.tile,
            together or images_together(network, own, _MANY, size or network.input_size),
        )
        self._network = network
        self._sizes = Sizes(network, self.judge.layers)
        pixels = way or SigmoidPixels(margin=_MARGIN)
        self._way = Luminance(pixels) if own.keep_colours else pixels

    def scales(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the sizes of an image in pixels, the smallest first.

        Raises:
            OptionError: the image itself is too small to reach the layers.
        """
        self._sizes.check(size, "an image")
        sizes = octave_sizes(size, self.options.scales, self.options.ratio)
        fits = [self._sizes.runs(each) for each in sizes]
        return sizes[: fits.index(False) if False in fits else len(sizes)][::-1]

    def __call__(
        self,
        contents: Tensor,
        looks: Sequence[Look],
        seeds: Sequence[int] | None = None,
        report: Callable[[int], None] | None = None,
    ) -> Pictures:
        """Paint images (N, 3, H, W) in [0, 1], each in its own look; see `style_images`."""
        if contents.ndim != 4 or contents.shape[1] != 3 or not contents.is_floating_point():
            raise ValueError(
                f"expected float images (N, 3, H, W) in [0, 1], not {contents.dtype} "
                f"{tuple(contents.shape)}"
            )
        seeds = [self.options.seed] * len(contents) if seeds is None else seeds
        if not 0 < len(contents) == len(looks) == len(seeds):
            raise ValueError(
                f"{len(contents)} images need as many styles and seeds, and one at least, not "
                f"{len(looks)} and {len(seeds)}"
            )
        own = contents.detach().to(self._network.device, torch.float32).contiguous()
        sizes = self.scales((own.shape[2], own.shape[3]))
        found: list[Pictures] = []
        start = self._start(own, sizes[0], seeds)
        for size in sizes:
            if found:
                start = rows_at_size(found[-1].images, size)
            targets = self.targets(own, size, looks)
            done = len(found) * self.options.evaluations
            told = after(report, done)
            found.append(descend(self.judge, targets, start, self.options, self._way, told))
        images = found[-1].images
        if self.options.keep_colours:
            images = each_row(recoloured, images, own)
        return Pictures(
            images,
            found[-1].totals,
            {
                term: torch.cat(
                    [over_all(one.curves[term], self.options.evaluations) for one in found], 1
                )
                for term in found[-1].curves
            },
            torch.stack([one.evaluations for one in found]).sum(0),
        )

    def _start(self, contents: Tensor, size: tuple[int, int], seeds: Sequence[int]) -> Tensor:
        if self.options.start == "content":
            return rows_at_size(contents, size)
        keys = Keys(np.array(seeds, np.int64), np.zeros(len(seeds), np.int64))
        return uniform(keys, Purpose.START, (3, *size)).to(contents.device)

    def targets(self, contents: Tensor, size: tuple[int, int], looks: Sequence[Look]) -> Targets:
        """Return what pictures of a size are to be; see `__call__`."""
        images = rows_at_size(contents, size)
        if self.options.keep_colours:
            images = each_row(luminance, images)
        known: dict[Look, dict[str, Tensor]] = {}
        rows = []
        for row, look in enumerate(looks):
            if self.options.keep_colours:  # a style's brightness follows each image's
                rows.append(self._grams(look, size, images[row : row + 1]))
                continue
            if look not in known:
                known[look] = self._grams(look, size)
            rows.append(known[look])
        return self.judge.targets(images if self.judge.content else None, joined(rows))

    def _grams(
        self, look: Look, size: tuple[int, int], image: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return a look's Gram matrices, (1, C, C) by layer, for pictures of a size."""
        found = []
        for style, name in zip(look.images, look.names, strict=True):
            scale = self.options.style_scale * max(size) / max(style.shape[2:])
            try:
                resized = at_scale(_floats(style.to(self._network.device)), scale)
            except OptionError as error:
                raise OptionError(f"{name}: {error}") from error
            of_style = resized.shape[2], resized.shape[3]
            if not self._sizes.runs(of_style):
                raise OptionError(
                    f"{name} becomes {sides(*of_style)} pixels for a picture of {sides(*size)}, "
                    f"too few to reach {', '.join(self.judge.layers)}; ask for larger pictures, "
                    "or a larger style scale"
                )
            found.append(self.judge.grams(resized if image is None else matched(resized, image)))
        return mixed(found, look.shares)


def images_together(
    network: Network, options: StyleOptions, most: int, size: tuple[int, int]
) -> int:
    """Return how many images of a size go through the network at once, at most `most`.

    Unless tiles are asked for, such a pass keeps no more than that of one tile does.
    """
    count = images_a_pass(network, most, size)
    if options.tile is None:
        layers = options.layers(network)
        side = usual_tile(network, [*layers.style, *layers.content], KEPT_BYTES)
        count = min(count, side**2 // math.prod(size))
    return max(1, count)


def _batch(image: Tensor) -> Tensor:
    """Return a style image as (1, 3, H, W), of the dtype that it has."""
    batch = image[None] if image.ndim == 3 else image
    fits = batch.ndim == 4 and batch.shape[:2] == (1, 3)
    if not fits or not (batch.is_floating_point() or batch.dtype == torch.uint8):
        raise ValueError(
            f"expected a style image (3, H, W), float in [0, 1] or uint8, not {image.dtype} "
            f"{tuple(image.shape)}"
        )
    return batch.detach()


def _floats(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float().div_(255)
