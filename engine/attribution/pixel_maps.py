"""A job of maps over pixels: images in, one map a row out, and numbers beside it.

What the map is of, and which numbers, is its maker's affair; see `ClassMaps` and `UnitMaps`.
A second job in the same run, asked differently, is `saliency-2` beside `saliency`, and so are its
arrays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store import Arrays, Output, Report
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.store.part import DEFAULT_PART_ROWS

DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class MapOptions:
    """How a data set goes through.

    Attributes:
        dtype: of stored maps, float32 or float16. Gradients below 6e-8 are zero in float16.
        batch_rows: images in one pass.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    dtype: str = "float32"
    batch_rows: int = 16
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        if self.dtype not in DTYPES:
            raise OptionError(f"no dtype {self.dtype!r}; there are {' and '.join(DTYPES)}")
        if self.threads < 1 or self.batch_rows < 1:
            raise OptionError(
                f"batch_rows is {self.batch_rows}, threads {self.threads}; each is 1 or more"
            )


class Maker(Protocol):
    """What makes the maps of a batch."""

    @property
    def technique(self) -> str:
        """What the maps are called: saliency, guided."""

    @property
    def network(self) -> Network:
        """The network, on the device that computes."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """What distinguishes these maps from others of the same images and network, as JSON."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What else a reader of the maps needs to know, as JSON."""

    @property
    def shape(self) -> tuple[int, ...]:
        """A map's shape, (H, W) or (3, H, W)."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The dtype of each number that stands beside a map, by name."""

    def __call__(self, rows: NDArray[np.int64], pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map images (B, 3, H, W) in [0, 1] of rows to maps (B, *shape) and columns (B,)."""


class PixelMaps:
    """A map from images to maps over their pixels.

    Args:
        maker: what makes them.
        source: where the images come from.
        options: how.
        name: the job's name in the run; its technique, or that and a number. Whoever finds a
            better one in the run may change it.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(self, maker: Maker, source: Source, options: MapOptions, name: str = "") -> None:
        options.check()
        self.name = name or maker.technique
        self._maker, self._source, self._options = maker, source, options

    @property
    def asked(self) -> dict[str, Any]:
        """What distinguishes this job from others of its technique."""
        return {**self._maker.asked, "dtype": self._options.dtype}

    @property
    def outputs(self) -> list[Output]:
        """The map, and what stands beside it."""
        of = {"technique": self._maker.technique, "of": self.name}
        about = {**of, **self.asked, **self._maker.about}
        return [
            Output(self.name, self._maker.shape, self._options.dtype, about),
            *(
                Output(f"{self.name}.{column}", (), dtype, of)
                for column, dtype in self._maker.columns.items()
            ),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        return fingerprint_of(
            self._maker.network,
            **self.asked,
            batch_rows=self._options.batch_rows,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._maker.network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        options, transform = self._options, self._maker.network.transform
        return read_ahead(self._source, numbers, transform, options.batch_rows, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield the maps of each batch in turn, and what stands beside them."""
        for batch in batches(rows, self._options.batch_rows):
            numbers = np.array([row.number for row in batch], dtype=np.int64)
            images = [row.image for row in batch if row.image is not None]
            maps, columns = self.forward(numbers, images)
            yield (
                numbers,
                {
                    self.name: maps.cpu().numpy(),
                    **{f"{self.name}.{name}": of.cpu().numpy() for name, of in columns.items()},
                },
            )

    def forward(
        self, numbers: NDArray[np.int64], batch: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Map uint8 images, each (3, H, W), of rows to maps and to columns."""
        device = self._maker.network.device
        return self._maker(numbers, as_floats(batch, device).div_(255))
