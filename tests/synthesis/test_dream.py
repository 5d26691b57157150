"""DeepDream against the notebook's own loop, in float64 and with scipy's zoom."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError, OptionError
from fc7.engine.models import Network, load_model, passes
from fc7.engine.models.sizes import Sizes
from fc7.engine.synthesis.dream import Dreamer, DreamOptions, dream_images, rolls_of
from fc7.engine.synthesis.guide import guided_by
from fc7.engine.synthesis.objectives import (
    Objective,
    activation_norm,
    channel,
    class_logit,
    neuron,
)
from fc7.engine.synthesis.octaves import closer, resized
from fc7.engine.synthesis.zoom import dream_zoom

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


@pytest.fixture(scope="module")
def smooth() -> Network:
    """Without a switch: in float32 it goes the way that it goes in float64."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    return Network(
        model, "smooth", weights="random", transform=Transform((24, 24), None), device="cpu"
    )


def zoom(image: Array, scale: tuple[float, ...]) -> Array:
    """As the notebook calls scipy, but for a last column that rounding puts outside: 0 there."""
    zoomed: Array = ndimage.zoom(image, scale, order=1, mode="nearest")
    return zoomed


def images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Soft blobs, for noise has nothing at smaller sizes."""
    coarse = torch.rand(count, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    return resized(coarse, size) * 0.8 + 0.1


def notebook(
    network: Network,
    layer: str,
    image: Array,
    options: DreamOptions,
    jitter: int,
    upstream: Callable[[Array], Array] = lambda data: data,
) -> Array:
    """The notebook's deepdream, line by line; images are in [0, 1] and not in 0 to 255.

    `upstream` is its objective: from a layer's data to what is written into its diff.
    """
    model = copy.deepcopy(network.model).double()
    seen: list[Tensor] = []
    path = network.layer(layer).path
    model.get_submodule(path).register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None]
                 for v in (network.mean, network.std))  # fmt: skip

    def gradient(pixels: Array) -> Array:
        x = torch.from_numpy(pixels.copy())[None].requires_grad_()
        seen.clear()
        try:
            model((x - mean) / std)
        except RuntimeError:  # what stands behind the layer may not take this size
            assert seen
        diff = torch.from_numpy(upstream(seen[0][0].detach().numpy()).copy())[None]
        (found,) = torch.autograd.grad(seen[0], x, diff)
        return found[0].numpy()

    octaves = [image]
    for _ in range(options.octaves - 1):
        scale = (1, 1 / options.ratio, 1 / options.ratio)
        octaves.append(zoom(octaves[-1], scale))
    detail, step = np.zeros_like(octaves[-1]), 0
    for octave, base in enumerate(octaves[::-1]):
        height, width = base.shape[-2:]
        if octave > 0:
            h1, w1 = detail.shape[-2:]
            detail = zoom(detail, (1, height / h1, width / w1))
        source = base + detail
        for _ in range(options.steps):
            ((oy, ox),) = rolls_of([options.seed], step, (jitter, jitter)).tolist()
            step += 1
            source = np.roll(np.roll(source, ox, -1), oy, -2)
            g = gradient(source)
            source = source + options.step_size / 255 / np.abs(g).mean() * g
            source = np.roll(np.roll(source, -ox, -1), -oy, -2)
            source = np.clip(source, 0, 1)
        detail = source - base
    return source


@pytest.mark.parametrize(("octaves", "steps", "size"), [(1, 1, (24, 24)), (3, 4, (41, 30))])
def test_is_the_notebook_s_dream(
    smooth: Network, octaves: int, steps: int, size: tuple[int, int]
) -> None:
    x, options = images(2, size), DreamOptions(octaves, steps=steps, step_size=4.0, jitter=3)
    found = dream_images(smooth, x, "3", options).images
    for row in range(2):
        expected = notebook(smooth, "3", x[row].double().numpy(), options, jitter=3)
        moved = float(np.abs(expected - x[row].numpy()).mean())
        assert moved > 0.01
        # Rounding of a step of 4 / 255 by single precision, and what further steps make of it.
        np.testing.assert_allclose(found[row].numpy(), expected, atol=2e-4 * moved * steps)


def test_is_the_notebook_s_dream_on_a_trained_network(network: Network) -> None:
    """A ReLU or a pooling near a tie may go another way than in float64: the rest is the same."""
    x, options = images(1, (40, 56)), DreamOptions(octaves=2, steps=3)
    found = dream_images(network, x, "conv4", options).images[0].numpy()
    expected = notebook(network, "conv4", x[0].double().numpy(), options, round(32 * 40 / 224))
    moved = np.abs(expected - x[0].numpy()).mean()
    assert np.abs(found - expected).mean() < 0.01 * moved


def test_guided_as_in_the_notebook(smooth: Network) -> None:
    x, options = images(1, (30, 33)), DreamOptions(octaves=2, steps=2, step_size=4.0, jitter=2)
    guide = torch.rand(3, 21, 26, generator=torch.Generator().manual_seed(5))
    features = smooth.activations(guide[None], ["3"])["3"][0].double().flatten(1).numpy()

    def upstream(data: Array) -> Array:
        flat = data.reshape(len(data), -1)
        products = flat.T.dot(features)
        return features[:, products.argmax(1)].reshape(data.shape)

    found = dream_images(smooth, x, guided_by(smooth, "3", guide), options)
    expected = notebook(smooth, "3", x[0].double().numpy(), options, 2, upstream)
    moved = float(np.abs(expected - x[0].numpy()).mean())
    # Where two of the guide's vectors fit alike, rounding chooses.
    assert float(np.abs(found.images[0].numpy() - expected).mean()) < 0.005 * moved
    assert found.after > found.before


def test_rolls_are_keyed_and_undone(network: Network) -> None:
    steps = [rolls_of([5, 6, 5], step, (4, 0)) for step in range(400)]
    assert {int(rolls[0, 0]) for rolls in steps} == set(range(-4, 5))
    assert {int(rolls[0, 1]) for rolls in steps} == {0}
    assert all(torch.equal(rolls[0], rolls[2]) for rolls in steps)
    assert not all(torch.equal(rolls[0], rolls[1]) for rolls in steps)
    assert torch.equal(rolls_of([6], 7, (4, 0))[0], steps[7][1])
    # Steps too small to move a pixel of single precision: what remains is roll and unroll.
    x = images(2, (24, 31))
    still = dream_images(network, x, "conv3", DreamOptions(steps=3, step_size=1e-30, octaves=1))
    assert torch.equal(still.images, x)


def test_detail_is_carried_and_the_image_is_not(network: Network) -> None:
    """An image that is nothing at smaller sizes keeps its own pixels: only detail is enlarged."""
    x = torch.zeros(1, 3, 48, 48)
    x[..., ::2, ::2] = 1.0
    options = DreamOptions(octaves=3, steps=1, step_size=1e-3)
    found = dream_images(network, x, "conv4", options).images
    assert float((found - x).abs().max()) < 0.02
    deep = dream_images(network, images(1, (64, 64)), "conv4", DreamOptions(octaves=3, steps=5))
    flat = dream_images(network, images(1, (64, 64)), "conv4", DreamOptions(octaves=1, steps=5))
    # What small octaves painted is coarse: it survives being shrunk.
    coarse = [
        float((resized(each.images - images(1, (64, 64)), (8, 8))).abs().mean())
        for each in (deep, flat)
    ]
    assert coarse[0] > 1.5 * coarse[1]


@pytest.mark.parametrize(
    "objective",
    ["conv4", "relu5", activation_norm("conv3") + 50.0 * channel("conv5", 5), channel("conv4", 3)],
)
def test_what_is_asked_for_rises_and_images_stay_images(
    network: Network, objective: str | Objective
) -> None:
    dreams = dream_images(network, images(2, (37, 50)), objective, DreamOptions(octaves=2, steps=5))
    assert (dreams.after > dreams.before).all()
    assert (dreams.gain > 0.3).all()
    assert dreams.images.shape == (2, 3, 37, 50)
    assert dreams.images.min() >= 0
    assert dreams.images.max() <= 1


@pytest.mark.parametrize("largest", [1, 600_000, 1 << 25])
def test_a_row_is_bit_identical_anywhere_in_any_company(
    network: Network, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where five go through one by one, or three and two: 600 kB are two windows of 32."""
    monkeypatch.setattr(passes, "LARGEST_BYTES", largest)
    x = images(5, (21, 38))
    asked = [channel("conv4", unit) for unit in range(5)]
    options, seeds = DreamOptions(octaves=2, steps=1, tile=32), [4, 3, 2, 1, 0]
    whole = dream_images(network, x, asked, options, seeds)
    order = [3, 0, 4, 2, 1]
    moved = dream_images(
        network, x[order], [asked[n] for n in order], options, [seeds[n] for n in order]
    )
    assert torch.equal(moved.images, whole.images[order])
    assert torch.equal(moved.after, whole.after[order])
    others = torch.full_like(x, torch.nan)
    others[1] = x[3]
    among = dream_images(network, others, [asked[3]] * 5, options, [1] * 5)
    assert torch.equal(among.images[1], whole.images[3])
    assert not torch.equal(
        dream_images(network, x[:1], asked[:1], options, [4]).images,
        dream_images(network, x[:1], asked[:1], options, [5]).images,
    )


