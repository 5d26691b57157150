"""How images ascend: what is changed, by which steps, and what keeps it readable."""

from dataclasses import dataclass, field
from typing import Any

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.adam import Adam, Optimiser
from fc7.engine.synthesis.gradient_operations import GradientOperation
from fc7.engine.synthesis.image_operations import ImageOperation
from fc7.engine.synthesis.parametrisation import Fourier, Parametrisation
from fc7.engine.synthesis.penalties import Penalty
from fc7.engine.synthesis.transforms import Transform


@dataclass(frozen=True)
class Recipe:
    """How images are made.

    Attributes:
        steps: the most that a row takes.
        parametrisation: of the images.
        optimiser: from gradients of latents to steps.
        penalties: with their weights.
        transforms: in the order in which they are applied.
        on_gradients: between the gradient and the step, in order.
        on_images: after each step, in order; of pixels only.
        until: a score at which a row ends.
        patience: steps without a better score after which it ends.

    Raises:
        OptionError: a number is out of range.
    """

    steps: int = 512
    parametrisation: Parametrisation = field(default_factory=Fourier)
    optimiser: Optimiser = field(default_factory=Adam)
    penalties: tuple[tuple[float, Penalty], ...] = ()
    transforms: tuple[Transform, ...] = ()
    on_gradients: tuple[GradientOperation, ...] = ()
    on_images: tuple[ImageOperation, ...] = ()
    until: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"steps is {self.steps}; write 1 or more")
        if self.patience is not None and self.patience < 1:
            raise OptionError(f"patience is {self.patience}; write 1 or more")

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON; parts are frozen dataclasses, which say all in their names."""
        return {
            "steps": self.steps,
            "parametrisation": repr(self.parametrisation),
            **self.optimiser.describe(),
            "penalties": [[weight, repr(penalty)] for weight, penalty in self.penalties],
            "transforms": [repr(transform) for transform in self.transforms],
            "on_gradients": [repr(operation) for operation in self.on_gradients],
            "on_images": [repr(operation) for operation in self.on_images],
            "until": self.until,
            "patience": self.patience,
        }
