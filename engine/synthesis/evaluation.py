"""One pass through a frozen network and back: what images score, and which way is up.

images -> network, as deep as the objective looks -> scores (N,) -> d score / d pixels
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from fc7.engine.errors import QuestionError
from fc7.engine.models import Network
from fc7.engine.models.network import logits_of
from fc7.engine.models.passes import images_a_pass
from fc7.engine.models.rectified import Rectified
from fc7.engine.synthesis.objectives import Outputs
from fc7.engine.synthesis.redirected import Redirected
from fc7.engine.synthesis.terms import LOGITS
from fc7.kernels.guided_relu import Rule

Way = Rule | Literal["redirected"] | Callable[[], Rectified]
"""Of ReLUs: a rule by name, or what makes the mode that they are under."""

Score = Callable[[Outputs, slice], Tensor]
"""From what the layers return for some rows, (n, ...), and which rows, to their scores, (n,)."""


@dataclass(frozen=True)
class Evaluation:
    """What one pass finds of N images.

    Attributes:
        scores: (N,) float32.
        gradients: (N, 3, H, W) float32, of each row's score by its pixels in [0, 1].
        outputs: of the layers that were to be kept, (N, ...), without a gradient.
    """

    scores: Tensor
    gradients: Tensor
    outputs: Mapping[str | None, Tensor] = field(default_factory=dict)


class Evaluator:
    """A network made ready for objectives: folded, cut off behind the deepest layer they read.

    Args:
        network: the network.
        layers: that objectives read; None is the logits.
        keep: of these, whose outputs are returned.
        rule: of the ReLUs' way back: see `fc7.kernels.guided_relu`, or "redirected", which see; or
            what makes the mode that each pass runs under.
        size: height and width of the images, in pixels; the network's own if None.
        together: how many images go through the network at once; what is fastest if None.

    Attributes:
        network: the folded network.
        together: how many images go through the network at once.

    Raises:
        LayerError: there is no such layer.
    """

    def __init__(
        self,
        network: Network,
        layers: Iterable[str | None],
        keep: Iterable[str | None] = (),
        rule: Way = "plain",
        size: tuple[int, int] | None = None,
        together: int | None = None,
    ) -> None:
        self._layers, self._keep = tuple(layers), tuple(keep)
        self._rule: Way = rule
        named = [layer for layer in self._layers if layer is not None]
        self.network = network.folded(named)
        self._named = named
        self.together = together or images_a_pass(network, 1 << 20, size or network.input_size)

    def under(self, rule: Way) -> "Evaluator":
        """Return the same with another way back; the folded network is shared."""
        twin = copy.copy(self)
        twin._rule = rule
        return twin

    def __call__(
        self, images: Tensor, score: Score, wanted: Sequence[bool] | None = None
    ) -> Evaluation:
        """Return scores, gradients, and the outputs that are kept.

        A row's do not depend on its batch-mates, only on how many go together.

        Args:
            images: (N, 3, H, W), float, N at least 1.
            score: of some of the rows.
            wanted: (N,), which rows matter; images that go together without any of them are left
                out, and are zeros in what is returned. All if None.

        Raises:
            QuestionError: nothing flows back to the pixels.
        """
        whole = range(0, len(images), self.together)
        passes = [slice(start, min(len(images), start + self.together)) for start in whole]
        done = {
            rows.start: self._pass(images[rows], rows, score)
            for rows in passes
            if wanted is None or any(wanted[rows])
        }
        if len(passes) == len(done) == 1:
            return done[0]
        example = next(iter(done.values()), None)
        parts = [done.get(rows.start) or _nothing(images[rows], example) for rows in passes]
        return Evaluation(
            torch.cat([part.scores for part in parts]),
            torch.cat([part.gradients for part in parts]),
            {key: torch.cat([part.outputs[key] for part in parts]) for key in self._keep},
        )

    def _pass(self, images: Tensor, rows: slice, score: Score) -> Evaluation:
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images.detach().to(self.network.device).clone().requires_grad_()
            with self._mode():
                outputs = self._outputs(pixels)
            scores = score(outputs, rows)
            gradients = None
            if scores.requires_grad:
                (gradients,) = torch.autograd.grad(scores.sum(), pixels, allow_unused=True)
        if gradients is None:
            raise QuestionError(
                f"no gradient flows back to the pixels of {self.network.name}; does it detach or "
                "round what it computes?"
            )
        kept = {layer: outputs[layer].detach() for layer in self._keep}
        return Evaluation(scores.detach().float(), gradients.float(), kept)

    def _mode(self) -> Rectified:
        if callable(self._rule):
            return self._rule()
        return Redirected() if self._rule == "redirected" else Rectified(self._rule)

    def outputs(self, images: Tensor) -> dict[str | None, Tensor]:
        """Return what the layers return of images (N, 3, H, W), (N, ...), without a gradient."""
        found: dict[str | None, list[Tensor]] = {layer: [] for layer in self._layers}
        with torch.no_grad(), self._mode():  # as a pass with a way back rounds
            for part in torch.split(images, self.together):
                for layer, output in self._outputs(part.to(self.network.device)).items():
                    found[layer].append(output.clone())
        return {layer: torch.cat(parts) for layer, parts in found.items()}

    def _outputs(self, pixels: Tensor) -> dict[str | None, Tensor]:
        if LOGITS not in self._layers:
            found = self.network.activations(pixels, self._named)
            return {name: found[name] for name in self._named}
        seen: dict[str | None, Tensor] = {}
        handles: list[RemovableHandle] = []
        for name in self._named:
            module = self.network.model.get_submodule(self.network.layer(name).path)

            def hook(_module: Any, _arguments: Any, output: Tensor, name: str = name) -> None:
                seen[name] = output.clone()  # what follows may write over it

            handles.append(module.register_forward_hook(hook))
        try:
            seen[LOGITS] = logits_of(self.network.model(self.network.normalise(pixels))).float()
        finally:
            for handle in handles:
                handle.remove()
        return seen


def _nothing(images: Tensor, example: Evaluation | None) -> Evaluation:
    """Return zeros for rows that were left out, in the shapes of what was not."""
    if example is None:
        raise ValueError("no row is wanted")
    count = len(images)
    return Evaluation(
        example.scores.new_zeros(count),
        example.gradients.new_zeros(images.shape),
        {key: each.new_zeros(count, *each.shape[1:]) for key, each in example.outputs.items()},
    )
