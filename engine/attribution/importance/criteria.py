"""Criteria: what ranks the channels of a network, one number each, comparable across layers.

    CRITERIA["taylor"].scores(stored, network, seed)     a tuple, (C,) for each convolution

A criterion is an entry of `CRITERIA`; whoever prunes takes the scores and asks no further.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from fc7.engine.attribution.importance.stored import (
    ConvolutionLayer,
    Scores,
    StoredImportance,
    read_stored,
)
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store import Run
from fc7.engine.store.network import network_of


@dataclass(frozen=True)
class Criterion:
    """One way to rank channels.

    Attributes:
        about: what it is, in a few words.
        scores: from what a run holds, its network and a seed to the scores.
        together: from the scores of channels that go or stay together to their one score.
    """

    about: str
    scores: Callable[[StoredImportance, Network, int], Scores]
    together: Callable[[Sequence[float]], float]


def normalised(scores: Scores) -> Scores:
    """Divide each layer's scores by their l2 norm (Molchanov et al., equation 8).

    Layers differ in scale for reasons that have nothing to do with importance: the number of
    positions, the size of weights. A layer of nothing but zeros stays as it is.
    """
    norms = [float(np.linalg.norm(layer)) for layer in scores]
    return tuple(layer / (norm or 1.0) for layer, norm in zip(scores, norms, strict=True))


def filter_l1(layers: Sequence[ConvolutionLayer], network: Network) -> Scores:
    """Return the sum of absolute weights of every filter (Li et al., ICLR 2017)."""
    found = []
    for layer in layers:
        module = network.model.get_submodule(layer.path)
        assert isinstance(module, nn.Conv2d)
        found.append(module.weight.detach().double().abs().sum((1, 2, 3)).cpu().numpy())
    return tuple(found)


def random_scores(layers: Sequence[ConvolutionLayer], seed: int) -> Scores:
    """Return independent numbers in [0, 1), the same for a seed on every machine.

    Normalising them within layers would make a wide layer's channels look unimportant.

    Raises:
        OptionError: the seed is negative.
    """
    if seed < 0:
        raise OptionError(f"seed is {seed}; it must be at least 0")
    generator = np.random.default_rng(seed)
    return tuple(generator.random(layer.channels) for layer in layers)


def _rises(stored: StoredImportance) -> Scores:
    """Return the rises of inversion error; what lies below 0 is noise."""
    assert stored.inversion is not None
    return tuple(layer.clip(0) for layer in stored.inversion)


# To first order, removing channels together changes the loss by at most the sum of what each does
# (the triangle inequality): a sum charges a group for all that goes with it.
CRITERIA: Mapping[str, Criterion] = {
    "taylor": Criterion(
        "first-order change of the loss (Molchanov et al., 2017)",
        lambda stored, network, seed: normalised(stored.taylor),
        sum,
    ),
    "activation": Criterion(
        "mean absolute activation",
        lambda stored, network, seed: normalised(stored.activation),
        sum,
    ),
    "l1": Criterion(
        "sum of the filter's absolute weights (Li et al., 2017)",
        lambda stored, network, seed: normalised(filter_l1(stored.layers, network)),
        sum,
    ),
    "inversion": Criterion(
        "rise of inversion error without the channel (after Mahendran and Vedaldi, 2015)",
        lambda stored, network, seed: normalised(_rises(stored)),
        sum,
    ),
    "random": Criterion(
        "chance",
        lambda stored, network, seed: random_scores(stored.layers, seed),
        # One draw for each decision: sums would spare channels that many others depend on.
        lambda scores: scores[0],
    ),
}


@dataclass(frozen=True)
class ChannelImportance:
    """How important each channel is, by every criterion.

    Attributes:
        stored: the means as the run holds them, not normalised, with loss and accuracy.
        scores: by criterion, one array (C,) for each of `layers`, comparable across layers;
            "inversion" is among them where the run holds it.
    """

    stored: StoredImportance
    scores: Mapping[str, Scores]

    @property
    def layers(self) -> tuple[ConvolutionLayer, ...]:
        """The convolutions, in the order they run."""
        return self.stored.layers


def read_importance(run: Run, network: Network | None = None, seed: int = 0) -> ChannelImportance:
    """Read how important each channel is from a run that `importance` has finished.

    Args:
        run: the run.
        network: its network, for the weights; found again where it is None.
        seed: of the random baseline.

    Raises:
        StoreError: the run holds no finished importances.
    """
    stored = read_stored(run)
    network = network or network_of(run, device="cpu")
    known = [name for name in CRITERIA if name != "inversion" or stored.inversion is not None]
    return ChannelImportance(
        stored, {name: CRITERIA[name].scores(stored, network, seed) for name in known}
    )


def criterion_of(name: str) -> Criterion:
    """Return a criterion by name; OptionError names those there are."""
    if name not in CRITERIA:
        raise OptionError(f"no criterion {name!r}; there are {', '.join(CRITERIA)}")
    return CRITERIA[name]
