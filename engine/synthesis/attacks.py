"""Attacks: the smallest changes of images after which a network says something else.

    margin   x <- x + s m / |m|,  m <- m / 2 + g / |g|,  g the gradient of the margin, until the
             network is fooled
    DDN      direction and norm apart    Rony et al., 2019, arXiv:1811.09600, algorithm 1
    FGSM     x + e sign(g)               Goodfellow, Shlens and Szegedy, 2015, arXiv:1412.6572
    PGD      the same in small steps, from a random start    Madry et al., 2018, arXiv:1706.06083

An attack is *targeted*, towards a class, or *untargeted*, away from one; that class is a row's
goal. Images live in [0, 1]. An attack holds B places, each with a row of its own: step sizes,
norms, random numbers and the end are the row's, so that rows come and go and none knows of others.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from fc7.engine.synthesis.keyed import keys_of_rows
from fc7.engine.synthesis.places import Places
from fc7.engine.synthesis.randomness import Purpose, normal, uniform

# By so much of a logit a class must lead before an attack stops: other batches and folded weights
# round otherwise, by some 1e-5, and what fools here must fool there.
CLEAR = 1e-3
# T, in logits: how near the largest another logit must be to have a say.
_SOFTNESS = 0.5
# Of the last step's direction that a step goes on with.
_MOMENTUM = 0.5


class Attack(Protocol):
    """What an attack does between passes.

    Attributes:
        untargeted: whether goals are the classes to be left.
        passes: gradient evaluations of a row at most.
    """

    untargeted: bool
    passes: int

    def weights(self, logits: Tensor, goals: Tensor) -> Tensor:
        """Return the gradient by the logits, (B, classes), of what is ascended."""

    def enter(self, places: Places, at: Tensor) -> None:
        """Begin with the clean images at these places."""

    def step(self, places: Places, logits: Tensor, gradient: Tensor) -> Tensor:
        """Write the next images; say which places are done, (B,) bool.

        Args:
            places: the rows; `passes` counts this one.
            logits: (B, classes), of `places.images`.
            gradient: (B, 3, H, W).
        """

    def result(self, places: Places, at: Tensor) -> Tensor:
        """Return the adversarial images of places that are done."""


def margins(logits: Tensor, goals: Tensor, untargeted: bool) -> Tensor:
    """Return by how much a goal is reached, (B,) float64: above 0 the network is fooled.

    It is the goal's logit less the largest other one; of an untargeted attack the negative.
    """
    values = logits.double()
    others = values.scatter(1, goals[:, None], -math.inf)
    lead = values.gather(1, goals[:, None])[:, 0] - others.amax(1)
    return -lead if untargeted else lead


def probabilities(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the probability of one class a row, (B,) float64."""
    return logits.double().softmax(1).gather(1, classes[:, None])[:, 0]


