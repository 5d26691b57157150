"""One backward pass: from one number a row back to the row's pixels.

    pixels -> network -> score(output), (N,) -> d score / d pixels, (N, 3, H, W)

Rows share a batch and nothing else: the network is frozen and in evaluation mode, so a row's
gradient is that of its own score.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fc7.engine.errors import QuestionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.models.rectified import Rectified
from fc7.engine.models.targets import check_classes
from fc7.kernels.guided_relu import Rule

IMAGES_TOGETHER = 16
"""Images in one pass where nobody says how many: what they keep stays below a gigabyte."""


@dataclass(frozen=True)
class ClassGradients:
    """What one pass says of a class for N images.

    Attributes:
        maps: (N, 3, H, W) float32, the gradient of the logit by the pixels in [0, 1], or what a
            method makes of gradients; of class activation maps (N, h, w).
        targets: (N,) int64, the class.
        logits: (N, classes) float32.
    """

    maps: Tensor
    targets: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Gradients:
    """What a backward pass finds of N images.

    Attributes:
        maps: (N, 3, H, W) float32, the gradient of the score by the pixels in [0, 1].
        output: (N, ...), what the passes end with: logits, or a layer's output.
        scores: (N,) float32.
    """

    maps: Tensor
    output: Tensor
    scores: Tensor


class Backprop:
    """A network ready for backward passes: its BatchNorm folded, its ReLUs under a rule.

    Args:
        network: the network.
        rule: of its ReLUs: "plain" is the derivative; see `fc7.kernels.guided_relu`.
        layer: where passes end and start back; the logits if None.

    Raises:
        LayerError: there is no such layer.
    """

    def __init__(self, network: Network, rule: Rule = "plain", layer: str | None = None) -> None:
        self.network = network
        self.layer = None if layer is None else network.layer(layer)
        self._folded = network.folded([] if layer is None else [layer])
        self._rule: Rule = rule
        self._is_rectified = rule == "plain"

    def __call__(self, images: Tensor, score: Callable[[Tensor], Tensor]) -> Gradients:
        """Return the gradient of each row's score.

        Args:
            images: (N, 3, H, W), float in [0, 1].
            score: from logits, or the layer's output, to one number a row, (N,).

        Raises:
            QuestionError: nothing flows back to the pixels, or the rule changes nothing for want of
                a ReLU.
            ValueError: the images have another shape or dtype.
        """
        with torch.inference_mode(False), torch.enable_grad():
            pixels, output = self._forward(images)
            scores = score(output)
            maps = self._back(scores, pixels)
        return Gradients(maps, output.detach(), scores.detach().float())

    def of_classes(self, images: Tensor, targets: Tensor | None) -> ClassGradients:
        """Return the gradient of a class's logit for each row.

        Args:
            images: (N, 3, H, W), float in [0, 1].
            targets: (N,) int64; the predicted classes if None.

        Raises:
            OptionError: a class is none of the network's.
            QuestionError: see `__call__`.
            ValueError: likewise.
        """
        few = images_a_pass(self.network, len(images), (images.shape[2], images.shape[3]))
        parts = [
            self._of_classes(images[rows], None if targets is None else targets[rows])
            for rows in together(images, few)
        ]
        if len(parts) == 1:
            return parts[0]
        return ClassGradients(
            torch.cat([part.maps for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat([part.logits for part in parts]),
        )

    def _of_classes(self, images: Tensor, targets: Tensor | None) -> ClassGradients:
        chosen: list[Tensor] = []

        def score(logits: Tensor) -> Tensor:
            wanted = self._classes(logits, targets)
            chosen.append(wanted)
            return logits.gather(1, wanted[:, None])[:, 0]

        found = self(images, score)
        return ClassGradients(found.maps, chosen[0], found.output)

    @torch.no_grad()
    def predict(self, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits, (N, classes), and the classes that `of_classes` would take, (N,)."""
        logits: Tensor = self._folded(images.to(self.network.device))
        return logits, self._classes(logits, targets)

    def each(
        self, images: Tensor, scores: Iterator[Callable[[Tensor], Tensor]]
    ) -> Iterator[Gradients]:
        """Yield the gradient of one score after the other, from one forward pass."""
        with torch.inference_mode(False), torch.enable_grad():
            pixels, output = self._forward(images)
        for score in scores:
            with torch.inference_mode(False), torch.enable_grad():
                values = score(output)
                maps = self._back(values, pixels, keep=True)
            yield Gradients(maps, output.detach(), values.detach().float())

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = self._folded
        # A copy, so that the caller's tensor takes no gradient; one made for inference cannot.
        pixels = images.to(network.device).clone().requires_grad_(images.is_floating_point())
        with Rectified(self._rule) as mode:
            if self.layer is None:
                output = network(pixels)
            else:
                output = network.activations(pixels, [self.layer.name])[self.layer.name]
        self._check_rule(mode, pixels)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise QuestionError(f"{self._what} is no tensor of floating-point numbers")
        return pixels, output

    def _classes(self, logits: Tensor, targets: Tensor | None) -> Tensor:
        if targets is None:
            return logits.detach().argmax(1)
        check_classes(targets.tolist(), self.network, logits.shape[1])
        # A copy: autograd keeps it, and a tensor made for inference it may not.
        return targets.to(logits.device).clone()

    def _check_rule(self, mode: Rectified, pixels: Tensor) -> None:
        """Refuse a rule that changed nothing, unless the layer lies before the first ReLU."""
        if self._is_rectified or mode.rewritten:
            self._is_rectified = True
            return
        if self.layer is not None:
            with torch.no_grad(), Rectified(self._rule) as mode:
                self._folded(pixels[:1])
        if not mode.rewritten:
            found = f"; it has {', '.join(sorted(mode.others))}" if mode.others else ""
            raise QuestionError(
                f"{self.network.name} calls no ReLU, so the rule {self._rule!r} changes nothing"
                f"{found}; ask for the plain gradient"
            )
        self._is_rectified = True

    def _back(self, scores: Tensor, pixels: Tensor, keep: bool = False) -> Tensor:
        gradient = None
        if scores.requires_grad:
            (gradient,) = torch.autograd.grad(
                scores.sum(), pixels, retain_graph=keep, allow_unused=True
            )
        if gradient is None:
            raise QuestionError(
                f"no gradient flows back from {self._what} to the pixels; does the network detach "
                "or round what it computes?"
            )
        return gradient.detach()

    @property
    def _what(self) -> str:
        where = "the logits" if self.layer is None else self.layer.name
        return f"{where} of {self.network.name}"


def together(images: Tensor, count: int = IMAGES_TOGETHER) -> Iterator[slice]:
    """Yield the rows of images a few at a time."""
    for start in range(0, max(1, len(images)), count):
        yield slice(start, start + count)
