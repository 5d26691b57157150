"""A layer's features as a question: which latents give an image that it answers with these?

    |F(x) - f|^2 / |f|^2  +  a sum |x - c|^6 / (H W B^6)  +  v sum (dx^2 + dy^2) / (H W (B / 10)^2)

See `fc7.engine.synthesis.invert` for what it means. x comes from latents through a spectrum and a
sigmoid, and stays in [0, 1].
"""

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fc7.engine.errors import OptionError, QuestionError
from fc7.engine.models import Network
from fc7.engine.models.network import first_line
from fc7.engine.models.rectified import Rectified
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.lbfgs import ValueAndGradient
from fc7.engine.synthesis.leaky import Leaky
from fc7.engine.synthesis.objectives import Outputs
from fc7.engine.synthesis.parametrisation import Fourier, Parametrisation
from fc7.engine.synthesis.penalties import LAlpha, TotalVariation
from fc7.engine.synthesis.randomness import Keys
from fc7.engine.synthesis.rows import each_row

_HALF_RANGE, _POWER = 0.5, 6.0


class FeatureProblem:
    """A network cut off behind a layer, and what images are fined for.

    Args:
        network: the network.
        layer: a canonical name or module path.
        size: height and width of the images in pixels.
        together: images that go through the network at once.
        slopes: of ReLUs below zero, that functions may ask for; 0 is always among them.
        variation: v, the weight of the differences between neighbours.
        colours: a, the weight of the distance to the mean colour.

    Attributes:
        parametrisation: from latents to images and back.
        folded: the network that runs, cut off behind the layer.

    Raises:
        LayerError: there is no such layer.
    """

    def __init__(
        self,
        network: Network,
        layer: str,
        size: tuple[int, int],
        together: int,
        slopes: Iterable[float],
        variation: float,
        colours: float,
    ) -> None:
        self._network, self._layer, self._size = network, network.layer(layer).name, size
        evaluator = Evaluator(network, [self._layer], together=together)
        self.folded = evaluator.network
        self._evaluators = {
            slope: evaluator.under(partial(Leaky, slope)) for slope in (0.0, *slopes)
        }
        self.parametrisation: Parametrisation = Fourier(decay=0.5, deviation=0.1)
        red, green, blue = network.mean
        area = size[0] * size[1]
        self._penalties = (
            (colours / (area * _HALF_RANGE**_POWER), LAlpha((red, green, blue), _POWER)),
            (variation / (area * (_HALF_RANGE / 10) ** 2), TotalVariation(2.0)),
        )

    def features(self, images: Tensor) -> Tensor:
        """Return what the layer answers, (N, D) float32, to images (N, 3, H, W)."""
        try:
            # By the same kernels as the search: a row of MKL's product depends on its place.
            with Rectified("plain"):
                features = self._evaluators[0.0].outputs(images)[self._layer].flatten(1).float()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            height, width = images.shape[2:]
            raise OptionError(
                f"{self._network.name} does not take images of {height} x {width} pixels "
                f"({first_line(error)}); its own are "
                f"{' x '.join(map(str, self._network.input_size))}"
            ) from error
        if not bool(features.isfinite().all()):
            raise QuestionError(
                f"{self._layer} of {self._network.name} is not finite of an image; are its "
                "weights, or is the precision too low?"
            )
        return features

    def noise(self, count: int, seed: int, number: int) -> Tensor:
        """Return latents to start from, (count, 3, H, W), by a seed and the number of the start.

        They are noise, the same for every image.
        """
        seeds = np.full(count, seed, np.int64)
        keys = Keys(seeds, np.full(count, number, np.int64))
        return self.parametrisation.noise(keys, self._size).to(self._network.device)

    def function(self, features: Tensor, slope: float = 0.0) -> ValueAndGradient:
        """Return what is minimised, as a function of latents, (N, 3, H, W).

        Args:
            features: (N, D), that are to be answered.
            slope: of the ReLUs below zero.
        """
        evaluate, squares = self._evaluators[slope], lengths_squared(features)

        def score(outputs: Outputs, rows: slice) -> Tensor:
            difference = outputs[self._layer].flatten(1).float() - features[rows]
            return difference.square().sum(1) / squares[rows]

        def value_and_gradient(latents: Tensor) -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False), torch.enable_grad():
                latents = latents.detach().clone().requires_grad_()
                images = self.parametrisation.images(latents)
                found = evaluate(images, score)
                penalty = torch.zeros_like(found.scores)
                for weight, of in self._penalties:
                    if weight > 0:
                        penalty = penalty + weight * of(images)
                through = (images * found.gradients).flatten(1).sum(1) + penalty
                (gradient,) = torch.autograd.grad(through.sum(), latents)
            return found.scores + penalty.detach(), gradient

        return value_and_gradient

    def misfits(self, images: Tensor, features: Tensor) -> Tensor:
        """Return where features do not fit yet: (N, 1, H, W) in [0, 1]; of vectors, 1/2 all over.

        1 is twice the mean squared distance of an image's places.
        """
        wrong = (self.features(images) - features).square()
        shape = self._network.layer(self._layer).shape
        if len(shape) != 3:
            return torch.full_like(images[:, :1], 0.5)
        if wrong.shape[1] != shape[0] * shape[1] * shape[2]:
            return torch.full_like(images[:, :1], 0.5)  # of images of another size than the usual
        places = wrong.view(len(images), *shape).sum(1, keepdim=True)
        wide = each_row(partial(_enlarged, size=self._size), places)
        mean = each_row(lambda row: row.mean((2, 3), keepdim=True), wide)
        return (wide / (2 * mean)).nan_to_num(0).clamp(0, 1)


def lengths_squared(features: Tensor) -> Tensor:
    """Return |f|^2, (N,); 1 where all is 0, for there distances stand for themselves."""
    squares = features.square().sum(1)
    return torch.where(squares > 0, squares, torch.ones_like(squares))


def relative_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the relative distance of (N, D) to (N, D), (N,)."""
    return ((found - wanted).square().sum(1) / lengths_squared(wanted)).sqrt()


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size, mode="bilinear")