def test_what_nothing_moves_stays(network: Network) -> None:
    """A dead channel has no gradient, and nothing to divide by."""
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        model.get_submodule("conv3").bias[2] = -1e6
    dead = Network(
        model, "dead", weights="own", transform=network.transform, mean=network.mean,
        std=network.std, device="cpu",
    )  # fmt: skip
    x = images(1, (32, 32))
    found = dream_images(dead, x, channel("relu3", 2), DreamOptions(octaves=1, steps=2))
    assert torch.equal(found.images, x)
    assert found.gain.tolist() == [0.0]


def test_frames_go_a_step_closer_each(network: Network) -> None:
    options = DreamOptions(octaves=2, steps=2, seed=4)
    x = images(1, (30, 41))
    frames = list(dream_zoom(network, x, "conv3", 3, 1.2, options))
    dreamer = Dreamer(network, [activation_norm("conv3")], options)
    expected = x
    for number, frame in enumerate(frames):
        if number:
            expected = closer(expected, 1.2)
        expected = (dreamer(expected, [4], number).images * 255).round() / 255
        assert torch.equal(frame.images, expected)


def test_small_images_have_fewer_octaves(network: Network) -> None:
    dreamer = Dreamer(network, [activation_norm("conv5")], DreamOptions(octaves=6))
    assert Sizes(network, ["conv5"]).least == 4
    assert dreamer.octaves((16, 12)) == [(6, 4), (8, 6), (11, 9), (16, 12)]
    assert dreamer.octaves((4, 4)) == [(4, 4)]
    assert Sizes(network, ["conv1"]).least == 1


