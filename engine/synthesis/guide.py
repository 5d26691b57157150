"""Guided by another image: at each place, more of the guide's feature vector that fits it best.

The objective of the notebook that DeepDream came with (Mordvintsev, Olah and Tyka, 2015): of what
a layer sees at a place p, x_p, and what it sees of the guide, y_1 to y_P,

    sum over p of max over q of x_p . y_q

whose gradient by x_p is the y_q that is found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.sizes import Sizes
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.objectives import Objective
from fc7.engine.synthesis.terms import Term

# Products of places held at a time: 64 MiB of them.
_PRODUCTS = 1 << 24


@dataclass(frozen=True, eq=False)
class GuideMatch(Term):
    """Sum over places of the product with the best matching of a guide's feature vectors.

    Attributes:
        features: (C, P), the guide's.
    """

    features: Tensor

    def check(self, network: Network) -> None:
        """See `Term.check`."""
        super().check(network)
        assert self.layer is not None
        check_guided_layer(network, self.layer)
        channels = network.layer(self.layer).shape[0]
        if self.features.ndim != 2 or len(self.features) != channels:
            raise OptionError(
                f"{self.layer} needs a guide's features ({channels}, P), not "
                f"{tuple(self.features.shape)}"
            )

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        guides = [term.features.to(device, torch.float32) for term in terms]

        def score(output: Tensor) -> Tensor:
            # A row at a time: its products are then the same in any company, and few.
            rows = [_match(row.flatten(1), y) for row, y in zip(output, guides, strict=True)]
            return torch.stack(rows)

        return score


def _match(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of the products of (C, K) with the best of (C, P)."""
    with torch.no_grad():
        few = max(1, _PRODUCTS // y.shape[1])
        best = torch.cat([(part.T @ y).argmax(1) for part in torch.split(x.detach(), few, 1)])
    return (x * y[:, best]).sum()


def check_guided_layer(network: Network, layer: str) -> None:
    """Raise OptionError where a layer has no places, LayerError where there is none."""
    if not network.layer(layer).is_spatial:
        raise OptionError(
            f"{layer} of {network.name} has no places to guide; name a convolutional layer"
        )


def guided_by(network: Network, layer: str, guide: Tensor) -> Objective:
    """Ask for what a layer sees of a guide.

    Args:
        network: the network.
        layer: a convolutional one, by its canonical name or module path.
        guide: (3, H, W), float in [0, 1], of any size that reaches the layer.

    Raises:
        LayerError: there is no such layer.
        OptionError: it has no places, or the guide is too small for it.
    """
    check_guided_layer(network, layer)
    size = guide.shape[1], guide.shape[2]
    Sizes(network, [layer]).check(size, "a guide")
    features = Evaluator(network, [layer], size=size).outputs(guide[None])[layer][0]
    return Objective(((1.0, GuideMatch(layer, features.float().flatten(1))),))
