"""The built-in networks: plain in structure, small on disk, and as good as they claim."""

import json
import struct
from importlib import resources
from pathlib import Path

import pytest
import torch
from torch import nn

from fc7.bench.train import HELD_OUT, Examples, accuracy, read_examples
from fc7.engine.data import open_source
from fc7.engine.errors import ModelError
from fc7.engine.models.tiny import (
    TINY,
    TinyAlexNet,
    TinyConfig,
    build_tiny,
    fold_batch_norm,
    load_tiny,
    tiny_config,
)

MODULES = [
    *("conv1", "relu1", "pool1", "conv2", "relu2", "pool2"),
    *("conv3", "relu3", "conv4", "relu4", "conv5", "relu5", "pool5", "flatten"),
    *("fc6", "relu6", "fc7", "relu7", "fc8"),
]
# Every width differs, so that an axis taken for another one cannot go unnoticed.
ODD = TinyConfig(
    labels=("a", "b", "c"),
    input_size=(32, 48),
    widths=(5, 7, 6, 4, 3, 11, 9),
    kernels=(7, 5),
    stride=2,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.mark.parametrize("name", TINY)
def test_the_modules_have_the_names_of_the_literature(name: str) -> None:
    config = tiny_config(name)
    network = load_tiny(name)
    assert [child for child, _ in network.named_children()] == MODULES
    assert not network.training
    for child, module in network.named_children():
        if child.startswith("relu"):
            assert type(module) is nn.ReLU
            assert not module.inplace
    images = torch.zeros(2, 3, *config.input_size)
    assert network(images).shape == (2, config.classes)
    assert all(p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("name", TINY)
def test_the_shipped_file_is_small_and_says_where_it_is_from(name: str) -> None:
    content = (resources.files("fc7.engine.models.weights") / f"{name}.safetensors").read_bytes()
    assert len(content) <= 4_000_000
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert metadata["network"] == name
    assert metadata["mean"] == str(TINY[name].mean)
    assert metadata["std"] == str(TINY[name].std)
    assert {"dataset", "seed", "epochs", "accuracy", "torch"} <= set(metadata)
    assert "/" not in metadata["dataset"]


def test_tiny_shapes_knows_rows_it_has_not_seen() -> None:
    # Trained on seed 1; the script's own test is on seed 2. With 2,000 rows the standard error
    # of an accuracy of 0.9 is 0.7 %.
    examples = read_examples(open_source("shapes:2000:3"))
    assert accuracy(load_tiny("tiny-shapes"), TINY["tiny-shapes"], examples) >= 0.90


def test_tiny_cifar10_knows_the_rows_held_out(request: pytest.FixtureRequest) -> None:
    pattern = request.config.getoption("--cifar")
    if pattern is None:
        pytest.skip("CIFAR-10 is not part of the repository; name its files with --cifar GLOB")
    source = open_source(pattern)
    examples = read_examples(source, len(source) - HELD_OUT)
    assert len(examples) == HELD_OUT
    assert accuracy(load_tiny("tiny-cifar10"), TINY["tiny-cifar10"], examples) >= 0.85


def test_a_random_network_keeps_its_signal_and_follows_the_seed() -> None:
    torch.manual_seed(5)
    first = build_tiny("tiny-shapes")
    again = build_tiny("tiny-shapes")
    torch.manual_seed(5)
    same = build_tiny("tiny-shapes")
    assert torch.equal(first.conv1.weight, same.conv1.weight)
    assert not torch.equal(first.conv1.weight, again.conv1.weight)
    logits = first(torch.randn(8, 3, 64, 64))
    # He's scale keeps the second moment near 1 through any depth; pooling by maxima raises it.
    assert 0.3 < logits.std() < 10


def test_folding_batch_norm_changes_nothing() -> None:
    torch.manual_seed(0)
    trained = TinyAlexNet(ODD, batch_norm=True).double()
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            # Unlike fresh statistics, these make every term of the fold matter.
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.uniform_(module.bias, -1, 1)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.1, 3)
    trained.eval()
    plain = fold_batch_norm(trained, ODD)
    assert [child for child, _ in plain.named_children()] == MODULES
    images = torch.randn(4, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        expected, folded = trained(images), plain(images)
    # Eight layers of float64: rounding stays many orders below this.
    torch.testing.assert_close(folded, expected, rtol=1e-11, atol=1e-11)
    assert expected.std() > 1e-3


def test_accuracy_counts_every_row_once() -> None:
    # A network that calls an image by its top left red value; 1,003 is no multiple of the batch.
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            value = ((images[:, 0, 0, 0] * 0.25 + 0.5) * 255 * self.scale).round()
            return nn.functional.one_hot(value.long(), 16).float()

    labels = torch.arange(1003) % 16
    images = labels.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    images[:10, 0] = 15 - images[:10, 0]
    assert accuracy(Reader(), TINY["tiny-shapes"], Examples(images, labels)) == 993 / 1003


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tiny-shapes, tiny-cifar10"):
        load_tiny("tiny-imagenet")
    with pytest.raises(ModelError, match=r"missing\.safetensors"):
        load_tiny("tiny-shapes", tmp_path / "missing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="broken"):
        load_tiny("tiny-shapes", broken)
    other = resources.files("fc7.engine.models.weights") / "tiny-cifar10.safetensors"
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(other.read_bytes())
    with pytest.raises(ModelError, match="foreign"):
        load_tiny("tiny-shapes", foreign)
