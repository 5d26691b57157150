"""What is lost of an image with one channel: the rise of inversion error.

    x_c = argmin over x of |F_c(x) - F(x0)|^2 / |F(x0)|^2 + penalties,    from x0 on
    rise of c = e_c(x_c) - e(x*),      e_c(x) = |F_c(x) - F(x0)| / |F(x0)|

F is what a deep layer returns, F_c the same with channel c of a layer before it silenced, x* what
is found with none silenced. It is an inversion (Mahendran and Vedaldi, 2015) through a network that
lacks a channel. Where another image makes up for it, the others can say as much, and the channel
may go; where none does, it told what no other tells. Searches begin from the image itself, where
the whole network makes no error, so that none is lost in another valley than its neighbour's. The
channels of a layer go together, a batch of them at a time.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.synthesis.descent import by_lbfgs
from fc7.engine.synthesis.feature_problem import FeatureProblem, relative_distance
from fc7.engine.synthesis.invert import InvertOptions

# Near 0 and 1 a sigmoid is flat, and pixels there would not move.
_LEAST = 0.02
_NOBODY = -1


@dataclass(frozen=True)
class SilenceOptions:
    """How images are found again without a channel.

    Attributes:
        evaluations: passes through the network and back, of each search.
        variation: the weight of differences between neighbours; see `InvertOptions`.
        colours: the weight of the distance to the mean colour.
        batch_channels: searches at a time; fewer where a pass would not hold them.
    """

    evaluations: int = 10
    variation: float = InvertOptions.variation
    colours: float = InvertOptions.colours
    batch_channels: int = 32

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        if self.evaluations < 1 or self.batch_channels < 1:
            raise OptionError(
                f"evaluations is {self.evaluations}, batch_channels {self.batch_channels}; each "
                "is 1 or more"
            )
        if not (0 <= self.variation < math.inf and 0 <= self.colours < math.inf):
            raise OptionError(
                f"variation is {self.variation} and colours {self.colours}; each is 0 or more"
            )


class Silencer:
    """A network cut off behind a layer, ready to do without channels of those before it.

    Args:
        network: the network.
        behind: the layer that is inverted, a canonical name or module path.
        options: how.

    Attributes:
        together: searches at a time; a search depends on that, and not on which others there are.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(
        self, network: Network, behind: str, options: SilenceOptions | None = None
    ) -> None:
        self._options = options or SilenceOptions()
        self._options.check()
        self._device = network.device
        size = network.input_size
        self.together = images_a_pass(network, self._options.batch_channels, size)
        options = self._options
        self._problem = FeatureProblem(
            network, behind, size, self.together, (), options.variation, options.colours
        )

    def __call__(self, image: Tensor, path: str, channels: int) -> Tensor:
        """Return the rise of every channel, (C,) float32.

        Args:
            image: (3, H, W) in [0, 1].
            path: of the module whose channels are silenced, one at a time; before the layer, or it.
            channels: how many it has.

        Raises:
            QuestionError: nothing flows back to the pixels, or the layer's answer is not finite.
        """
        images = image.to(self._device, torch.float32).expand(self.together, -1, -1, -1)
        images = images.contiguous()
        features = self._problem.features(images)
        start = self._problem.parametrisation.latent(images.clamp(_LEAST, 1 - _LEAST))
        found = torch.cat(
            [
                self._errors(path, part, features, start)
                for part in torch.split(torch.arange(_NOBODY, channels), self.together)
            ]
        )
        return found[1:] - found[0]

    def _errors(self, path: str, silenced: Tensor, features: Tensor, start: Tensor) -> Tensor:
        """Return e of each of some channels, (n,)."""
        count = len(silenced)
        filled = torch.cat([silenced, silenced[-1:].expand(self.together - count)])
        rows, places = torch.arange(self.together), filled.clamp(min=0)
        factors = (filled < 0).float()

        def silence(_module: Any, _arguments: Any, output: Tensor) -> Tensor:
            mask = torch.ones(output.shape[:2])
            mask[rows, places] = factors
            return output * mask.to(output)[:, :, None, None]

        handle = self._problem.folded.model.get_submodule(path).register_forward_hook(silence)
        try:
            function = self._problem.function(features)
            found = by_lbfgs(function, start, self._options.evaluations)
            images = self._problem.parametrisation.images(found.latents).detach()
            return relative_distance(self._problem.features(images), features)[:count].cpu()
        finally:
            handle.remove()
