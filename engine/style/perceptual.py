"""How far images are from a style and a content, layer by layer, and the way there.

    content, layer l:  |F(x) - P|^2 / |P|^2          P the content image's features
    style, layer l:    |G(x) - T|^2 / |T|^2          T a Gram matrix, or a mixture of several
    total:             the sum of both, each layer by its weight

after Gatys, Ecker and Bethge (2016), equations 1 to 7. Where this departs from the paper: each term
is a share of what is wanted, where the paper divides by 4 C^2 (H W)^2 and takes a VGG19 whose
weights were scaled so that every channel's mean activation is 1. Layers then count alike in any
network, learnt or random, and weights keep their meaning from one to the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.style.grams import Grams
from fc7.engine.synthesis.evaluation import Evaluator, Way
from fc7.engine.synthesis.objectives import Outputs
from fc7.engine.synthesis.rows import each_row
from fc7.kernels.gram import gram
from fc7.kernels.gram_loss import gram_loss


@dataclass(frozen=True)
class Targets:
    """What N images are to look like; each layer has a row for each of them.

    Attributes:
        grams: by style layer, (N, C, C) float32, or (1, C, C) for all of them.
        content: by content layer, (N, C, H, W) float32.
    """

    grams: Grams
    content: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """How far N images are from their targets.

    Attributes:
        total: (N,) float32, the weighted sum.
        losses: by term, (N,) float32, without weights; a term is "style LAYER" or "content LAYER".
        gradients: (N, 3, H, W) float32, of the total by the pixels in [0, 1].
    """

    total: Tensor
    losses: Mapping[str, Tensor]
    gradients: Tensor


class Judge(Protocol):
    """From images and targets to how far they are apart."""

    def __call__(self, images: Tensor, targets: Targets) -> Judgement:
        """Return losses and gradients of images (N, 3, H, W)."""


class Perceptual:
    """A network cut off behind the deepest of the layers that style and content are read from.

    Args:
        network: the network.
        style: weights by layer; may be empty.
        content: likewise; one of the two names a layer.
        way: the mode that passes run under: see `Evaluator`.
        size: height and width of the images in pixels; the network's own if None.
        together: how many images go through the network at once; what is fastest if None. A row's
            last bits depend on that, and on nothing else of its company.

    Raises:
        LayerError: there is no such layer.
        OptionError: no layer is named.
    """

    def __init__(
        self,
        network: Network,
        style: Mapping[str, float],
        content: Mapping[str, float] | None = None,
        way: Way = "plain",
        size: tuple[int, int] | None = None,
        together: int | None = None,
    ) -> None:
        self.style = {network.layer(name).name: weight for name, weight in style.items()}
        self.content = {
            network.layer(name).name: weight for name, weight in (content or {}).items()
        }
        self.layers = tuple(dict.fromkeys([*self.style, *self.content]))
        if not self.layers:
            raise OptionError("neither style nor content is asked for; name a layer of one")
        self._evaluator = Evaluator(network, self.layers, rule=way, size=size, together=together)

    @property
    def together(self) -> int:
        """How many images go through the network at once."""
        return self._evaluator.together

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms' names, in order."""
        return (
            *(f"style {name}" for name in self.style),
            *(f"content {name}" for name in self.content),
        )

    def targets(self, content: Tensor | None, grams: Grams) -> Targets:
        """Return what images with this content, (N, 3, H, W) in [0, 1], and these Grams are.

        Args:
            content: None where no content layer is asked of.
            grams: (N, C, C) by layer, or (1, C, C) for all.
        """
        if content is None:
            return Targets(grams)
        rows = len(content)
        return Targets(
            {name: each.expand(rows, -1, -1) for name, each in grams.items()},
            self.features(content),
        )

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the content layers' features of images (N, 3, H, W) in [0, 1], (N, C, H, W)."""
        found = self._read(images)
        return {name: found[name].float() for name in self.content}

    def grams(self, images: Tensor) -> dict[str, Tensor]:
        """Return the Gram matrices of images (N, 3, H, W) in [0, 1], by layer, (N, C, C)."""
        found = self._read(images)
        return {name: gram(found[name]) for name in self.style}

    def __call__(self, images: Tensor, targets: Targets) -> Judgement:
        """Return how far images (N, 3, H, W) are from their targets.

        Raises:
            QuestionError: nothing flows back to the pixels.
        """
        pieces: dict[int, dict[str, Tensor]] = {}

        def score(outputs: Outputs, rows: slice) -> Tensor:
            found = self.losses(outputs, targets, rows)
            pieces[rows.start] = {term: loss.detach() for term, loss in found.items()}
            return self.total(found)

        evaluation = self._evaluator(images, score)
        losses = {
            term: torch.cat([pieces[start][term] for start in sorted(pieces)])
            for term in self.terms
        }
        return Judgement(evaluation.scores, losses, evaluation.gradients)

    def losses(
        self, outputs: Outputs, targets: Targets, rows: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Return the terms, (n,), of what the layers return of some rows, (n, C, H, W)."""
        found = {}
        for name in self.style:
            wanted = targets.grams[name]
            wanted = wanted.expand(len(outputs[name]), -1, -1) if len(wanted) == 1 else wanted[rows]
            loss = gram_loss(outputs[name], wanted)
            found[f"style {name}"] = loss / nonzero(each_row(mean_square, wanted))
        for name in self.content:
            wanted = targets.content[name][rows]
            loss = each_row(mean_square, outputs[name].float() - wanted)
            found[f"content {name}"] = loss / nonzero(each_row(mean_square, wanted))
        return found

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms, (n,)."""
        weighted = [weight * losses[f"style {name}"] for name, weight in self.style.items()]
        weighted += [weight * losses[f"content {name}"] for name, weight in self.content.items()]
        return torch.stack(weighted).sum(0)

    def _read(self, images: Tensor) -> Mapping[str | None, Tensor]:
        return self._evaluator.outputs(images)


def mean_square(values: Tensor) -> Tensor:
    """Return the mean of each row's squares: (N, ...) -> (N,)."""
    return values.flatten(1).square().mean(1)


def nonzero(squares: Tensor) -> Tensor:
    """Return squares, with 1 for 0: where nothing is wanted, distances stand for themselves."""
    return torch.where(squares > 0, squares, torch.ones_like(squares))
