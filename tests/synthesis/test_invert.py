"""Inversions: what is minimised against float64, rows by themselves, depth, and hostile input."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from company import images
from torch import Tensor, nn

from fc7.engine.data import open_source
from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError, OptionError, QuestionError
from fc7.engine.models import Network, load_model
from fc7.engine.store import open_store
from fc7.engine.synthesis.invert import Inversions, Inverter, InvertOptions, invert_images
from fc7.engine.synthesis.invert_job import InvertJobOptions, invert
from fc7.engine.synthesis.leaky import Leaky

SIZE = (13, 17)
MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.3, 0.25)
FEW = InvertOptions(evaluations=18, starts=1, batch_rows=4)


def network_of(model: nn.Module, size: tuple[int, int] = SIZE) -> Network:
    transform = Transform(resize=size, crop=None)
    return Network(model, "case", weights="random", transform=transform, mean=MEAN, std=STD,
                   device="cpu")  # fmt: skip


def small(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return network_of(
        nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(10, 12, 3),
            nn.ReLU(), nn.Flatten(), nn.Linear(12 * 3 * 5, 9), nn.ReLU6(), nn.Linear(9, 4),
        )
    )  # fmt: skip


def pictures(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Smooth, as photographs are."""
    coarse = images(count, (4, 4), seed)
    return nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def same(a: Inversions, b: Inversions, of_a: list[int], of_b: list[int]) -> None:
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name)[of_a], getattr(b, field.name)[of_b]
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1)), field.name


@pytest.mark.parametrize("layer", ["0", "3", "8"])
@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_what_is_minimised_and_said_is_the_paper_s(layer: str, optimiser: str) -> None:
    network, x0 = small(), pictures(3)
    model = copy.deepcopy(network.model).double()[: int(layer) + 1]
    options = dataclasses.replace(FEW, optimiser=optimiser, variation=0.3, colours=0.02)
    found = invert_images(network, x0, layer, options)
    mean, std = (torch.tensor(c, dtype=torch.float64)[:, None, None] for c in (MEAN, STD))
    assert found.images.shape == x0.shape
    assert found.images.dtype == torch.float32
    for row in range(3):
        x, wanted = found.images[row].double(), x0[row].double()
        f, f0 = (model((each - mean)[None] / std) for each in (x, wanted))
        error = float((f - f0).square().sum() / f0.square().sum())
        height, width = SIZE
        colours, variation = float(((x - mean).abs() / 0.5).pow(6).sum()) / (height * width), 0.0
        for i in range(height):
            for j in range(width):
                down = x[:, i + 1, j] - x[:, i, j] if i + 1 < height else 0 * x[:, i, j]
                across = x[:, i, j + 1] - x[:, i, j] if j + 1 < width else 0 * x[:, i, j]
                variation += float((down**2 + across**2).sum()) / 0.05**2 / (height * width)
        loss = error + 0.02 * colours + 0.3 * variation
        assert float(found.losses[row]) == pytest.approx(loss, rel=1e-4)
        assert float(found.errors[row]) == pytest.approx(math.sqrt(error), rel=1e-3)
        pixels = float((x - wanted).norm() / (wanted - mean).norm())
        assert float(found.pixel_errors[row]) == pytest.approx(pixels, rel=1e-4)
        curve = found.curves[row]
        assert curve.shape == (18,)
        used = int(found.evaluations[row])
        assert curve.isnan().sum() == 18 - used
        assert float(curve[~curve.isnan()][-1]) == float(found.losses[row])


def test_without_penalties_an_image_comes_back_from_a_layer_that_keeps_all() -> None:
    torch.manual_seed(0)
    network, x0 = network_of(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())), pictures(2)
    found = invert_images(network, x0, "0", InvertOptions(120, 1, variation=0, colours=0))
    assert found.errors.max() < 0.03
    assert found.pixel_errors.max() < 0.05


def test_the_deeper_the_less_of_the_pixels() -> None:
    network = load_model("tiny-cifar10", device="cpu")
    x0 = pictures(2, (32, 32))
    options = InvertOptions(evaluations=60, starts=1, batch_rows=2)
    found = {
        layer: invert_images(network, x0, layer, options) for layer in ("conv1", "conv4", "fc7")
    }
    of_pixels = [float(each.pixel_errors.mean()) for each in found.values()]
    assert of_pixels == sorted(of_pixels)
    assert found["conv1"].errors.max() < 0.03
    for each in found.values():
        assert each.errors.max() < 0.4  # of noise it is about 1


@pytest.mark.parametrize("layer", ["3", "8"])
def test_a_row_is_bit_identical_in_any_company(layer: str) -> None:
    inverter = Inverter(small(), layer, dataclasses.replace(FEW, starts=2), SIZE)
    x0 = pictures(5)
    assert inverter.together == 4
    whole = inverter(x0)
    same(whole, inverter(x0[[4, 1, 3, 0, 2]]), [4, 1, 3, 0, 2], [0, 1, 2, 3, 4])
    same(whole, inverter(x0[2:3]), [2], [0])
    # A mate that no image comes close to, and one that is found at once.
    black = torch.stack([x0[0], torch.zeros_like(x0[0]), torch.ones_like(x0[0])])
    same(whole, inverter(black), [0], [0])


