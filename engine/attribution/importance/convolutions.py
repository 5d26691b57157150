"""The convolutions of a network, in the order they run, and the activation that follows each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fc7.engine.attribution.importance.stored import ConvolutionLayer
from fc7.engine.errors import ModelError
from fc7.engine.models import Layer, Network
from fc7.engine.models.dryrun import Observer, dry_run, tensors_in

_ACTIVATIONS = frozenset(
    (
        *("relu", "relu6", "hardtanh", "silu", "hardswish", "gelu", "elu", "celu", "selu"),
        *("leaky_relu", "mish", "softplus", "tanh", "sigmoid", "hardsigmoid"),
    )
)


@dataclass(frozen=True)
class Convolution(ConvolutionLayer):
    """A convolution with what is done to its output next.

    Attributes:
        activation: the function of each element that alone reads what the convolution returns;
            None where something else does, such as a sum.
    """

    activation: Callable[[Tensor], Tensor] | None = None


def find_convolutions(network: Network, layers: Mapping[str, Layer]) -> list[Convolution]:
    """Return the two-dimensional convolutions of a network, in the order they (last) return.

    Args:
        network: as it computes: with batch normalisation folded (`Network.folded`), what a
            convolution returns is already normalised.
        layers: of the network as it was loaded, for their names; folded, it lacks some.

    Raises:
        ModelError: there are none.
    """
    reader = dry_run(network.model, network.input_size, lambda: _Reader(network.model))
    names: dict[str, str] = {}
    for name, layer in layers.items():
        names.setdefault(layer.path, name)
    found = [
        Convolution(names.get(path, path), path, channels, reader.activation(path))
        for path, channels in reader.channels.items()
    ]
    if not found:
        raise ModelError(f"{network.name} has no convolutions, so no channels to compare")
    return found


class _Reader(Observer):
    """Sees what reads the output of each convolution."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.channels: dict[str, int] = {}
        self._convolutions = {
            path: module.out_channels
            for path, module in model.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        # By identity, with the tensor itself so that its identity stays taken.
        self._outputs: dict[int, tuple[Tensor, str]] = {}
        self._readers: dict[str, list[Callable[[Tensor], Tensor] | None]] = {}

    def leave(self, path: str, output: Any) -> None:
        """Note a convolution that returns."""
        if path in self._convolutions and isinstance(output, Tensor):
            self.channels.pop(path, None)
            self.channels[path] = self._convolutions[path]
            self._outputs[id(output)] = output, path
            self._readers[path] = []

    def activation(self, path: str) -> Callable[[Tensor], Tensor] | None:
        """Return the only function that reads a convolution's output, if it is an activation."""
        readers = self._readers[path]
        return readers[0] if len(readers) == 1 else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # A question about a shape has no tensor for an answer, and reads nothing.
        if next(tensors_in(result), None) is None:
            return result
        for tensor in list(tensors_in([args, kwargs])):
            if id(tensor) in self._outputs:
                _, path = self._outputs[id(tensor)]
                self._readers[path].append(_activation_of(func, args, kwargs))
                if result is tensor:  # changed in place: what reads it later reads the activation
                    del self._outputs[id(tensor)]
        return result


def _activation_of(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[Tensor], Tensor] | None:
    name = getattr(func, "__name__", "").removesuffix("_")
    if name not in _ACTIVATIONS or next(tensors_in([args[1:], kwargs]), None) is not None:
        return None

    def activation(values: Tensor) -> Tensor:
        result: Tensor = func(values.clone(), *args[1:], **kwargs)  # it may work in place
        return result

    return activation
