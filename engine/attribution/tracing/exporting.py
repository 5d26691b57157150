"""torch.export, kept from asking what it gets no answer to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def export(
    model: nn.Module, example: Tensor, dynamic: bool = False
) -> torch.export.ExportedProgram:
    """Return a network's program on images like an example, or on batches of any size.

    Args:
        model: from images (N, 3, H, W) to logits (N, classes).
        example: some images.
        dynamic: whether N may vary.
    """
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    with _with_an_answer_about_tf32():
        return torch.export.export(model, (example,), dynamic_shapes=shapes)


@contextmanager
def _with_an_answer_about_tf32() -> Iterator[None]:
    """Let torch.export read whether cuDNN may use TF32, as older releases call it.

    Where the newer settings, one for each kind of operation, differ from one another or from the
    older, torch raises instead of answering; the program does not depend on the answer.
    """
    cudnn: Any = torch.backends.cudnn
    try:
        bool(cudnn.allow_tf32)
    except RuntimeError:
        kinds = (cudnn.conv, cudnn.rnn)
        kept = [kind.fp32_precision for kind in kinds]
        try:
            for kind in kinds:
                kind.fp32_precision = "tf32"
            yield
        finally:
            for kind, precision in zip(kinds, kept, strict=True):
                kind.fp32_precision = precision
    else:
        yield