def test_of_several_starts_the_best_is_kept() -> None:
    network, x0 = small(), pictures(3)
    options = [dataclasses.replace(FEW, starts=count) for count in (1, 2, 3)]
    losses = torch.stack([invert_images(network, x0, "8", each).losses for each in options])
    assert bool((losses.diff(dim=0) <= 0).all())
    assert bool((losses[2] < losses[0]).any())
    others = invert_images(network, x0, "8", dataclasses.replace(FEW, seed=1))
    assert not torch.equal(others.losses, losses[0])


def test_from_the_image_itself_nothing_is_left_to_find() -> None:
    network, x0 = small(), pictures(2) * 0.8 + 0.1
    options = InvertOptions(evaluations=10, variation=0, colours=0)
    found = invert_images(network, x0, "8", options, start=x0)
    assert found.errors.max() < 1e-5
    assert found.pixel_errors.max() < 1e-5


def test_a_layer_that_is_silent_is_matched_by_silence() -> None:
    network, x0 = small(), pictures(2)
    with torch.no_grad():
        network.model[3].bias.fill_(-1e3)  # the ReLU behind it lets nothing through
    found = invert_images(network, x0, "4", FEW)
    assert found.errors.tolist() == [0, 0]
    assert bool(found.images.isfinite().all())


def test_leaky_relus_are_relus_with_a_slope() -> None:
    x = torch.linspace(-2, 8, 21, dtype=torch.float64)
    for slope in (0.0, 0.1):
        with Leaky(slope) as mode:
            found = [nn.ReLU()(x), x.clone().relu_(), x.clamp(min=0)]
            six, clamped = nn.ReLU6()(x), x.clamp(-1, 1)
        assert mode.rewritten >= 3
        for each in found:
            assert torch.equal(each, torch.where(x > 0, x, slope * x))
        assert torch.equal(six, x.clamp(0, 6))
        assert torch.equal(clamped, x.clamp(-1, 1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": pictures(1, (3, 4))}, "3 x 4 pixels"),
        ({"images": pictures(1) + 1}, "outside of"),
        ({"images": torch.full((1, 3, *SIZE), torch.nan)}, "NaN"),
        ({"images": torch.zeros(1, 1, *SIZE)}, "expected"),
        ({"images": torch.zeros(0, 3, *SIZE)}, "none"),
        ({"images": torch.zeros(1, 3, *SIZE, dtype=torch.uint8)}, "uint8"),
        ({"start": torch.full((1, 3, *SIZE), torch.nan)}, "start: NaN"),
        ({"start": pictures(2)}, "shape"),
        ({"evaluations": 3}, "evaluations is 3"),
        ({"starts": 0}, "starts 0"),
        ({"variation": -1.0}, "variation is -1"),
        ({"colours": math.nan}, "colours nan"),
        ({"optimiser": "magic"}, "lbfgs, adam"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_line(changed: dict[str, Any], message: str) -> None:
    x0 = changed.pop("images", pictures(1))
    start = changed.pop("start", None)
    with pytest.raises(OptionError, match=message) as caught:
        invert_images(small(), x0, "8", InvertOptions(**{"evaluations": 8, **changed}), start)
    assert "\n" not in str(caught.value)


def test_layers_and_weights_that_are_not_there() -> None:
    network = small()
    with pytest.raises(LayerError, match="conv9"):
        invert_images(network, pictures(1), "conv9")
    with torch.no_grad():
        network.model[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(QuestionError, match="not finite"):
        invert_images(network, pictures(1), "8")


def test_a_data_set_goes_on_after_a_stop_and_other_layers_join(tmp_path: Path) -> None:
    network = load_model("tiny-shapes", device="cpu")
    data, out = "shapes:5:0", tmp_path / "run"
    options = InvertJobOptions(evaluations=8, starts=2, batch_rows=2, part_rows=3)
    begun = dataclasses.replace(options, parts="1::2")
    invert(data, network, ["conv3"], out, begun)
    run = invert(data, network, ["conv3", "fc7"], out, options)
    again = invert(data, network, ["conv3"], out, dataclasses.replace(options, evaluations=9))
    assert sorted(again.jobs()) == ["invert-conv3", "invert-conv3-2", "invert-fc7"]
    whole = invert(data, network, ["conv3"], tmp_path / "whole", options)
    names = ["", ".error", ".pixel_error", ".evaluations", ".curve"]
    for name in names:
        one, other = (each[f"invert-conv3{name}"][:] for each in (open_store(out), whole))
        np.testing.assert_array_equal(one, other)
    source = open_source(data)
    x0 = torch.stack([source.decode(source.read(row)) for row in range(5)]).float() / 255
    found = Inverter(network, "conv3", options, count=3)(x0)
    kept = torch.from_numpy(run["invert-conv3"][:])
    assert torch.equal(kept, found.images.mul(255).round().byte())
    layer = network.activations(kept.float() / 255, ["conv3"])["conv3"].flatten(1)
    wanted = network.activations(x0, ["conv3"])["conv3"].flatten(1)
    errors = (layer - wanted).norm(dim=1) / wanted.norm(dim=1)
    np.testing.assert_allclose(run["invert-conv3.error"][:], errors, rtol=1e-3)
    assert run.job("invert-fc7").outputs["invert-fc7"].attributes["layer"] == "fc7"
    with pytest.raises(OptionError, match="which layer"):
        invert(data, network, [], out, options)
