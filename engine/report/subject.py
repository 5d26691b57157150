"""What a report is about: a run, with its images and its network where they can still be had.

Of the rows table only whole columns of numbers are held (labels, four bytes a row; good or not,
one); keys are read for the rows that the page shows. Nothing else here grows with the data set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import Fc7Error
from fc7.engine.store import Job, Run
from fc7.engine.store.run import SourceLike
from fc7.engine.store.vectors import PIXELS

if TYPE_CHECKING:
    from fc7.engine.data import Source
    from fc7.engine.models import Network

UNKNOWN_LABEL = -1
_KEY_LETTERS = 160
_SAMPLE_ROWS = 2048


@dataclass(frozen=True)
class LayerView:
    """One layer of the run.

    Attributes:
        name: as it was asked for.
        values: the output with one number a channel and row: `conv5.max`, or `fc7`.
        channels: how many.
        grid: rows and columns of positions; None for a layer without them.
        rectified: whether a ReLU follows, so that what is negative counts as nothing.
        job: the map that made it.
    """

    name: str
    values: str
    channels: int
    grid: tuple[int, int] | None
    rectified: bool
    job: str


class Subject:
    """A run with its source and its network, or one line each on why they are missing.

    Args:
        run: the run.
        network: the run's network; None to load it as the run describes it.
        source: the run's images; None to open them where the run found them.
        seed: of every choice at random.
    """

    def __init__(
        self, run: Run, network: "Network | None", source: "Source | None", seed: int
    ) -> None:
        self.run, self.seed = run, seed
        self.source, self.why_no_images = _open_source(run, source)
        self.network, self.why_no_network = _open_network(run, network)

    @cached_property
    def maps(self) -> dict[str, Job]:
        """The run's finished maps by name: other jobs' arrays are not whole yet."""
        return {
            name: job
            for name, job in self.run.jobs().items()
            if job.kind == "map" and job.is_complete
        }

    @property
    def extractions(self) -> dict[str, Job]:
        """Those of them that hold layers."""
        return {
            name: job
            for name, job in self.maps.items()
            if any("layer" in output.attributes for output in job.outputs.values())
        }

    @cached_property
    def layers(self) -> list[LayerView]:
        """The layers that the run holds, in order of execution where the network is known."""
        views = [
            view
            for job in self.maps.values()
            for output in job.outputs.values()
            if (view := _view(job.name, output.name, output.shape, output.attributes)) is not None
        ]
        if self.network is None:
            return views
        order = {name: place for place, name in enumerate(self.network.layers)}
        return sorted(views, key=lambda view: order.get(view.name, len(order)))

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """(N,) bool: rows that have data."""
        return self.run.good

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """(N,) int32: every row's label, -1 where it is unknown."""
        return self.run.labels.astype(np.int32)

    @property
    def has_labels(self) -> bool:
        """Whether any row has a label."""
        return bool((self.labels != UNKNOWN_LABEL).any())

    def label_name(self, label: int) -> str:
        """Return a label's name, or its number where it has none, or nothing where unknown."""
        names = self.run.label_names
        if label < 0:
            return ""
        return _shorten(names[label]) if names and label < len(names) else f"label {label}"

    def keys(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[int, str]:
        """Return the keys of some rows; very long ones lose their middle."""
        wanted = np.unique(np.asarray(rows, dtype=np.int64))
        found: dict[int, str] = {}
        at = 0
        for batch in self._batches(["key"]) if len(wanted) else ():
            stop = at + batch.num_rows
            inside = wanted[np.searchsorted(wanted, at) : np.searchsorted(wanted, stop)]
            if len(inside):
                keys = batch.column("key").take(inside - at).to_pylist()
                found |= {int(row): _shorten(key) for row, key in zip(inside, keys, strict=True)}
            at = stop
        return found

    def squares(
        self, rows: Sequence[int] | NDArray[np.int64], side: int
    ) -> Iterator[NDArray[np.uint8] | None]:
        """Yield the middle square of each row's image, in the order asked for.

        uint8 (s, s, 3) with s at most `side`: nothing is enlarged here. Without the images, what
        the run keeps of them (`pixels`) takes their place; without that, or where an image
        cannot be read any more, None.
        """
        if self.source is not None:
            from fc7.engine.data import read_rows
            from fc7.engine.report.pictures import as_pixels, centre_square

            numbers = [int(number) for number in rows]
            for row in read_rows(
                self.source, numbers, lambda image: centre_square(image, side), threads=2
            ):
                yield None if row.image is None else as_pixels(row.image)
        elif any(PIXELS in job.outputs for job in self.maps.values()):
            pixels = self.run[PIXELS]
            for number in rows:
                yield np.ascontiguousarray(pixels[int(number)].transpose(1, 2, 0))
        else:
            yield from (None for _ in rows)

    @property
    def has_pictures(self) -> bool:
        """Whether `squares` has anything to give."""
        return self.source is not None or any(PIXELS in job.outputs for job in self.maps.values())

    def random(self, purpose: str) -> np.random.Generator:
        """Return a generator of its own for one purpose, so that sections do not depend on each
        other's draws.
        """
        return np.random.default_rng([self.seed, *purpose.encode()])

    def sample_values(self, layer: LayerView) -> NDArray[np.float32]:
        """Return a layer's values on up to 2,048 good rows: float32 (rows, C), rectified where
        the network is; what is not finite reads as 0.
        """
        rows = np.flatnonzero(self.good)
        if len(rows) > _SAMPLE_ROWS:
            chosen = self.random("values").choice(rows, _SAMPLE_ROWS, replace=False)
            rows = np.sort(chosen)
        values = np.nan_to_num(
            self.run[layer.values][rows].astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0
        )
        return np.maximum(values, 0) if layer.rectified else values

    def bad_rows(self, limit: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Return the first bad rows (row, key, status, detail), and how many there are of each
        status.
        """
        import pyarrow.compute as pc

        first: list[dict[str, Any]] = []
        counts: dict[str, int] = {}
        for batch in self._batches(["row", "key", "status", "detail"]):
            bad = batch.filter(pc.invert(pc.is_in(batch.column("status"), _usable())))
            for pair in pc.value_counts(bad.column("status")).to_pylist():
                counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
            first += bad.slice(0, max(0, limit - len(first))).to_pylist()
        return first, counts

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        from pyarrow import parquet

        with parquet.ParquetFile(self.run.folder / "rows.parquet") as file:
            yield from file.iter_batches(columns=columns)


def _usable() -> Any:
    import pyarrow as pa

    return pa.array(["ok", "unread"])


def _view(job: str, output: str, shape: tuple[int, ...], attributes: Any) -> LayerView | None:
    """Return the layer that an output tells the values of, or None for every other output."""
    name = str(attributes.get("layer"))
    if len(shape) != 1 or name == PIXELS or output not in (name, f"{name}.max"):
        return None
    spatial = "height" in attributes
    grid = (int(attributes["height"]), int(attributes["width"])) if spatial else None
    return LayerView(name, output, shape[0], grid, bool(attributes.get("rectified")), job)


def _open_source(run: Run, source: "Source | None") -> tuple["Source | None", str]:
    spec = run.meta["source"]["spec"]
    try:
        if source is None:
            from fc7.engine.data import open_source

            source = open_source(spec)
        checked: SourceLike = source
        run.check_source(checked)
    except Fc7Error as error:
        return None, f"the images cannot be had any more ({error})"
    return source, ""


def _open_network(run: Run, network: "Network | None") -> tuple["Network | None", str]:
    from fc7.engine.store.network import network_of

    try:
        if network is None:
            return network_of(run), ""
    except Fc7Error as error:
        return None, f"the network cannot be had ({error})"
    for job in run.jobs().values():
        described = job.fingerprint.get("network")
        if described is not None and described["digest"] != network.digest:
            return None, f"{network.name} has other weights than {job.name} was made with"
    return network, ""


def _shorten(text: str) -> str:
    """Cut the middle out of a text too long to be read, or to be repeated by the thousand."""
    if len(text) <= _KEY_LETTERS:
        return text
    half = (_KEY_LETTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
