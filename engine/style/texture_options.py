"""What textures of a data set are asked for."""

from dataclasses import dataclass, fields
from typing import Any

from fc7.engine.errors import OptionError
from fc7.engine.store import Report
from fc7.engine.style.texture import Synthesiser, TextureOptions

DEFAULT_BATCH_ROWS = 4
DEFAULT_PART_ROWS = 4
"""A texture takes minutes of a CPU, and what a stop costs is up to one part."""


@dataclass(frozen=True)
class TextureJobOptions(TextureOptions):
    """How a data set becomes textures.

    Attributes:
        samples: pictures of each patch, each from other noise.
        side: pixels of the longer side that patches are resized to; their own size if None.
        batch_rows: the most patches of one size that go together.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    samples: int = 1
    side: int | None = None
    batch_rows: int = DEFAULT_BATCH_ROWS
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        super().check()
        for name in ("samples", "batch_rows", "threads"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it is 1 or more")
        if self.side is not None and self.side < 1:
            raise OptionError(f"side is {self.side}; it is 1 or more")

    def asked(self, synthesiser: Synthesiser) -> dict[str, Any]:
        """Return what distinguishes these textures from others of the same patches, as JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(TextureOptions)}
        size = None if self.size is None else list(self.size)
        # In order, as the losses are; JSON's objects have none.
        layers = [[name, share] for name, share in synthesiser.layers.items()]
        more = {"samples": self.samples, "side": self.side}
        return {**own, **more, "layers": layers, "size": size}
