"""How far images are from a style and a content, and the way there, tile by tile.

An image's Gram matrices, and its content terms, are means over positions, and so the sums of its
tiles' means, each by the share s of the positions that the tile owns:

    G = sum over tiles t of s_t G_t
    dL/dx = sum over tiles of (dL/dG) s_t dG_t/dx

A first pass adds up the whole image's G. With that dL/dG is known, and a second pass takes each
tile's part of the gradient back to the pixels that its own positions see. Nothing is approximated:
it is what `Perceptual` returns within rounding, at twice the passes forward and the pixels that
tiles have in common, while memory is that of one tile's way back.
"""

import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.style.perceptual import Judgement, Perceptual, Targets, mean_square, nonzero
from fc7.engine.style.tiling import Tile, Tiling, tiling_of
from fc7.engine.synthesis.evaluation import Way
from fc7.engine.synthesis.objectives import Outputs
from fc7.engine.synthesis.rows import each_row
from fc7.engine.synthesis.tiles import usual_tile
from fc7.kernels.gram import gram

KEPT_BYTES = 2 << 30
"""Of a tile's results, at most, unless a tile's side is given."""


class TiledPerceptual(Perceptual):
    """A network that sees images a tile at a time, and returns what it would of the whole.

    Args:
        network: the network.
        style: weights by layer; may be empty.
        content: likewise; one of the two names a layer.
        way: the mode that passes run under. Gradients add up over tiles only where its way back is
            linear in them, which "guided", "deconv" and "redirected" are not.
        tile: side of the largest tile in pixels, what its positions see beyond it included; if
            None, that of which a pass keeps 2 GiB. An image of which a pass keeps no more than of
            a tile is not divided.
        together: how many whole images go through the network at once: see `Perceptual`. Tiles go
            one by one.

    Raises:
        LayerError: there is no such layer.
        OptionError: the way's gradients do not add up.
    """

    def __init__(
        self,
        network: Network,
        style: Mapping[str, float],
        content: Mapping[str, float] | None = None,
        way: Way = "plain",
        tile: int | None = None,
        together: int = 1,
    ) -> None:
        if isinstance(way, str) and way != "plain":
            raise OptionError(
                f"gradients by the rule {way!r} do not add up over tiles; take plain, or images "
                "that fit one tile"
            )
        super().__init__(network, style, content, way, together=together)
        self.tile = tile or usual_tile(network, self.layers, KEPT_BYTES)
        self._is_given = tile is not None
        self._one_by_one = copy.copy(self._evaluator)
        self._one_by_one.together = 1
        self._network = network
        self._tilings: dict[tuple[int, int], Tiling] = {}

    def tiles(self, size: tuple[int, int]) -> int:
        """Return how many tiles images of a height and width in pixels are divided into.

        Raises:
            OptionError: see `tiling_of`.
        """
        return 1 if self._fits(size) else len(self._tiling(size).tiles)

    def grams(self, images: Tensor) -> dict[str, Tensor]:
        """Return the Gram matrices of images (N, 3, H, W) in [0, 1], by layer, (N, C, C).

        Raises:
            OptionError: see `tiling_of`.
        """
        if self._fits(_size(images)):
            return super().grams(images)
        found = self._summed(images, Targets({}))
        return {name: found[f"style {name}"].float() for name in self.style}

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the content layers' features of images (N, 3, H, W) in [0, 1], (N, C, H, W).

        Raises:
            OptionError: see `tiling_of`.
        """
        if self._fits(_size(images)):
            return super().features(images)
        tiling, found = self._tiling(_size(images)), dict[str, Tensor]()
        for tile in tiling.tiles:
            outputs = self._one_by_one.outputs(tile.crop(images))
            for name in self.content:
                own = tile.of_tile(name, outputs[name])
                if name not in found:
                    shape = (*own.shape[:2], *tiling.grids[name])
                    found[name] = own.new_empty(shape, dtype=torch.float32)
                tile.of_image(name, found[name]).copy_(own)
        return found

    def __call__(self, images: Tensor, targets: Targets) -> Judgement:
        """Return how far images (N, 3, H, W) are from their targets.

        Raises:
            OptionError: see `tiling_of`.
            QuestionError: nothing flows back to the pixels.
        """
        if self._fits(_size(images)):
            return super().__call__(images, targets)
        sums = self._summed(images, targets)
        with torch.inference_mode(False), torch.enable_grad():
            means = {term: each.clone().requires_grad_() for term, each in sums.items()}
            losses = self._losses_of(means, targets)
            total = self.total(losses)
            slopes = torch.autograd.grad(total.sum(), list(means.values()))
        by_mean = {term: slope.float() for term, slope in zip(means, slopes, strict=True)}
        gradients = torch.zeros(images.shape, device=self._network.device)
        tiling = self._tiling(_size(images))
        for tile in tiling.tiles:

            def score(outputs: Outputs, rows: slice, tile: Tile = tile) -> Tensor:
                """Return a tile's means times the slopes by them: their gradient is the total's."""
                scores = [
                    (by_mean[term][rows] * part).reshape(len(part), -1).sum(1)
                    for term, part in self._parts(tiling, tile, outputs, targets, rows)
                ]
                return torch.stack(scores).sum(0)

            tile.crop(gradients).add_(self._one_by_one(tile.crop(images), score).gradients)
        return Judgement(
            total.detach().float(),
            {term: loss.detach().float() for term, loss in losses.items()},
            gradients,
        )

    def _summed(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Return the whole images' means by term, float64: see `_parts`."""
        tiling, found = self._tiling(_size(images)), dict[str, Tensor]()
        for tile in tiling.tiles:
            outputs = self._one_by_one.outputs(tile.crop(images))
            for term, part in self._parts(tiling, tile, outputs, targets):
                found[term] = found[term] + part.double() if term in found else part.double()
        return found

    def _parts(
        self,
        tiling: Tiling,
        tile: Tile,
        outputs: Outputs,
        targets: Targets,
        rows: slice = slice(None),
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield terms and what a tile adds to their means, by its share of the positions.

        Means are Gram matrices, (n, C, C), and squared distances of features, (n,), of as many
        content layers as have targets.
        """
        for name in self.style:
            own = tile.of_tile(name, outputs[name])
            yield f"style {name}", gram(own) * tiling.share(tile, name)
        for name, wanted in targets.content.items():
            apart = tile.of_tile(name, outputs[name]).float() - tile.of_image(name, wanted[rows])
            yield f"content {name}", each_row(mean_square, apart) * tiling.share(tile, name)

    def _losses_of(self, means: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Return the terms, (N,) float64, of whole images' means."""
        losses = {}
        for name in self.style:
            wanted = targets.grams[name].double()
            apart = each_row(mean_square, means[f"style {name}"] - wanted)
            losses[f"style {name}"] = apart / nonzero(each_row(mean_square, wanted))
        for name in self.content:
            wanted = targets.content[name]
            losses[f"content {name}"] = means[f"content {name}"] / nonzero(
                each_row(mean_square, wanted).double()
            )
        return losses

    def _fits(self, size: tuple[int, int]) -> bool:
        long = not self._is_given and math.prod(size) <= self.tile**2
        return long or max(size) <= self.tile

    def _tiling(self, size: tuple[int, int]) -> Tiling:
        if size not in self._tilings:
            self._tilings[size] = tiling_of(self._network, self.layers, size, self.tile)
        return self._tilings[size]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
