"""How to attack: the methods and their numbers."""

from dataclasses import dataclass

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.attacks import (
    Attack,
    DecoupledDirectionNorm,
    Margin,
    SignedGradients,
    fast_gradient_sign,
)

METHODS = ("margin", "ddn", "fgsm", "pgd")
_PASSES = {"margin": 500, "ddn": 100, "fgsm": 1, "pgd": 40}


@dataclass(frozen=True)
class AttackOptions:
    """How to attack.

    Attributes:
        method: "margin", up the gradient of the margin, with momentum, until the network is
            fooled; "ddn", the smallest change by its Euclidean norm; "fgsm" and "pgd", one step
            and several within the box of `epsilon` around the image.
        steps: gradient evaluations of a row at most; of "ddn", all are used. By default 500, 100,
            1 and 40.
        step: length of one step: of "margin" the Euclidean norm over the image, 0.05 by default;
            of "pgd" of every pixel, a quarter of `epsilon` by default. The others choose theirs.
        probability: that "margin" goes on to.
        epsilon: of "fgsm" and "pgd", the largest change of a pixel in [0, 1].
        gamma: of "ddn", by what share the norm changes.
        norm: of "ddn", the first norm.
        seed: of everything random.
    """

    method: str = "margin"
    steps: int | None = None
    step: float | None = None
    probability: float = 0.0
    epsilon: float = 8 / 255
    gamma: float = 0.05
    norm: float = 1.0
    seed: int = 0

    @property
    def passes(self) -> int:
        """Gradient evaluations of a row at most."""
        return _PASSES[self.method] if self.steps is None else self.steps

    @property
    def length(self) -> float:
        """Of one step."""
        if self.step is not None:
            return self.step
        return self.epsilon / 4 if self.method == "pgd" else 0.05

    @property
    def bound(self) -> float | None:
        """The largest change of a pixel; None where the method has none."""
        return self.epsilon if self.method in ("fgsm", "pgd") else None

    def asked(self) -> dict[str, float | int | str]:
        """Return what this method makes of them, as JSON.

        Raises:
            OptionError: one of them is out of range, or not of this method.
        """
        self._check()
        own: dict[str, dict[str, float | int]] = {
            "margin": {"step": self.length, "probability": self.probability},
            "ddn": {"gamma": self.gamma, "norm": self.norm},
            "fgsm": {"epsilon": self.epsilon},
            "pgd": {"epsilon": self.epsilon, "step": self.length},
        }
        return {"method": self.method, "steps": self.passes, **own[self.method], "seed": self.seed}

    def attack(self, untargeted: bool) -> Attack:
        """Return the attack.

        Raises:
            OptionError: one of them is out of range, or not of this method.
        """
        self._check()
        passes, length, seed = self.passes, self.length, self.seed
        if self.method == "margin":
            return Margin(untargeted, passes, length, self.probability, seed)
        if self.method == "ddn":
            return DecoupledDirectionNorm(untargeted, passes, self.gamma, self.norm, seed)
        if self.method == "fgsm":
            return fast_gradient_sign(untargeted, self.epsilon)
        return SignedGradients(untargeted, passes, self.epsilon, length, seed)

    def _check(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"no method {self.method!r}; there are {', '.join(METHODS)}")
        if self.passes < 1 or (self.method == "fgsm" and self.passes != 1):
            least = "takes 1" if self.method == "fgsm" else "needs 1 or more"
            raise OptionError(f"steps is {self.passes}; {self.method} {least}")
        if not 0 < self.epsilon <= 1:
            raise OptionError(f"epsilon is {self.epsilon}; it must be above 0 and at most 1")
        if self.step is not None and self.method not in ("margin", "pgd"):
            raise OptionError(f"{self.method} chooses its own step; leave it out")
        if not 0 < self.length < float("inf"):
            raise OptionError(f"step is {self.length}; it must be above 0")
        if not 0 <= self.probability < 1:
            raise OptionError(f"probability is {self.probability}; it must be from 0 to below 1")
        if self.probability and self.method != "margin":
            raise OptionError(f"{self.method} stops at no probability; ask for it of margin")
        if not 0 < self.gamma < 1 or not 0 < self.norm < float("inf"):
            raise OptionError(
                f"gamma is {self.gamma} and norm {self.norm}; they must be above 0, gamma below 1"
            )
        if not 0 <= self.seed < 2**64:
            raise OptionError(f"seed is {self.seed}; it must be from 0 to 2**64 - 1")