SMALL = torch.full((1, 3, 3, 9), 0.5)


@pytest.mark.parametrize(
    ("x", "objective", "options", "error", "says"),
    [
        (SMALL, "conv9", {}, LayerError, "conv9"),
        (SMALL, channel("conv4", 999), {}, OptionError, "name one from 0 to"),
        (SMALL, "conv5", {}, OptionError, "of 3 x 9 .* takes 4 x 4 pixels at least"),
        (SMALL, "fc7", {}, OptionError, "takes 32 x 32 pixels, no others"),
        (SMALL, class_logit(3), {}, OptionError, "reach the logits of tiny-cifar10"),
        (images(1, (40, 40)), "conv5", {"tile": 3}, OptionError, "a tile of 3 x 3"),
        (images(1, (40, 40)), neuron("conv5", 1), {"tile": 32}, OptionError, "Neuron looks at"),
        (SMALL, "conv1", {"octaves": 0}, OptionError, "octaves is 0"),
        (SMALL, "conv1", {"steps": 0}, OptionError, "steps is 0"),
        (SMALL, "conv1", {"ratio": 1.0}, OptionError, "ratio is 1.0"),
        (SMALL, "conv1", {"step_size": float("nan")}, OptionError, "step_size is nan"),
        (SMALL, "conv1", {"seed": -1}, OptionError, "seed is -1"),
    ],
)
def test_what_cannot_be_dreamt(
    network: Network,
    x: Tensor,
    objective: str | Objective,
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says) as caught:
        dream_images(network, x, objective, DreamOptions(**options))
    assert "\n" not in str(caught.value)


def test_arguments_of_another_shape(network: Network) -> None:
    with pytest.raises(ValueError, match="expected float images"):
        dream_images(network, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "conv1")
    with pytest.raises(ValueError, match="as many objectives and seeds"):
        dream_images(network, images(2, (32, 32)), [channel("conv1", 0)])
    with pytest.raises(OptionError, match="no places to guide"):
        guided_by(network, "fc7", torch.zeros(3, 32, 32))
    with pytest.raises(OptionError, match="a guide of 2 x 2"):
        guided_by(network, "conv5", torch.zeros(3, 2, 2))
    with pytest.raises(OptionError, match="frames is 0"):
        next(dream_zoom(network, images(1, (32, 32)), "conv1", 0))
