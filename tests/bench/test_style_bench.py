"""The plain transfer that ours is measured against: the same gradient, and it comes down."""

import torch

from fc7.bench.style import gradient_error, pictures, plain
from fc7.engine.models import load_model


def test_the_reference_asks_for_the_same_and_comes_down() -> None:
    network = load_model("tiny-cifar10", device="cpu")
    style, content = pictures(None, 40, 2)
    assert gradient_error(network, content, style) < 1e-5
    reference = plain(network, content, style, torch.float32)
    with torch.no_grad():
        start = float(reference(content))
        for search in (None, "strong_wolfe"):
            found = reference.descend(content, 8, search)
            assert 0 <= float(found.min()) <= float(found.max()) <= 1
            assert float(reference(found)) < 0.7 * start
