"""Random numbers against numpy's Philox, statistics, and each other."""

import numpy as np
import pytest
import torch
from company import keys, same_in_any_company, taken
from scipy import stats

from fc7.engine.synthesis.randomness import Keys, Purpose, integers, normal, uniform


def of(seed: int, step: int, place: int = 0) -> Keys:
    return Keys(np.array([seed], dtype=np.int64), np.array([step], dtype=np.int64), place)


def test_the_words_are_those_of_numpys_philox() -> None:
    for seed, step, place, purpose in ((7, 3, 0, Purpose.JITTER), (-1, 2**40, 5, Purpose.START)):
        philox = np.random.Philox(
            key=np.array([seed % 2**64, step], dtype=np.uint64), counter=[0, 0, place, int(purpose)]
        )
        words = [int(word) for word in philox.random_raw(6)]
        halves = [half for word in words for half in (word % 2**32, word >> 32)]
        expected = [(half >> 8) / 2**24 for half in halves]
        found = uniform(of(seed, step, place), purpose, (11,))
        assert found.dtype == torch.float32
        assert found[0].tolist() == expected[:11]
        shares = [((word >> 11) + 1) / 2**53 for word in words]
        wanted = []
        for length, turn in zip(shares[0::2], shares[1::2], strict=True):
            radius = np.sqrt(-2 * np.log(length))
            wanted += [radius * np.cos(2 * np.pi * turn), radius * np.sin(2 * np.pi * turn)]
        drawn = normal(of(seed, step, place), purpose, (5,))
        assert drawn.dtype == torch.float32
        np.testing.assert_allclose(drawn[0].numpy(), wanted[:5], rtol=2e-7)


def test_a_seed_means_these_numbers_for_ever() -> None:
    """Runs that are continued by a later version must go on with the same numbers."""
    assert (uniform(of(1, 2), Purpose.JITTER, (4,)) * 2**24).tolist() == [
        [10128681, 9651939, 4519434, 7070779]
    ]
    for keyed, expected in (
        (of(1, 2), (-0.9537338614463806, 1.198825478553772)),
        (of(-5, 2**40, 3), (1.8232622146606445, 0.6912685036659241)),
    ):
        purpose = Purpose.NOISE if keyed.place else Purpose.START
        assert normal(keyed, purpose, (2,))[0].tolist() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("shape", [(), (1,), (3, 7, 5), (2, 0)])
def test_rows_draw_for_themselves(shape: tuple[int, ...]) -> None:
    all_keys = keys(5)
    for draw in (uniform, normal):
        assert draw(all_keys, Purpose.START, shape).shape == (5, *shape)
        same_in_any_company(lambda rows, d=draw: d(taken(all_keys, rows), Purpose.START, shape), 5)
    assert uniform(taken(all_keys, []), Purpose.START, shape).shape == (0, *shape)


def test_streams_differ_by_seed_step_purpose_and_place() -> None:
    streams = [
        uniform(of(seed, step, place), purpose, (64,))[0]
        for seed in (0, 1, -1, 2**32)
        for step in (0, 1, 2**32)
        for place in (0, 1, 64)
        for purpose in (Purpose.START, Purpose.JITTER, Purpose.ROTATION)
    ]
    drawn = torch.stack(streams)
    assert len(drawn.unique(dim=0)) == len(streams)
    # 108 streams of 64 numbers: the largest of 5,778 correlations, each of deviation 1/8, is 0.50
    # or less in 9 of 10 trials, and these numbers are the same at each run.
    correlations = torch.corrcoef(drawn.double()).fill_diagonal_(0)
    assert float(correlations.abs().max()) < 0.6


def test_uniform_and_normal_numbers_are_distributed_so() -> None:
    many = Keys(np.arange(200, dtype=np.int64), np.zeros(200, dtype=np.int64))
    shares = uniform(many, Purpose.NOISE, (501,))
    assert float(shares.min()) >= 0
    assert float(shares.max()) < 1
    assert stats.kstest(shares.flatten().double(), "uniform").pvalue > 0.01
    drawn = normal(many, Purpose.NOISE, (501,)).flatten().double()
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert abs(float(drawn.mean())) < 4 / 100_200**0.5


def test_whole_numbers_are_all_as_likely() -> None:
    many = Keys(np.arange(3000, dtype=np.int64), np.ones(3000, dtype=np.int64))
    drawn = integers(many, Purpose.JITTER, 2, 7)
    assert drawn.shape == (3000, 2)
    assert drawn.dtype == torch.int64
    assert stats.chisquare(torch.bincount(drawn.flatten(), minlength=7)).pvalue > 0.01
    assert integers(many, Purpose.JITTER, 1, 1).eq(0).all()
    for below in (0, 2**16 + 1):
        with pytest.raises(ValueError, match="whole numbers below"):
            integers(many, Purpose.JITTER, 1, below)


def test_places_in_chains_of_chains_differ() -> None:
    root = of(0, 0)
    places = {root.within(a).within(b).place for a in range(63) for b in range(63)}
    places |= {root.within(a).place for a in range(63)} | {0}
    assert len(places) == 63 * 63 + 63 + 1
    for place in (-1, 63):
        with pytest.raises(ValueError, match="place"):
            root.within(place)


@pytest.mark.parametrize(
    ("seeds", "steps"),
    [
        (np.zeros(2, dtype=np.int64), np.zeros(3, dtype=np.int64)),
        (np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.int64)),
        (np.zeros(2, dtype=np.int64), np.zeros(2)),
        (np.zeros((2, 1), dtype=np.int64), np.zeros((2, 1), dtype=np.int64)),
    ],
)
def test_keys_are_one_int64_a_row(seeds: np.ndarray, steps: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(N,\) int64"):
        Keys(seeds, steps)
