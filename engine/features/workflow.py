"""The main job, step by step, as functions: what `fc7 run` does and `import fc7` offers.

    run = extract(source, network, ["conv5", "fc7"], "run/")     activations and maximal patches
    index(run, "fc7")                                            the neighbour graph
    project(run, "fc7", "umap")                                  points

Each does only what is missing, so any of them may be called again after a stop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fc7.engine.data import Source
from fc7.engine.features import patches
from fc7.engine.features.extract import DEFAULT_BATCH_ROWS, Extract
from fc7.engine.features.neighbors import DEFAULT_K as DEFAULT_NEIGHBORS
from fc7.engine.features.neighbors import AllNeighbors
from fc7.engine.features.patches import TopPatches
from fc7.engine.features.project import Projection
from fc7.engine.models import Network
from fc7.engine.store import (
    DEFAULT_PART_ROWS,
    Job,
    Output,
    Report,
    Run,
    Summary,
    run_map,
    run_stage,
)
from fc7.engine.store.technique import begun, opened
from fc7.engine.store.vectors import PIXELS


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; none of it changes what a row means, all but the last three is recorded.

    Attributes:
        dtype: `float16` or `float32`, of stored activations.
        maps: store whole maps of spatial layers.
        top_k: maximal patches of each channel; 0 for none.
        batch_rows: images in one forward pass.
        part_rows: rows committed together.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    dtype: str = "float16"
    maps: bool = False
    top_k: int = patches.DEFAULT_K
    batch_rows: int = DEFAULT_BATCH_ROWS
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None


def extract(
    data: str | Path | Source,
    model: str | Network,
    layers: Sequence[str],
    out: str | Path,
    options: ExtractOptions | None = None,
) -> Run:
    """Extract layers of a network over a data set into a run; see `extract_with_summaries`."""
    return extract_with_summaries(data, model, layers, out, options)[0]


def extract_with_summaries(
    data: str | Path | Source,
    model: str | Network,
    layers: Sequence[str],
    out: str | Path,
    options: ExtractOptions | None = None,
) -> tuple[Run, list[Summary]]:
    """Extract layers of a network over a data set into a run, with their maximal patches.

    Layers that the run holds already are continued or left alone; others join it.

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        layers: their names; `pixels` keeps the images themselves, 32 x 32.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what each of its extraction jobs did.

    Raises:
        FingerprintError: the run in `out` has another source, network or options.
    """
    options = options or ExtractOptions()
    source, network = opened(data, model)
    wanted = list(dict.fromkeys(layers))
    for layer in wanted:  # a wrong name is found before anything is written
        if layer != PIXELS:
            network.layer(layer)
    run = begun(source, network, out, options.part_rows)
    summaries = []
    for name, members in _share_out(run, wanted).items():
        job = Extract(
            network,
            source,
            members,
            name=name,
            dtype=options.dtype,
            maps=options.maps,
            batch_rows=options.batch_rows,
            threads=options.threads,
        )
        outputs = {output.name: output for output in job.outputs}
        folds = _folds(outputs, members, options.top_k)
        summaries.append(run_map(run, job, folds, options.parts, options.report))
    return run, summaries


def index(
    run: Run,
    layer: str,
    k: int = DEFAULT_NEIGHBORS,
    metric: str = "l2",
    report: Report | None = None,
) -> Job:
    """Find the k nearest rows of every row in one layer; see `AllNeighbors`."""
    return run_stage(run, AllNeighbors(run, layer, k, metric, report))


def project(
    run: Run,
    layer: str,
    method: str,
    dimensions: int = 2,
    sample: int | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Job:
    """Project one layer to 2 or 3 dimensions; see `Projection`."""
    return run_stage(run, Projection(run, layer, method, dimensions, sample, seed, report))


def _share_out(run: Run, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return the jobs to run: those that hold wanted layers, and a new one for the others."""
    held: dict[str, list[str]] = {}
    for job in run.jobs().values():
        if job.kind == "map" and job.name.startswith("extract"):
            members = dict.fromkeys(o.attributes["layer"] for o in job.outputs.values())
            held[job.name] = list(members)
    jobs = {name: members for name, members in held.items() if set(members) & set(wanted)}
    rest = [layer for layer in wanted if not any(layer in members for members in held.values())]
    if rest:
        jobs["extract" if not held else f"extract-{len(held) + 1}"] = rest
    return jobs


def _folds(outputs: Mapping[str, Output], layers: Sequence[str], k: int) -> list[TopPatches]:
    if k < 1:
        return []
    return [TopPatches.of(outputs, layer, k) for layer in layers if layer != PIXELS]
