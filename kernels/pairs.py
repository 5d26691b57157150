"""Sizes that are one number for both directions, or two."""

from collections.abc import Sequence

Pair = int | Sequence[int]
"""One number, or down and across; a sequence of one counts as a number, as torch has it."""


def pair(sizes: Pair) -> list[int]:
    """Return down and across."""
    numbers = [sizes] if isinstance(sizes, int) else list(sizes)
    return numbers * 2 if len(numbers) == 1 else numbers
