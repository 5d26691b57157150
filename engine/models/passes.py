"""How many images are best passed through a network together, forwards and back."""

import math

from fc7.engine.models.network import Network

# On a CPU, how large the largest result of a layer may be in one pass: glibc's malloc keeps blocks
# of up to 32 MiB for the next layer, and gives larger ones back, so that the system clears each
# page of them anew: a twelfth of VGG16's time. Fewer images also keep less.
_LARGEST_BYTES = 32 << 20


def images_a_pass(network: Network, count: int, size: tuple[int, int]) -> int:
    """Return how many of so many images, of a height and width in pixels, go together best."""
    if network.device.type != "cpu":
        return max(1, count)
    height, width = network.input_size
    scale = 4 * size[0] * size[1] / (height * width)
    largest = max((math.prod(layer.shape) for layer in network.layers.values()), default=1) * scale
    return max(1, min(count, int(_LARGEST_BYTES // max(largest, 1))))
