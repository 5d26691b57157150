"""The transformer network beside its formulas, in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.style.fast.transformer import Architecture, Transformer

Array = NDArray[np.float64]
SIZES = [(1, 1), (5, 3), (8, 9), (24, 20), (37, 53)]


def network(**parts: Any) -> Transformer:
    """A network whose scales and shifts are not 1 and 0."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Transformer(Architecture(**{"width": 3, "blocks": 2, **parts}))
        for name, parameter in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, 1.0 if "weight" in name else 0.0, 0.3)
    return model.eval()


def images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def reference(model: Transformer, image: Array, shares: Array) -> Array:
    """Return one image (3, H, W) in its style, by loops over a kernel's places."""
    state = {name: each.double().numpy() for name, each in model.state_dict().items()}

    def convolved(x: Array, name: str, stride: int = 1) -> Array:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        side = weight.shape[2]
        reach = side // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
        height, width = ((length - 1) // stride + 1 for length in x.shape[1:])
        found = np.zeros((len(weight), height, width)) + bias[:, None, None]
        for row in range(side):
            for column in range(side):
                seen = padded[:, row : row + stride * height : stride][
                    :, :, column : column + stride * width : stride
                ]
                found += np.einsum("oc,chw->ohw", weight[:, :, row, column], seen)
        return found

    def step(x: Array, name: str, stride: int = 1) -> Array:
        x = convolved(x, f"{name}.conv", stride)
        mean, variance = x.mean((1, 2)), x.var((1, 2))
        scale, shift = (shares @ state[f"{name}.norm.{kind}"] for kind in ("weight", "bias"))
        normal = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
        return normal * scale[:, None, None] + shift[:, None, None]

    def rectified(x: Array) -> Array:
        return np.maximum(x, 0)

    height, width = image.shape[1:]
    below, right = (max(8, math.ceil(side / 4) * 4) - side for side in (height, width))
    x = 2 * np.pad(image, ((0, 0), (0, below), (0, right)), mode="edge") - 1
    for number, stride in enumerate((1, 2, 2)):
        x = rectified(step(x, f"down.{number}", stride))
    for number in range(len(model.blocks)):
        first = rectified(step(x, f"blocks.{number}.first"))
        x = x + step(first, f"blocks.{number}.second")
    for number in range(2):
        x = rectified(step(x.repeat(2, 1).repeat(2, 2), f"up.{number}"))
    return (1 / (1 + np.exp(-convolved(x, "last"))))[:, :height, :width]


@pytest.mark.parametrize("size", SIZES)
def test_is_the_formula(size: tuple[int, int]) -> None:
    model, x = network(styles=3), images(2, size)
    shares = torch.tensor([[0.5, 0.2, 0.3], [0.0, 0.0, 1.0]])
    with torch.inference_mode():
        found = model(x, shares)
    assert found.shape == x.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    for row in range(2):
        expected = reference(model, x[row].double().numpy(), shares[row].double().numpy())
        # 11 convolutions of up to 243 products each, normalised: 1e-7 of float32 grows to 1e-5.
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=0, atol=2e-5)


def test_a_style_learns_from_its_own_images_alone() -> None:
    model, x = network(styles=2).train(), images(2, (16, 12))
    made = model(x, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    made.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if "norm" in name:
            assert not parameter.grad[0].any(), name
        assert parameter.grad.any() or "conv.bias" in name, name


def test_a_row_is_the_same_in_any_company() -> None:
    model, x = network(width=8, styles=2), images(4, (21, 33))
    shares = torch.tensor([[0.3, 0.7]]).expand(4, -1)
    with torch.inference_mode():
        whole = model(x, shares)
        for rows in ([3, 2, 1, 0], [1, 1, 1, 1], [0, 3, 3, 2]):
            assert torch.equal(model(x[rows], shares), whole[rows])


def test_batch_normalisation_goes_by_the_batch_and_then_by_what_it_saw() -> None:
    model, x, one = network(norm="batch"), images(3, (16, 20)), torch.ones(3, 1)
    alone = model(x[:1], one[:1])
    torch.testing.assert_close(model(x, one)[:1], alone, rtol=0, atol=1e-6)
    model.train()
    together = model(x, one)
    assert (together[:1] - alone).abs().max() > 0.01
    assert int(model.state_dict()["down.0.norm.num_batches_tracked"]) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"width": 0}, "width is 0; it is from 1 to 1024"),
        ({"blocks": -1}, "blocks is -1"),
        ({"blocks": 10**9}, "it is from 0 to 64"),
        ({"norm": "layer"}, "no norm 'layer'; there are instance and batch"),
        ({"styles": 0}, "give an image of one"),
        ({"styles": 2, "norm": "batch"}, "knows one style, and there are 2"),
    ],
)
def test_what_cannot_be_built_is_named(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Transformer(Architecture(**parts))
