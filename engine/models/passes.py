"""How many images are best passed through a network together, forwards and back."""

import math
from collections.abc import Iterable

from fc7.engine.models.network import Network

# On a CPU, how large the largest result of a layer may be in one pass: glibc's malloc keeps blocks
# of up to 32 MiB for the next layer, and gives larger ones back, so that the system clears each
# page of them anew: a twelfth of VGG16's time. Fewer images also keep less.
LARGEST_BYTES = 32 << 20


def images_a_pass(network: Network, count: int, size: tuple[int, int]) -> int:
    """Return how many of so many images, of a height and width in pixels, go together best."""
    if network.device.type != "cpu":
        return max(1, count)
    height, width = network.input_size
    scale = 4 * size[0] * size[1] / (height * width)
    largest = max((math.prod(layer.shape) for layer in network.layers.values()), default=1) * scale
    return max(1, min(count, int(LARGEST_BYTES // max(largest, 1))))


def bytes_a_pixel(network: Network, layers: Iterable[str | None]) -> float:
    """Return how many bytes all results on the way to some layers take, for each pixel.

    Args:
        network: the network.
        layers: where passes end, canonical names or module paths; None is the logits.

    Raises:
        LayerError: there is no such layer.
    """
    found = network.every_layer
    order = list(found)
    ends = [order[-1] if name is None else network.layer(name).path for name in layers]
    before = order[: max(map(order.index, ends)) + 1]
    # A block returns what the last of its parts does.
    parents = {path[:at] for path in before for at, letter in enumerate(path) if letter == "."}
    counts = (math.prod(found[path].shape) for path in before if path and path not in parents)
    return 4 * sum(counts) / math.prod(network.input_size)
