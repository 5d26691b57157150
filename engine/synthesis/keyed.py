"""What a row's random numbers depend on: its job's seed, its number in the data set, its step."""

from collections.abc import Sequence

import numpy as np

from fc7.engine.synthesis.randomness import Keys


def keys_of_rows(seed: int, rows: Sequence[int], steps: Sequence[int]) -> Keys:
    """Return the keys of rows.

    Args:
        seed: from 0 to 2**64 - 1.
        rows: their numbers.
        steps: of each.
    """
    # Mixed, not added: row 1 of the seed 0 and row 0 of the seed 1 have nothing in common.
    seeds = [np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0] for row in rows]
    half = np.array(seeds, dtype=np.uint64) >> np.uint64(1)
    return Keys(half.astype(np.int64), np.array(steps, dtype=np.int64))
