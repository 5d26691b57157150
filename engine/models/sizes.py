"""Which sizes of images a network takes, as deep as some of its layers.

    sizes = Sizes(network, ["conv5"])
    sizes.runs((63, 80))            # whether such images reach conv5
    sizes.least                     # 63, of AlexNet

Read off a dry run, without weights: a pooling or a convolution that has too little to work on
says so there as well.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models.dryrun import Observer, Stop, dry_run
from fc7.engine.models.network import Network


class _Reaching(Observer):
    """Stops a pass at the deepest of the layers, and refuses one that has nothing left there."""

    def __init__(self, paths: Iterable[str]) -> None:
        super().__init__()
        self._left, self._stops = set(paths), bool(paths)

    def leave(self, path: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel() == 0:
            raise ValueError(f"nothing is left at {path}")
        self._left.discard(path)
        if self._stops and not self._left:
            raise Stop


class Sizes:
    """The sizes of images that reach some layers.

    Args:
        network: the network.
        layers: canonical names or module paths; None is the logits.

    Raises:
        LayerError: there is no such layer.
    """

    def __init__(self, network: Network, layers: Iterable[str | None]) -> None:
        self._network = network
        self._layers = tuple(layers)
        paths = {network.layer(name).path for name in self._layers if name is not None}
        self._paths = set() if None in self._layers else paths
        self._known: dict[tuple[int, int], bool] = {}
        # A model that does not run without its weights even at its own size is run with them.
        self._for_real = not self._tried(network.input_size, for_real=False)

    def runs(self, size: tuple[int, int]) -> bool:
        """Return whether images of that height and width reach the layers."""
        if size not in self._known:
            self._known[size] = self._tried(size, self._for_real)
        return self._known[size]

    @cached_property
    def least(self) -> int | None:
        """The shortest side that will do, in pixels; None where one size alone will do."""
        height, width = self._network.input_size
        if not self.runs((2 * height, 2 * width)):
            return None
        low, high = 0, max(height, width)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.runs((middle, middle)) else (middle, high)
        return high

    def check(self, size: tuple[int, int], what: str = "an image") -> None:
        """Refuse a size that does not run.

        Args:
            size: height and width in pixels.
            what: is of that size, for the message.

        Raises:
            OptionError: the message names the least size.
        """
        if self.runs(size):
            return
        named = ", ".join("the logits" if name is None else name for name in self._layers)
        own = " x ".join(str(side) for side in self._network.input_size)
        needs = (
            f"{own} pixels, no others; name a convolutional layer"
            if self.least is None
            else f"{self.least} x {self.least} pixels at least; enlarge it"
        )
        raise OptionError(
            f"{what} of {size[0]} x {size[1]} pixels does not reach {named} of "
            f"{self._network.name}, which takes {needs}"
        )

    def _tried(self, size: tuple[int, int], for_real: bool) -> bool:
        try:
            dry_run(self._network.model, size, lambda: _Reaching(self._paths), for_real=for_real)
        except Exception:  # whatever a model raises on an image that is too small for it
            return False
        return True
