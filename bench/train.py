"""Train a TinyAlexNet: `python -m fc7.bench.train tiny-shapes --seed 0 --out other.safetensors`.

The shipped `tiny-shapes` and `tiny-cifar10` come from this script; another `--seed` gives
another network of the same kind, to see which findings hold for both. The recipe is short and
usual: flips and shifts, stochastic gradient descent with Nesterov's momentum, a one-cycle
learning rate (Smith and Topin, 2018) and smoothed labels (Szegedy et al., 2016). A quarter of an
hour on two processor cores is enough for either network.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from fc7.engine.data import Source, open_source
from fc7.engine.errors import Fc7Error
from fc7.engine.models.tiny import (
    TinyAlexNet,
    TinyConfig,
    fold_batch_norm,
    load_tiny,
    tiny_config,
)

HELD_OUT = 5_000
EPOCHS = {"tiny-shapes": 6.0, "tiny-cifar10": 18.0}
SHAPES_TRAIN = "shapes:60000:1"
SHAPES_TEST = f"shapes:{HELD_OUT}:2"


@dataclass(frozen=True)
class Examples:
    """Images, uint8 (N, 3, H, W) in channels-last memory, and labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_examples(source: Source, start: int = 0, stop: int | None = None) -> Examples:
    """Decode the rows from `start` to `stop` of a source whose images are all of one size."""
    rows = range(start, len(source) if stop is None else stop)
    images = torch.stack([source.decode(source.read(row)) for row in rows])
    labels = source.rows(rows.start, rows.stop)["label"].to_numpy()
    return Examples(
        images.contiguous(memory_format=torch.channels_last),
        torch.tensor(labels, dtype=torch.int64),
    )


def normalise(images: Tensor, config: TinyConfig) -> Tensor:
    """Images, uint8 (N, 3, H, W) -> what the network was made for, float32 of that shape."""
    mean = torch.tensor(config.mean, device=images.device).reshape(3, 1, 1)
    std = torch.tensor(config.std, device=images.device).reshape(3, 1, 1)
    return (images.float() / 255 - mean) / std


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and shift each by up to a tenth of its side: same shape.

    What a shift uncovers is filled by reflection. Every image draws its own numbers.
    """
    count, _, height, width = images.shape
    reach = height // 10
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect").to(images.dtype)
    top, left = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator)
    columns = torch.arange(width).expand(count, -1)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns) + left
    lines = torch.arange(height) + top
    one = torch.arange(count).reshape(-1, 1, 1)
    # Indices around a slice put the channels last, which is the memory order wanted anyway.
    return padded[one, :, lines[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def fit(
    network: TinyAlexNet,
    config: TinyConfig,
    examples: Examples,
    epochs: float,
    seed: int,
    batch_size: int = 256,
    peak_learning_rate: float = 0.1,
) -> Iterator[float]:
    """Yield the loss after each step of one training run; the network learns in place.

    Args:
        network: a TinyAlexNet with batch normalisation.
        config: whose normalisation the images get.
        examples: the training set; a last batch that is not full is left out.
        epochs: passes over the examples; a fraction stops within a pass.
        seed: of the order and the augmentation.
        batch_size: images a step.
        peak_learning_rate: reached after a fifth of the steps.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    steps = max(1, round(epochs * (len(examples) // batch_size)))
    # Only weights decay: neither biases nor the scales of batch normalisation.
    parameters: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in network.parameters() if p.ndim <= 1]},
    ]
    optimizer = torch.optim.SGD(
        parameters,
        lr=peak_learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    # Linearly up from a twenty-fifth of the peak within a fifth of the steps, then down to 0.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(np.interp(step / steps, [0, 0.2, 1], [0.04, 1, 0]))
    )
    network.train()
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(examples), generator=generator)
        batch, order = order[:batch_size], order[batch_size:]
        images = flip_and_shift(examples.images[batch], generator).to(device)
        # bfloat16 halves the time where the processor multiplies it natively; it needs no
        # scaling of the loss, and the weights themselves stay in float32.
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            logits = network(normalise(images, config))
        labels = examples.labels[batch].to(device)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        yield loss.item()
    network.eval()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not every torch that fc7 runs on can tell; float32 is then the safe answer.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16", False))


@torch.inference_mode()
def accuracy(network: nn.Module, config: TinyConfig, examples: Examples) -> float:
    """The share of the examples whose largest logit is their label, in float32."""
    device = next(network.parameters()).device
    right = 0
    for start in range(0, len(examples), 500):
        batch = slice(start, start + 500)
        predicted = network(normalise(examples.images[batch].to(device), config)).argmax(1)
        right += int((predicted.cpu() == examples.labels[batch]).sum())
    return right / len(examples)


def save_weights(file: Path, network: TinyAlexNet, metadata: dict[str, str]) -> None:
    """Write a plain network as float16: half the bytes, for less than 0.1 % of accuracy."""
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, file, metadata)


def split(name: str, cifar: str | None) -> tuple[Examples, Examples]:
    """Read the training and the held-out examples of one of the two networks."""
    if name == "tiny-shapes":
        return read_examples(open_source(SHAPES_TRAIN)), read_examples(open_source(SHAPES_TEST))
    if cifar is None:
        raise Fc7Error(f"{name} is trained on CIFAR-10: name its Parquet files with --cifar")
    source = open_source(cifar)
    cut = len(source) - HELD_OUT
    return read_examples(source, 0, cut), read_examples(source, cut)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="tiny-shapes or tiny-cifar10")],
    cifar: Annotated[str | None, typer.Option(help="glob of CIFAR-10's Parquet files")] = None,
    seed: Annotated[int, typer.Option(help="of weights, order and augmentation")] = 0,
    epochs: Annotated[float | None, typer.Option(help="passes; default 6 or 18")] = None,
    out: Annotated[Path | None, typer.Option(help="default: NAME-SEED.safetensors")] = None,
) -> None:
    """Train one network, write it, and print its accuracy on the rows held out.

    Example: python -m fc7.bench.train tiny-cifar10 --cifar 'cifar10/*.parquet' --seed 1
    """
    try:
        config = tiny_config(name)
        examples, held_out = split(name, cifar)
    except Fc7Error as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    epochs = EPOCHS[name] if epochs is None else epochs
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    network = TinyAlexNet(config, batch_norm=True)
    network = network.to(device).to(memory_format=torch.channels_last)
    began = time.perf_counter()
    total = 0.0
    for step, loss in enumerate(fit(network, config, examples, epochs, seed), start=1):
        total += loss
        if step % 100 == 0:
            seconds = time.perf_counter() - began
            print(f"step {step}: loss {total / 100:.3f}, {seconds:.0f} s", flush=True)
            total = 0.0

    out = out or Path(f"{name}-{seed}.safetensors")
    plain = fold_batch_norm(network, config).cpu()
    # What is measured is what is shipped: folded, rounded to float16, read back as float32.
    save_weights(out, plain, {})
    top1 = accuracy(load_tiny(name, out), config, held_out)
    metadata = {
        "network": name,
        "dataset": f"{SHAPES_TRAIN}, tested on {SHAPES_TEST}"
        if name == "tiny-shapes"
        else f"CIFAR-10 train split but its last {HELD_OUT} rows, tested on those",
        "seed": str(seed),
        "epochs": f"{epochs:g}",
        "accuracy": f"{top1:.4f}",
        "torch": torch.__version__,
        "mean": str(config.mean),
        "std": str(config.std),
    }
    save_weights(out, plain, metadata)
    print(f"{top1:.2%} of {len(held_out)} held-out rows; {out}, {out.stat().st_size} bytes")


if __name__ == "__main__":
    app()
