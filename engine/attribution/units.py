"""Units of a layer: one neuron, or a channel where it is strongest.

17            channel 17 of a map, at its strongest place; or neuron 17 of a vector
(17, 5, 8)    the neuron of channel 17 in row 5, column 8
[17, 3, 3]    channel 17 for the first image, channel 3 for the others
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models.layers import Layer

Unit = int | tuple[int, int, int] | Sequence[int] | Sequence[tuple[int, int, int]] | Tensor


class Units:
    """One unit of a layer for each image.

    Args:
        layer: the layer, of maps or vectors.
        unit: a channel; a neuron, as a tuple of channel, row and column; or a list or tensor with
            one of these for each image, (N,) or (N, 3).
        images: N.

    Attributes:
        channels: (N,) int64.
        places: (N, 2) int64, row and column; None for where each channel is strongest.

    Raises:
        OptionError: the layer has no such unit, or there is not one for each image.
    """

    def __init__(self, layer: Layer, unit: Unit, images: int) -> None:
        numbers = _numbers(unit)
        if isinstance(unit, int | tuple):
            numbers = numbers[None].expand(images, *numbers.shape)
        if len(numbers) != images:
            raise OptionError(f"{len(numbers)} units for {images} images; give one for each")
        self._layer = layer
        self.channels = numbers if numbers.ndim == 1 else numbers[:, 0]
        self.places = None if numbers.ndim == 1 else numbers[:, 1:]
        self._check()

    def of(self, rows: slice) -> Callable[[Tensor], Tensor]:
        """Return what reads the units of some rows from the layer's output: (N, ...) to (N,)."""

        def score(output: Tensor) -> Tensor:
            channels = self.channels[rows].to(output.device)
            if output.ndim == 2:
                return output.gather(1, channels[:, None])[:, 0]
            maps = output[torch.arange(len(output), device=output.device), channels].flatten(1)
            return maps.gather(1, self._positions(rows, maps)[:, None])[:, 0]

        return score

    def positions(self, output: Tensor) -> Tensor:
        """Return where the units are, (N,) int64, row * columns + column; 0 in a vector.

        Args:
            output: (N, C, H, W) or (N, D), what the layer returns of all the images.
        """
        if output.ndim == 2:
            return torch.zeros(len(output), dtype=torch.int64)
        rows = torch.arange(len(output), device=output.device)
        maps = output[rows, self.channels.to(output.device)].flatten(1)
        return self._positions(slice(None), maps)

    def _positions(self, rows: slice, maps: Tensor) -> Tensor:
        if self.places is None:
            return maps.detach().argmax(1)
        places = self.places[rows].to(maps.device)
        return places[:, 0] * self._layer.shape[2] + places[:, 1]

    def _check(self) -> None:
        name, shape = self._layer.name, self._layer.shape
        if len(shape) not in (1, 3):
            raise OptionError(
                f"{name} returns {shape}, neither maps nor a vector, and has no units"
            )
        if self.places is not None and len(shape) == 1:
            raise OptionError(f"{name} is a vector of {shape[0]}; name a unit by one number")
        what = "channel" if len(shape) == 3 else "unit"
        _check_range(what, self.channels, shape[0], name)
        if self.places is not None:
            for axis, kind in enumerate(("row", "column")):
                _check_range(kind, self.places[:, axis], shape[axis + 1], name)


def _numbers(unit: Unit) -> Tensor:
    try:
        numbers = torch.as_tensor(unit)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0, dtype=torch.float32)
    single = isinstance(unit, int | tuple)
    fits = numbers.shape in ((), (3,)) if single else numbers.shape[1:] in ((), (3,))
    if not fits or numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise OptionError(
            f"no unit {unit!r}; name a channel, or channel, row and column, in whole numbers"
        )
    return numbers.to("cpu", torch.int64)


def _check_range(what: str, numbers: Tensor, count: int, layer: str) -> None:
    for number in numbers.tolist():
        if not 0 <= number < count:
            raise OptionError(f"no {what} {number} in {layer}; it has 0 to {count - 1}")
