"""Recipes by name: how those who came before made images of classes.

    lucid            Olah, Mordvintsev and Schubert, 2017, "Feature visualization" (Distill)
    simonyan         Simonyan, Vedaldi and Zisserman, 2014, arXiv:1312.6034: L2 alone
    yosinski-1 to 4  Yosinski et al., 2015, arXiv:1506.06579, table 1: decay, blur, and small
                     pixels or contributions put to zero

Lengths in pixels are of images of 224 or 227, and shrink with the network's own. The last five
ascend pixels, whose zero is the network's mean colour.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.synthesis.adam import Adam, Ascent
from fc7.engine.synthesis.gradient_operations import UnitMean
from fc7.engine.synthesis.image_operations import (
    Blur,
    Clamp,
    Decay,
    ZeroSmallContribution,
    ZeroSmallNorm,
)
from fc7.engine.synthesis.objectives import Objective, class_logit, log_probability
from fc7.engine.synthesis.parametrisation import Fourier, Pixels
from fc7.engine.synthesis.penalties import L2
from fc7.engine.synthesis.pixels import Colour
from fc7.engine.synthesis.recipe import Recipe
from fc7.engine.synthesis.transforms import Affine

DEFAULT = "lucid"
_USUAL_SIDE = 224
# Of a pixel's range, the mean step of ascent by pixels: a few levels of 8 bits. What decays by a
# third at each step takes longer ones.
_RATE, _LONG = 0.01, 0.05
_YOSINSKI_START = 10 / 255


def recipe(name: str, network: Network, steps: int | None = None) -> Recipe:
    """Return a preset for a network.

    Args:
        name: of `PRESETS`.
        network: whose mean colour is zero and whose input says how long a pixel is.
        steps: instead of the preset's own.

    Raises:
        OptionError: there is no such preset.
    """
    if name not in PRESETS:
        raise OptionError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    found = PRESETS[name](network)
    return found if steps is None else replace(found, steps=steps)


def class_objective(name: str, unit: int) -> Objective:
    """Return what a preset asks of the image of a class: its logit, as the papers have it.

    Lucid's asks for its log-probability as well. The logits of others rise along with a class's
    own, and may rise higher: of `tiny-shapes`' 16 classes one was taken for another after 512
    steps, and with this all had a probability of .98 at least.
    """
    logit = class_logit(unit)
    return logit + log_probability(unit) if name == DEFAULT else logit


def mean_colour(network: Network) -> Colour:
    """Return what a network sees as zero."""
    red, green, blue = (min(1.0, max(0.0, value)) for value in network.mean)
    return red, green, blue


def scaled(network: Network, pixels: float) -> int:
    """Return a length in pixels of a usual image as one of this network's."""
    return max(1, round(pixels * min(network.input_size) / _USUAL_SIDE))


def _lucid(network: Network) -> Recipe:
    moved = Affine(
        tuple(1 + (i - 5) / 50 for i in range(11)),
        (*range(-10, 11), *5 * (0,)),
        before=scaled(network, 8),
        after=scaled(network, 4),
    )
    return Recipe(512, Fourier(), Adam(0.05), transforms=(moved,))


def _simonyan(network: Network) -> Recipe:
    colour = mean_colour(network)
    return Recipe(
        200,
        Pixels(colour),
        Ascent(_RATE),
        penalties=((0.01, L2(colour)),),
        on_gradients=(UnitMean(),),
        on_images=(Clamp(),),
    )


def _yosinski(
    steps: int,
    decay: float = 0.0,
    blur: float = 0.0,
    norm: float | None = None,
    contribution: float | None = None,
    rate: float = _RATE,
) -> Callable[[Network], Recipe]:
    """Return one of the table's rows; each blurs, if it does, every fourth step."""

    def make(network: Network) -> Recipe:
        colour = mean_colour(network)
        side = min(network.input_size) / _USUAL_SIDE
        operations = (
            *((Decay(decay, colour),) if decay else ()),
            *((Blur(blur * max(side, 0.5), 4),) if blur else ()),
            *((ZeroSmallNorm(norm, colour),) if norm is not None else ()),
            *((ZeroSmallContribution(contribution, colour),) if contribution is not None else ()),
            Clamp(),
        )
        ascent = Ascent(rate)
        start = Pixels(colour, _YOSINSKI_START)
        return Recipe(steps, start, ascent, on_gradients=(UnitMean(),), on_images=operations)

    return make


PRESETS: Mapping[str, Callable[[Network], Recipe]] = {
    "lucid": _lucid,
    "simonyan": _simonyan,
    "yosinski-1": _yosinski(1000, decay=1e-4, blur=1.0),
    "yosinski-2": _yosinski(500, blur=0.5, norm=50),
    "yosinski-3": _yosinski(500, decay=0.3, norm=20, rate=_LONG),
    "yosinski-4": _yosinski(1000, blur=0.5, contribution=90),
}
