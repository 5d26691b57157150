"""How a facet is drawn from its mean image: from the middle outwards, and smooth.

Nguyen, Yosinski and Clune, 2016, arXiv:1602.03616: a start that is the mean of images of one kind,
total variation, and a bias towards the centre, so that one object is drawn and not many. Their
programs (github.com/Evolving-AI-Lab/mfv) step by the gradient over its mean absolute value, clip,
denoise after each step, and ascend all of the image, then crops near its centre, then the
middle alone, and at last all of it for a few steps. Here the gradient is weighed by a Gaussian
about the centre that widens from stage to stage, until the last stage ascends all pixels; shifts
take the place of crops, and a penalty that of denoising.
"""

import math

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.synthesis.adam import Ascent
from fc7.engine.synthesis.gradient_operations import CentreGaussian, UnitMean
from fc7.engine.synthesis.image_operations import Clamp
from fc7.engine.synthesis.parametrisation import Pixels
from fc7.engine.synthesis.penalties import TotalVariation
from fc7.engine.synthesis.presets import mean_colour, scaled
from fc7.engine.synthesis.recipe import Recipe
from fc7.engine.synthesis.transforms import Compose, Pad, Shift

STEPS = 120
WIDTHS: tuple[float | None, ...] = (0.35, 0.7, None)
"""Of each stage's mask, in half sides; None is no mask."""
# Total variation sums over pixels, among which an image's score is shared out: its weight is of one
# pixel, so that both count alike in images of all sizes.
_RATE, _SMOOTHNESS = 0.01, 8.0


def stages(network: Network, steps: int | None = None) -> list[Recipe]:
    """Return the stages' recipes for a network.

    Args:
        network: whose input says how long a pixel is.
        steps: of all stages together; 120 if None.

    Raises:
        OptionError: there are fewer steps than stages.
    """
    steps = STEPS if steps is None else steps
    if steps < len(WIDTHS):
        raise OptionError(f"steps is {steps}; write {len(WIDTHS)} or more, one for each stage")
    colour, pixels = mean_colour(network), math.prod(network.input_size)
    moved = Compose((Pad(scaled(network, 8)), Shift(scaled(network, 8))))
    return [
        Recipe(
            steps * (stage + 1) // len(WIDTHS) - steps * stage // len(WIDTHS),
            Pixels(colour),
            Ascent(_RATE),
            penalties=((_SMOOTHNESS / pixels, TotalVariation(2.0)),),
            transforms=(moved,),
            on_gradients=(UnitMean(), *(() if width is None else (CentreGaussian(width),))),
            on_images=(Clamp(),),
        )
        for stage, width in enumerate(WIDTHS)
    ]