class Margin:
    """Ascend the margin by steps of one length, and stop as soon as the network is fooled.

    Where other classes take turns at being the largest, the plain margin's gradient leads to and
    fro between them, and the steps of one length with it. Two things help. What goes back is the
    gradient of a margin that is smooth, z(goal) - T log sum exp(z(other) / T) over the other logits
    z (tiny-shapes was fooled in 72 % of 96 cases in 120 steps by the plain one, in 99 % by this).
    And a step goes on with half of the last one's direction, as with the momentum of Dong et al.
    (2018, arXiv:1710.06081): of 500 cases it missed two in 500 steps without that, and none in 300
    with it, for changes of the same size.

    Args:
        untargeted: away from the goal, not towards it.
        passes: at most.
        length: of a step, the Euclidean norm over the image.
        probability: that the goal must reach; of an untargeted attack, which the class that is
            predicted instead must reach.
        seed: of directions where the gradient is zero.
    """

    def __init__(
        self, untargeted: bool, passes: int, length: float, probability: float, seed: int
    ) -> None:
        self.untargeted, self.passes = untargeted, passes
        self._length, self._probability, self._seed = length, probability, seed
        self._momentum = torch.empty(0)

    def weights(self, logits: Tensor, goals: Tensor) -> Tensor:
        """See `Attack`."""
        return _towards(logits, goals, _SOFTNESS, self.untargeted)

    def enter(self, places: Places, at: Tensor) -> None:
        """See `Attack`."""
        if len(self._momentum) != len(places.goals):
            self._momentum = torch.zeros_like(places.clean)
        places.images[at] = places.clean[at]
        self._momentum[at] = 0

    def step(self, places: Places, logits: Tensor, gradient: Tensor) -> Tensor:
        """See `Attack`; a row that is fooled is left as it is."""
        fooled = margins(logits, places.goals, self.untargeted) > CLEAR
        if self._probability > 0:
            reached = logits.argmax(1) if self.untargeted else places.goals
            fooled &= probabilities(logits, reached) >= self._probability
        self._momentum.mul_(_MOMENTUM).add_(_directions(gradient, places, self._seed))
        lengths = self._length / _norms(self._momentum).clamp_(min=_LEAST)
        further = (self._momentum * _spread(lengths)).add_(places.images).clamp_(0, 1)
        places.images = torch.where(_spread(fooled), places.images, further)
        return fooled | (places.passes >= self.passes)

    def result(self, places: Places, at: Tensor) -> Tensor:
        """See `Attack`."""
        return places.images[at]


class DecoupledDirectionNorm:
    """DDN: the direction follows the gradient; the norm shrinks while fooled, else it grows.

    As in the authors' own program the change is carried on from where the norm and the range of
    pixels left it, and steps shrink from 1 to 0.01 by a cosine. Of all images that fooled the one
    with the smallest change is kept.

    Args:
        untargeted: away from the goal, not towards it.
        passes: all of which are used.
        gamma: by what share the norm changes.
        norm: to begin with.
        seed: of directions where the gradient is zero.
    """

    def __init__(self, untargeted: bool, passes: int, gamma: float, norm: float, seed: int) -> None:
        self.untargeted, self.passes = untargeted, passes
        self._gamma, self._first, self._seed = gamma, norm, seed
        self._norms = self._widest = self._best_norms = torch.empty(0)
        self._best = torch.empty(0)

    def weights(self, logits: Tensor, goals: Tensor) -> Tensor:
        """Return a multiple of the gradient of log p(goal)."""
        return _towards(logits, goals, 1.0, self.untargeted)

    def enter(self, places: Places, at: Tensor) -> None:
        """See `Attack`."""
        if len(self._norms) != len(places.goals):
            self._norms, self._widest, self._best_norms = (
                torch.zeros(len(places.goals), device=places.goals.device) for _ in range(3)
            )
            self._best = places.clean.clone()
        clean = places.clean[at]
        places.images[at] = clean
        self._norms[at] = self._first
        self._widest[at] = _norms(torch.maximum(clean, 1 - clean))
        self._best_norms[at] = math.inf

    def step(self, places: Places, logits: Tensor, gradient: Tensor) -> Tensor:
        """See `Attack`."""
        change = places.images - places.clean
        fooled = margins(logits, places.goals, self.untargeted) > CLEAR
        sizes = _norms(change)
        better = fooled & (sizes < self._best_norms)
        self._best_norms = torch.where(better, sizes, self._best_norms)
        done = places.passes >= self.passes
        # Where none ever fooled, the last is what there is.
        kept = better | (done & self._best_norms.isinf())
        if bool(kept.any()):
            self._best[kept] = places.images[kept]
        growth = torch.where(fooled, 1 - self._gamma, 1 + self._gamma)
        self._norms = torch.minimum(self._norms * growth, self._widest)
        share = (places.passes - 1).double() / self.passes
        lengths = (0.01 + 0.99 * (1 + torch.cos(math.pi * share)) / 2).float()
        directions = _directions(gradient, places, self._seed)
        change.add_(directions.mul_(_spread(lengths)))
        factors = self._norms / _norms(change).clamp_(min=_LEAST)
        places.images = change.mul_(_spread(factors)).add_(places.clean).clamp_(0, 1)
        return done

    def result(self, places: Places, at: Tensor) -> Tensor:
        """See `Attack`."""
        return self._best[at]


