"""Whether maps depend on what the network has learnt: its weights are shuffled, layer by layer.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity Checks for Saliency Maps" (NeurIPS
2018), section 3.1, cascading randomisation: from the logits down, one layer after the other loses
its weights, and stays without them. A method whose maps stay alike does not explain the network; an
edge detector's do not change at all, and guided backpropagation's are known to change little.

The paper draws weights anew from what they were initialised with. Here a layer's trained numbers
are put into a random order: that forgets as much, and activations keep their scale, whatever
initialisation and normalisation the network was trained with.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from fc7.engine.models import Network
from fc7.engine.models.targets import class_numbers

MapsOf = Callable[[Network, Tensor, Tensor], Tensor]
"""From network, images (N, 3, H, W) and classes (N,) to maps (N, ...), as `saliency_maps`."""


def randomisation_check(
    network: Network,
    images: Tensor,
    maps_of: MapsOf,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
) -> Iterator[tuple[str, Tensor]]:
    """Yield how alike maps are to the trained network's as one layer more loses its weights.

    Args:
        network: the network; it is not changed.
        images: (N, 3, H, W), float in [0, 1].
        maps_of: the method.
        targets: N class numbers; the classes that the trained network predicts if None. Either
            way the maps are of the same classes throughout.
        seed: of the orders that weights are put into.

    Yields:
        The path of a layer, and the rank correlations of the absolute maps, (N,) float64, with
        that layer and all behind it randomised; the layers from the logits down.

    Raises:
        OptionError: there are not N classes.
        ValueError: the maps hold NaN.
    """
    twin = copy.copy(network)
    twin._modules = {"model": copy.deepcopy(network.model)}
    if targets is None:
        with torch.inference_mode():
            targets = network(images.to(network.device)).argmax(1).cpu()
    classes = class_numbers(targets, len(images))
    trained = maps_of(network, images, classes)
    generator = torch.Generator().manual_seed(seed)
    for path in reversed(_weighted(twin, images)):
        _shuffle(twin.model.get_submodule(path), generator)
        yield path, rank_correlation(maps_of(twin, images, classes), trained)


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Return Spearman's correlation of absolute maps.

    Args:
        maps: (N, ...), one map an image.
        others: the same shape.

    Returns:
        (N,) float64, in [-1, 1]; equal values share their mean rank, and what is equal everywhere
        correlates with nothing, 0.

    Raises:
        ValueError: the shapes differ, or there is NaN.
    """
    if maps.shape != others.shape:
        raise ValueError(
            f"expected maps of one shape, got {tuple(maps.shape)} and {tuple(others.shape)}"
        )
    if maps.isnan().any() or others.isnan().any():
        raise ValueError("the maps hold NaN, which has no rank")
    ranks = []
    for each in (maps, others):
        flat = each.detach().abs().flatten(1).cpu().numpy()
        of_map = rankdata(flat, axis=1)
        ranks.append(of_map - of_map.mean(1, keepdims=True))
    one, other = ranks
    lengths = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    products = (one * other).sum(1)
    found = np.divide(products, lengths, out=np.zeros(len(maps)), where=lengths > 0)
    return torch.from_numpy(found)


def _weighted(network: Network, images: Tensor) -> list[str]:
    """Return the modules that hold weights themselves, in the order in which they first run."""
    order: dict[str, None] = {}
    handles = []
    for path, module in network.model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:

            def note(_module: nn.Module, _inputs: object, path: str = path) -> None:
                order[path] = None

            handles.append(module.register_forward_pre_hook(note))
    with torch.inference_mode():
        network(images[:1].to(network.device))
    for handle in handles:
        handle.remove()
    return list(order)


@torch.no_grad()
def _shuffle(module: nn.Module, generator: torch.Generator) -> None:
    """Put the numbers of each of a module's own tensors into another order."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    for tensor in own:
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        tensor.copy_(tensor.reshape(-1)[order].reshape(tensor.shape))
