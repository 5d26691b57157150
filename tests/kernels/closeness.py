"""How near a kernel must come to its float64 reference."""

import torch
from torch import Tensor


def assert_within_twice(ours: Tensor, theirs: Tensor, reference: Tensor) -> None:
    """Assert that our largest error is at most twice torch's own plus 1e-6.

    Args:
        ours: what the kernel returned.
        theirs: the same by torch's operators in the same dtype.
        reference: the definition in float64.
    """
    reference = reference.to(torch.float64).cpu()
    assert ours.shape == theirs.shape == reference.shape
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    assert ours.isfinite().all(), "not finite: something was not written, or overflowed"
    if reference.numel():
        error = (ours - reference).abs().max().item()
        bound = 2 * (theirs - reference).abs().max().item() + 1e-6
        assert error <= bound, f"error {error:.3g}, but torch's own allows {bound:.3g}"
