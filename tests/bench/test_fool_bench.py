"""The benchmark of adversarial examples: it finds what is wrong, and ours are Foolbox's."""

import pytest
import torch
from torch import Tensor

from fc7.bench.fool import RedError, alone, compare, judged, missed
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.models import Network, load_model


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def images() -> Tensor:
    source = ShapesSource(3, 987654)
    return torch.stack([source.decode(source.read(row)) for row in range(3)]).float() / 255


def test_ddn_is_foolbox_s(network: Network, images: Tensor) -> None:
    """Both follow the authors' program, so that they part by rounding alone."""
    pytest.importorskip("foolbox")
    facts = compare(network, images, steps=12, batch=3, case="untargeted")
    assert facts["fc7"]["success"] == facts["foolbox"]["success"] == 1
    assert abs(facts["ratios"]["median_l2"] - 1) < 1e-3
    assert facts["ratios"]["cpu_seconds"] > 0


def test_margin_ascent_is_judged(network: Network, images: Tensor) -> None:
    facts = alone(network, images[:1])
    assert facts["fc7"]["success"] == 1
    assert facts["fc7"]["median_evaluations"] == facts["fc7"]["most_evaluations"] > 1


def test_what_is_wrong_is_red(network: Network, images: Tensor) -> None:
    with pytest.raises(RedError, match="leave"):
        judged(network, images, images + 1, torch.zeros(3, dtype=torch.int64), False)
    goals = network(images).argmax(1)
    assert judged(network, images, images, goals, untargeted=True)["success"] == 0
    assert judged(network, images, images, goals, untargeted=False)["median_l2"] == 0


def test_bars() -> None:
    good = {"fc7": {"success": 1.0}, "ratios": {"median_l2": 1.05, "cpu_seconds": 0.9}}
    assert missed({"targeted": good, "margin": {"fc7": {"success": 1.0}}}) == []
    slow = {"fc7": {"success": 0.99}, "ratios": {"median_l2": 1.2, "cpu_seconds": 1.1}}
    assert len(missed({"targeted": slow})) == 3
