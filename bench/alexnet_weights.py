"""AlexNet's weights for the benchmarks: `python -m fc7.bench.alexnet_weights FILE.pt`.

Random, so that nothing is downloaded, and drawn after He et al., "Delving deep into rectifiers"
(2015), with zero biases: activations then keep their size from layer to layer, as they do in a
trained network. torchvision's own random weights let the biases drown the image by fc7, where all
rows look alike and a drift measured around their mean would be the drift of next to nothing.
"""

import sys
from pathlib import Path

import torch
from torch import nn


def save_weights(path: Path, seed: int = 0) -> None:
    """Draw AlexNet's weights and save them as a state dict, float32."""
    from torchvision.models import alexnet

    generator = torch.Generator().manual_seed(seed)
    model = alexnet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    torch.save(model.state_dict(), path)


if __name__ == "__main__":
    save_weights(Path(sys.argv[1]))
