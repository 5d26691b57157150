"""The occlusion benchmark's gates: a wrong map must not be reported as a fast one."""

import pytest
import torch

from fc7.bench.occlusion import _missed
from fc7.bench.occlusion_approximations import rank_correlation
from fc7.bench.occlusion_contestants import Bench, Case


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(Case("squeezenet1_1", size=80, window=17, stride=9))


def test_the_contestants_make_the_same_map(bench: Bench) -> None:
    assert bench.check(sampled=5)["effect"] > 0
    pytest.importorskip("captum")
    drops = bench.ours()
    # One place's own share of each pixel: the hand-batched map is per place, Captum's per pixel.
    torch.testing.assert_close(drops, bench.by_hand(7), rtol=1e-3, atol=1e-5)
    for channels_last in (False, True):
        bench.check_captum(bench.captum(5, channels_last), drops)


def test_another_map_is_refused(bench: Bench) -> None:
    pytest.importorskip("captum")
    found = bench.captum(8, False)
    with pytest.raises(AssertionError, match="Captum's map is another"):
        bench.check_captum(found, bench.ours().flip(0))


def test_an_error_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = bench.ours() * 1.01
    monkeypatch.setattr(bench, "ours", lambda: wrong)
    with pytest.raises(AssertionError, match="full inference by"):
        bench.check(sampled=5)


def test_missed_bars_are_named() -> None:
    facts = {
        "share_of_planned": 0.8,
        "planned": 3.4,
        "ceiling": 3.46,
        "ratios": {"captum": 3.9, "hand": 3.0},
        "bars": {"captum": 4.0},
        "peak_bytes": {"fc7": 3, "captum": 2},
    }
    assert _missed({"alexnet-224-16/8": facts}) == [
        "alexnet-224-16/8, ratio to captum: 3.90, bar 4.0",
        "alexnet-224-16/8, Captum's peak memory to ours: 0.67, bar 1.0",
    ]


def test_rank_correlation_is_spearmans() -> None:
    exact = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]])
    other = torch.tensor([[[10.0, 20.0], [30.0, 90.0]], [[4.0, 3.0], [2.0, 1.0]]])
    assert rank_correlation(exact, other) == pytest.approx(0.0)
    assert rank_correlation(exact, exact.exp()) == pytest.approx(1.0)