class SignedGradients:
    """PGD: steps by the gradient's sign within a box around the image, until it fools.

    One step of the box's own half side from the image itself is FGSM; see
    `fast_gradient_sign`.

    Args:
        untargeted: away from the goal, not towards it.
        passes: at most.
        epsilon: the largest change of a pixel.
        length: of a step, likewise.
        seed: of the random start in the box; None to start from the image.
    """

    def __init__(
        self, untargeted: bool, passes: int, epsilon: float, length: float, seed: int | None
    ) -> None:
        self.untargeted, self.passes, self._epsilon = untargeted, passes, epsilon
        self._length, self._seed = length, seed

    def weights(self, logits: Tensor, goals: Tensor) -> Tensor:
        """Return a multiple of the gradient of log p(goal)."""
        return _towards(logits, goals, 1.0, self.untargeted)

    def enter(self, places: Places, at: Tensor) -> None:
        """See `Attack`."""
        clean = places.clean[at]
        if self._seed is not None:
            rows = places.rows[at.cpu()].tolist()
            keys = keys_of_rows(self._seed, rows, [0] * len(rows))
            shares = uniform(keys, Purpose.START, clean.shape[1:])
            clean = (clean + self._epsilon * (2 * shares.to(clean.device) - 1)).clamp_(0, 1)
        places.images[at] = clean

    def step(self, places: Places, logits: Tensor, gradient: Tensor) -> Tensor:
        """See `Attack`; a row that is fooled is left as it is."""
        fooled = margins(logits, places.goals, self.untargeted) > CLEAR
        further = places.images + self._length * gradient.sign()
        least, most = places.clean - self._epsilon, places.clean + self._epsilon
        further = further.clamp_(least, most).clamp_(0, 1)
        places.images = torch.where(_spread(fooled), places.images, further)
        return fooled | (places.passes >= self.passes)

    def result(self, places: Places, at: Tensor) -> Tensor:
        """See `Attack`."""
        return places.images[at]


def fast_gradient_sign(untargeted: bool, epsilon: float) -> SignedGradients:
    """Return FGSM: one step to a corner of the box."""
    return SignedGradients(untargeted, 1, epsilon, epsilon, None)


_LEAST = 1e-12


def _towards(logits: Tensor, goals: Tensor, softness: float, untargeted: bool) -> Tensor:
    """Return 1 at the goal, and elsewhere -1 shared out among the largest; or the reverse.

    It is the gradient of z(goal) - T log sum exp(z(other) / T), T the softness. With T = 1 that of
    log p(goal) is 1 - p(goal) times as large, which no method here asks for: each takes a step of
    a length of its own. Of a network that is certain it would be 0.
    """
    others = logits.scatter(1, goals[:, None], -math.inf)
    found = (-(others / softness).softmax(1)).scatter_(1, goals[:, None], 1.0)
    return -found if untargeted else found


def _directions(gradient: Tensor, places: Places, seed: int) -> Tensor:
    """Return the gradient at the length 1, (B, 3, H, W); at random where it is zero."""
    sizes = _norms(gradient)
    directions = gradient / _spread(sizes.clamp(min=_LEAST))
    if bool((sizes <= _LEAST).any()):
        at = (sizes <= _LEAST).nonzero()[:, 0]
        keys = keys_of_rows(seed, places.rows[at.cpu()].tolist(), places.passes[at].tolist())
        random = normal(keys, Purpose.NOISE, gradient.shape[1:]).to(gradient.device)
        directions[at] = random / _spread(_norms(random))
    return directions


def _norms(images: Tensor) -> Tensor:
    """Return the Euclidean norm of each row, (B,); channels last, no copy is made."""
    norms: Tensor = torch.linalg.vector_norm(images.permute(0, 2, 3, 1).flatten(1), dim=1)
    return norms


def _spread(values: Tensor) -> Tensor:
    return values[:, None, None, None]
