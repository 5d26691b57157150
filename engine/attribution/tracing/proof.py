"""Whether a network's operations do what the network does: they are run beside it.

Three images go through the operations together, and through the network one by one. Both agree
within rounding, or the operations are not the network's: it counts its images or mixes them, or
something in it is not what its trace says.
"""

import torch
from torch import Tensor, nn

from fc7.engine.attribution.tracing.ops import Graph

# Errors allowed, as shares of how much images differ and of the logits themselves. What is to be
# found is gross, another batch size or a layer left out; what must pass is rounding.
_OF_SPREAD = 0.05
_EPSILONS_OF_LOGITS, _MOST_OF_LOGITS = 64, 0.03
_EPSILON_OF_TF32 = 2**-11  # a GPU may choose it for one batch size and not for another


def agrees(graph: Graph, model: nn.Module, size: tuple[int, int], device: torch.device) -> bool:
    """Say whether operations, on a batch, return what the model does for each image alone.

    Args:
        graph: the operations.
        model: from images (N, 3, H, W), float32 in [0, 1], to logits.
        size: height and width of the images in pixels.
        device: where the model is.
    """
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    images *= torch.tensor([0.3, 0.6, 1])[:, None, None, None]
    images = images.to(device, memory_format=torch.channels_last)
    alone = one_by_one(model, images).double()
    try:
        for _, value in graph.values(images):
            logits = value  # the last; to keep them all would take too much memory
    except Exception:  # whatever ATen raises where another batch size stands in an operation
        return False
    together = logits.double()
    if together.shape != alone.shape:
        return False
    epsilon = max(
        (torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point()),
        default=torch.finfo(torch.float32).eps,
    )
    if device.type == "cuda":
        epsilon = max(epsilon, _EPSILON_OF_TF32)
    of_logits = min(_EPSILONS_OF_LOGITS * epsilon, _MOST_OF_LOGITS)
    spread = (alone - alone.mean(0)).abs().max()
    allowed = _OF_SPREAD * spread + of_logits * alone.abs().max()
    return bool(((together - alone).abs() <= allowed).all())


def one_by_one(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of each image, (N, classes), as if there were no other."""
    # A squeeze in the model may take the axis of the images away where there is one.
    return torch.cat([model(image).reshape(1, -1) for image in torch.split(images, 1)])
