"""A transformer network as an ONNX file, which runs without torch.

    images   (batch, 3, height, width) float32 in [0, 1]       mixture   (batch, styles) float32
    stylized (batch, 3, height, width) float32 in [0, 1]

Batch, height and width may be any; a mixture's rows add up to 1. A network of one style takes
images alone.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from fc7.engine.errors import OptionError
from fc7.engine.models.network import first_line
from fc7.engine.style.fast.stylizer import Stylizer
from fc7.engine.style.fast.transformer import Transformer

SUFFIX = ".onnx"
_PACKAGES = ("onnx", "onnxscript")
# Of what the network is traced with: a number that nothing in it could take for its own.
_SIZE = (24, 20)


def check_onnx() -> None:
    """Raise OptionError where a package is missing."""
    for package in _PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise OptionError(
                f"an ONNX file needs the package {package} ({first_line(error)}); "
                "pip install 'fc7[onnx]'"
            ) from error


def export_onnx(stylizer: Stylizer, file: Path) -> None:
    """Write the network as an ONNX file; whoever calls sees to it that it appears whole.

    Raises:
        OptionError: a package is missing.
        OSError: the file cannot be written.
    """
    check_onnx()
    styles = len(stylizer.styles)
    images = torch.zeros(2, 3, *_SIZE, device=stylizer.device)
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    inputs: tuple[Tensor, ...] = (images,)
    dynamic: tuple[dict[int, torch.export.Dim], ...] = ({0: batch, 2: height, 3: width},)
    names, model = ["images"], _OneStyle(stylizer.model) if styles == 1 else stylizer.model
    if styles > 1:
        inputs += (torch.full((2, styles), 1 / styles, device=stylizer.device),)
        dynamic += ({0: batch},)
        names.append("mixture")
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            inputs,
            input_names=names,
            output_names=["stylized"],
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        content = program.model_proto
    content.doc_string = f"Styles, in this order: {', '.join(stylizer.styles)}"
    file.write_bytes(content.SerializeToString())


class _OneStyle(nn.Module):
    """A network of one style, which all of an image is in."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.model(images, images.new_ones(images.shape[0], 1))
        return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of its own ways from whoever waits for a file."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
