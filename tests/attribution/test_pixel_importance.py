"""From gradients to one number a pixel; and that guided gradients point at the object."""

import pytest
import torch

from fc7.bench.attribution_quality import BAR, quality
from fc7.engine.attribution.pixel_importance import importance
from fc7.engine.errors import OptionError


def test_each_way_pixel_by_pixel() -> None:
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    for how, of in (
        ("largest", lambda colours: max(abs(c) for c in colours)),
        ("sum", lambda colours: sum(abs(c) for c in colours)),
        ("positive", lambda colours: sum(max(c, 0) for c in colours)),
    ):
        found = importance(maps, how)  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        for n in range(2):
            for y in range(5):
                for x in range(4):
                    wanted = of(maps[n, :, y, x].tolist())
                    assert float(found[n, y, x]) == pytest.approx(wanted, rel=1e-6)


def test_smoothing_is_a_gaussian_within_each_map() -> None:
    maps = torch.zeros(2, 3, 21, 17)
    maps[1, 0, 10, 8] = -3
    found = importance(maps, "largest", blur=1.5)
    assert float(found[0].abs().max()) == 0
    assert float(found[1].sum()) == pytest.approx(3, rel=1e-4)
    for y, x in ((10, 9), (12, 8), (13, 11)):
        squared = (y - 10) ** 2 + (x - 8) ** 2
        ratio = float(torch.exp(torch.tensor(-squared / (2 * 1.5**2))))
        assert float(found[1, y, x] / found[1, 10, 8]) == pytest.approx(ratio, rel=1e-3)


def test_arguments_out_of_range() -> None:
    maps = torch.zeros(1, 3, 4, 4)
    for how, blur in (("mean", 0.0), ("sum", -1.0), ("sum", float("nan"))):
        with pytest.raises(OptionError, match="there are largest, sum, positive"):
            importance(maps, how, blur)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"maps \(N, 3, H, W\)"):
        importance(maps[0])


def test_guided_maps_point_at_objects_that_the_network_has_not_seen() -> None:
    """On 200 pictures: the bar that `fc7.bench.attribution_quality` measures on 500."""
    found = quality(200, 0, ["guided", "gradient"])
    pointing = {name: each["pointing"] for name, each in found.items()}
    assert pointing["guided, largest"] > pointing["centre"] + BAR
    assert pointing["gradient, largest"] > pointing["random"] + BAR
