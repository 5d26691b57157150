"""The report: one HTML file for one run, whole in itself, and no larger than it was asked to be."""

from pathlib import Path
from typing import TYPE_CHECKING

from fc7.engine.report.bad_rows import bad_rows
from fc7.engine.report.classes import class_images
from fc7.engine.report.dream import dreams
from fc7.engine.report.facets import facet_images
from fc7.engine.report.filters import filters
from fc7.engine.report.fool import fool
from fc7.engine.report.gradients import gradients
from fc7.engine.report.guided import guided
from fc7.engine.report.importance import importance
from fc7.engine.report.invert import inversions
from fc7.engine.report.maps import maps
from fc7.engine.report.maximal import maximal
from fc7.engine.report.neighbours import neighbours
from fc7.engine.report.occlusion import occlusion
from fc7.engine.report.page import page
from fc7.engine.report.provenance import provenance
from fc7.engine.report.scatter import scatter
from fc7.engine.report.section import Detail
from fc7.engine.report.segmentation import segmentation
from fc7.engine.report.speed import speed
from fc7.engine.report.style import style_pictures
from fc7.engine.report.stylize import styles
from fc7.engine.report.subject import Subject
from fc7.engine.report.texture import textures
from fc7.engine.store import Run
from fc7.engine.store.atomic import publish, temporary_beside

if TYPE_CHECKING:
    from fc7.engine.data import Source
    from fc7.engine.models import Network

LEAST_BYTES = 400_000
"""What the page takes without a single picture: script, tables, 200 bad rows."""
# Of the page, the part that sections with a fixed number of pictures may take; the rest is the
# scatter plot's, which fills what it is given.
_FIXED_SHARE = 0.6
# What is shown of rows that were no images before: by the kind of their source. Of a data set,
# nobody expects it.
_MADE = {"targets": class_images, "facets": facet_images, "pairs": style_pictures}


def write_report(
    run: Run,
    path: Path | None = None,
    network: "Network | None" = None,
    *,
    source: "Source | None" = None,
    channels_per_layer: int = 8,
    queries: int = 6,
    scatter_rows: int = 4000,
    max_bytes: int = 25_000_000,
    seed: int = 0,
) -> Path:
    """Write what a run shows as one HTML file that needs nothing else, not even a network.

    What the run lacks (labels, layers with positions, projections), or what can no longer be had
    (the images, the network), leaves a sentence that says so where its section would be. The same
    run and arguments give the same bytes, but for the date.

    Args:
        run: the run.
        path: the file; `report.html` in the run's folder by default.
        network: the run's network; by default it is loaded as the run describes it.
        source: the run's images; by default they are opened where the run found them.
        channels_per_layer: maximal patches of so many channels a layer.
        queries: rows whose neighbours are shown.
        scatter_rows: rows with a thumbnail in the scatter plot.
        max_bytes: of the file. Where it would be larger, less is shown, and the page says so.
        seed: of every choice at random.

    Returns:
        The file's path.

    Raises:
        ValueError: a number is negative, or `max_bytes` below 400,000.
    """
    for name, value in (
        ("channels_per_layer", channels_per_layer),
        ("queries", queries),
        ("scatter_rows", scatter_rows),
        ("seed", seed),
    ):
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be at least 0")
    if max_bytes < LEAST_BYTES:
        raise ValueError(f"max_bytes is {max_bytes:,}; a report needs at least {LEAST_BYTES:,}")
    path = run.folder / "report.html" if path is None else Path(path)
    subject = Subject(run, network, source, seed)
    content = _fitting_page(subject, Detail(channels_per_layer, queries), scatter_rows, max_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(content)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _fitting_page(subject: Subject, detail: Detail, scatter_rows: int, max_bytes: int) -> bytes:
    """Return the page with as much detail as its bytes allow."""
    after = [speed(subject), bad_rows(subject), provenance(subject)]
    first = filters(subject)
    kind = subject.run.meta["source"]["kind"]
    made = [make for of, make in _MADE.items() if of == kind]
    while True:
        before = [
            first,
            *(make(subject, detail) for make in made),
            maps(subject, detail),
            maximal(subject, detail),
            guided(subject, detail),
            importance(subject, detail),
            occlusion(subject, detail),
            gradients(subject, detail),
            segmentation(subject, detail),
            fool(subject, detail),
            inversions(subject, detail),
            dreams(subject, detail),
            textures(subject, detail),
            styles(subject, detail),
            neighbours(subject, detail),
        ]
        bare = page(subject, [*before, *after])
        if len(bare) <= _FIXED_SHARE * max_bytes or detail.is_nothing:
            plot = scatter(subject, scatter_rows, max_bytes - len(bare))
            return page(subject, [*before, plot, *after])
        detail = detail.smaller()
