"""TinyAlexNet: AlexNet's plan (Krizhevsky et al., 2012) at the scale of 32- and 64-pixel images.

Five convolutions, three of them pooled, then fc6, fc7 and fc8, each under the name the
literature uses. Two trained networks are shipped with the package, `tiny-shapes` and
`tiny-cifar10`; `python -m fc7.bench.train` makes them, and others like them.

Training uses batch normalisation (Ioffe and Szegedy, 2015) after conv1 to fc7. It is linear once
its statistics are fixed, so `fold_batch_norm` moves it into the weights before it, and what is
shipped is the plain network: every ReLU reads a convolution or a linear layer directly.
"""

from collections import OrderedDict
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from fc7.engine.data.shape_drawing import LABELS
from fc7.engine.errors import ModelError

CIFAR10_LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True)
class TinyConfig:
    """What distinguishes one TinyAlexNet from another.

    Args:
        labels: one name a class, in the order of fc8's outputs.
        input_size: height and width in pixels; after conv1's stride a multiple of 8.
        widths: channels of conv1 to conv5, then features of fc6 and fc7.
        kernels: side in pixels of the filters of conv1 and conv2; conv3 to conv5 have 3.
        stride: step of conv1 in pixels.
        mean: per channel, subtracted from an image in [0, 1].
        std: per channel, by which the difference is divided.
    """

    labels: tuple[str, ...]
    input_size: tuple[int, int]
    widths: tuple[int, int, int, int, int, int, int]
    kernels: tuple[int, int]
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def classes(self) -> int:
        """The number of outputs of fc8."""
        return len(self.labels)


TINY: dict[str, TinyConfig] = {
    "tiny-shapes": TinyConfig(
        labels=LABELS,
        input_size=(64, 64),
        widths=(32, 64, 96, 96, 64, 256, 256),
        kernels=(7, 5),
        stride=2,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    ),
    "tiny-cifar10": TinyConfig(
        labels=CIFAR10_LABELS,
        input_size=(32, 32),
        widths=(64, 128, 192, 128, 128, 256, 256),
        kernels=(5, 3),
        stride=1,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
}


class TinyAlexNet(nn.Sequential):
    """Normalised images, float (N, 3, H, W) -> logits, (N, classes).

    The modules, in the order they run: conv1, relu1, pool1, conv2, relu2, pool2, conv3, relu3,
    conv4, relu4, conv5, relu5, pool5, flatten, fc6, relu6, fc7, relu7, fc8. With `batch_norm`,
    norm1 to norm7 stand before the ReLUs and the layers before them have no bias.
    """

    def __init__(self, config: TinyConfig, batch_norm: bool = False) -> None:
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for number, width in enumerate(config.widths[:5], start=1):
            kernel = config.kernels[number - 1] if number <= 2 else 3
            modules[f"conv{number}"] = nn.Conv2d(
                channels,
                width,
                kernel,
                stride=config.stride if number == 1 else 1,
                padding=kernel // 2,
                bias=not batch_norm,
            )
            if batch_norm:
                modules[f"norm{number}"] = nn.BatchNorm2d(width)
            modules[f"relu{number}"] = nn.ReLU()
            if number in (1, 2, 5):
                modules[f"pool{number}"] = nn.MaxPool2d(2)
            channels = width
        modules["flatten"] = nn.Flatten()
        height, width = (side // config.stride // 8 for side in config.input_size)
        features = channels * height * width
        for number, width in enumerate(config.widths[5:], start=6):
            modules[f"fc{number}"] = nn.Linear(features, width, bias=not batch_norm)
            if batch_norm:
                modules[f"norm{number}"] = nn.BatchNorm1d(width)
            modules[f"relu{number}"] = nn.ReLU()
            features = width
        modules["fc8"] = nn.Linear(features, config.classes)
        super().__init__(modules)
        for module in self.modules():
            # He et al. (2015): without it the signal of an untrained network fades with depth.
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def tiny_config(name: str) -> TinyConfig:
    """Return the configuration of that name; ModelError if there is none."""
    if name not in TINY:
        raise ModelError(f"no built-in network {name!r}; there are {', '.join(TINY)}")
    return TINY[name]


def build_tiny(name: str) -> TinyAlexNet:
    """Return the plain network with random float32 weights, drawn from torch's generator."""
    return TinyAlexNet(tiny_config(name))


def load_tiny(name: str, file: Path | None = None) -> TinyAlexNet:
    """Return the trained network in float32, in evaluation mode.

    Args:
        name: one of `TINY`.
        file: safetensors written by `fc7.bench.train`; the shipped ones if None.

    Raises:
        ModelError: the name is unknown, or the file is missing or of another network.
    """
    # Here, so that other networks and random weights do without the package.
    from safetensors import SafetensorError
    from safetensors.torch import load as load_safetensors

    network = build_tiny(name)
    where = file or resources.files("fc7.engine.models.weights") / f"{name}.safetensors"
    try:
        tensors = load_safetensors(where.read_bytes())
        network.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{where} does not hold the weights of {name}: {reason}") from error
    return network.eval()


def fold_batch_norm(trained: TinyAlexNet, config: TinyConfig) -> TinyAlexNet:
    """Return the plain network that computes what `trained` computes in evaluation mode.

    Batch normalisation of z = W x is g (z - m) / s + b with s = sqrt(v + eps), per output; the
    layer with the weights (g / s) W and the bias b - g m / s gives the same.
    """
    plain = TinyAlexNet(config).to(next(trained.parameters()).dtype)
    state: dict[str, Tensor] = {}
    for name, module in trained.named_children():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            layer = name.replace("norm", "conv" if isinstance(module, nn.BatchNorm2d) else "fc")
            assert module.running_mean is not None
            assert module.running_var is not None
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            weight = state[f"{layer}.weight"]
            state[f"{layer}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            state[f"{layer}.bias"] = module.bias - module.running_mean * scale
        else:
            state.update({f"{name}.{key}": value for key, value in module.state_dict().items()})
    plain.load_state_dict(state)
    return plain.eval()
