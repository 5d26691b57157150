"""The attribution benchmark's gates: a wrong gradient must not be reported as a fast one."""

from typing import get_args

import pytest
from torch import Tensor

from fc7.bench.attribution import missed
from fc7.bench.attribution_contestants import WHO, Bench, Case, Method
from fc7.bench.table import attribution_rows

pytest.importorskip("captum")


@pytest.mark.parametrize("method", get_args(Method))
def test_the_contestants_make_the_same_maps(method: Method) -> None:
    bench = Bench(Case("squeezenet1_1", method, size=65))
    errors = bench.check()
    assert set(errors) == set(WHO)
    assert all(0 < error < 0.02 for error in errors.values())
    assert bench.best_batch("fc7", (1, 2)) in (1, 2)


def test_another_map_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(Case("squeezenet1_1", "guided", size=65))
    ours = bench.ours

    def smaller(images: Tensor, targets: Tensor) -> Tensor:
        return ours(images, targets) * 0.95

    monkeypatch.setattr(bench, "ours", smaller)
    with pytest.raises(AssertionError, match=r"guided-squeezenet1_1-65: fc7 is off by 0\.050"):
        bench.check()


def test_missed_bars_are_named_and_the_rows_written() -> None:
    facts = {
        "cpu_seconds_an_image": {"fc7": 0.5},
        "ratios": {"captum": 1.15, "captum, channels last": 0.97},
        "bars": {"captum": 1.2, "captum, channels last": 1.0},
        "peaks": {
            "fc7": {"peak_bytes": 8, "growth_bytes": 3},
            "captum": {"peak_bytes": 10, "growth_bytes": 6},
        },
    }
    cases = {"guided-vgg16-224": facts}
    assert missed(cases) == [
        "guided-vgg16-224, ratio to captum: 1.15, bar 1.2",
        "guided-vgg16-224, ratio to captum, channels last: 0.97, bar 1.0",
        "guided-vgg16-224, peak memory to Captum's: 0.80, bar 0.7",
    ]
    assert [row[1] for row in attribution_rows({"cases": cases})] == [
        "1.15 x (0.500 CPU-s an image)",
        "0.97 x (0.500 CPU-s an image)",
        "0.80 x (0.50 x without what the loaded network takes)",
    ]
