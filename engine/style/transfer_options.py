"""What a job of style transfer is asked for."""

from dataclasses import dataclass

from fc7.engine.errors import OptionError
from fc7.engine.store import Report
from fc7.engine.style.transfer import StyleOptions
from fc7.engine.synthesis.picture_files import check_format

DEFAULT_BATCH_ROWS = 8
DEFAULT_PART_ROWS = 16
"""A picture takes minutes of a CPU, and what a stop costs is up to one part."""


@dataclass(frozen=True)
class StyleJobOptions(StyleOptions):
    """How a data set takes on styles.

    Attributes:
        side: pixels of the longer side that contents are resized to; their own size if None.
        form: of the pictures, "png", or "webp" with some loss.
        batch_rows: the most images of one size that go together.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    side: int | None = None
    form: str = "png"
    batch_rows: int = DEFAULT_BATCH_ROWS
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        super().check()
        check_format(self.form)
        if self.threads < 1 or self.batch_rows < 1:
            raise OptionError(
                f"batch_rows is {self.batch_rows}, threads {self.threads}; each is 1 or more"
            )
        if self.side is not None and self.side < 1:
            raise OptionError(f"side is {self.side}; it is 1 or more")
