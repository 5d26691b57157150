"""The main job: `run`, `extract`, `plan` and `demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import (
    BATCH,
    MAX_PIXELS,
    PART_ROWS,
    conclude,
    open_data_and_network,
    outcome_of,
    thread_count,
    weights_for_shapes,
)

if TYPE_CHECKING:
    from fc7.engine.data import Source
    from fc7.engine.models import Network
    from fc7.engine.store import Run, Summary

_TOP_K = 9
_PIXEL_NEIGHBORS = 10  # pixels are only ever looked at; nothing is projected from them


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(run)
    app.command()(extract)
    app.command()(plan)
    app.command()(demo)


def run(
    data: o.Data,
    out: o.Out,
    model: o.Model = "alexnet",
    layers: o.Layers = "conv5,fc7",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    dtype: o.Dtype = "float16",
    maps: o.Maps = False,
    top_k: o.TopK = _TOP_K,
    batch: o.Batch = BATCH,
    part_rows: o.PartRows = PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    sample: o.Sample = None,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Do the main job: extract, find neighbours and maximal patches, project, report.

    Example: `fc7 run photos/ --model alexnet --layers conv5,fc7 --out runs/photos`

    Give the same command again after a stop, and it continues.
    """
    from fc7.engine.cli.console import say

    asked = [*o.split_layers(layers), "pixels"]
    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, precision, mean, std, resize, crop
    )
    made, summaries = _extract(
        source, network, asked, out, dtype, maps, top_k, batch, part_rows, threads, parts
    )
    outcome: dict[str, Any] = outcome_of(made, summaries)
    if all(summary.is_complete for summary in summaries):
        outcome["report"] = str(finish(made, network, sample, seed))
        if not json:
            say(f"report: {outcome['report']}")
    conclude(outcome, summaries, strict, json)


def extract(
    data: o.Data,
    out: o.Out,
    model: o.Model = "alexnet",
    layers: o.Layers = "conv5,fc7",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    dtype: o.Dtype = "float16",
    maps: o.Maps = False,
    top_k: o.TopK = _TOP_K,
    batch: o.Batch = BATCH,
    part_rows: o.PartRows = PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Extract activations and maximal patches, and nothing else.

    Example: `fc7 extract 'imagenet/*.tar' --model vgg16 --layers fc7 --out runs/imagenet`

    New layers join an existing run. `--layers pixels` keeps the images themselves, 32 x 32.
    """
    asked = o.split_layers(layers)
    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, precision, mean, std, resize, crop
    )
    made, summaries = _extract(
        source,
        network,
        asked,
        out,
        dtype,
        maps,
        top_k,
        batch,
        part_rows,
        threads,
        parts,
    )
    conclude(outcome_of(made, summaries), summaries, strict, json)


def plan(
    data: o.Data,
    model: o.Model = "alexnet",
    layers: o.Layers = "conv5,fc7",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    resize: o.Resize = None,
    crop: o.Crop = None,
    dtype: o.Dtype = "float16",
    maps: o.Maps = False,
    batch: o.Batch = BATCH,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    json: o.Json = False,
) -> None:
    """Predict bytes, memory and time before anything runs.

    Example: `fc7 plan photos/ --model vgg16 --layers conv5_3,fc7`

    A few rows are read and two batches computed; no weights are needed for that.
    """
    from fc7.engine.cli.console import emit_json, emit_table
    from fc7.engine.features.plan import make_plan
    from fc7.engine.words import bytes_text, seconds_text

    asked, weights = o.split_layers(layers), weights_for_shapes(model, weights)
    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, precision, None, None, resize, crop
    )
    made = make_plan(source, network, asked, dtype, maps, batch)
    if json:
        emit_json(made.to_dict())
        return
    rows = [
        (
            step.name,
            bytes_text(step.disk_bytes),
            bytes_text(step.memory_bytes),
            seconds_text(step.seconds),
            step.note,
        )
        for step in made.steps
    ]
    title = f"{len(source):,} rows of {data} through {model}"
    emit_table(("step", "disk", "memory", "time", "how"), rows, title)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")] = Path("runs/demo"),
    rows: Annotated[int, typer.Option(min=16, help="Images to draw.")] = 2000,
    json: o.Json = False,
) -> None:
    """Run the main job on the built-in pictures with the built-in network.

    Example: `fc7 demo`
    """
    run(
        data=f"shapes:{rows}:0",
        out=out,
        model="tiny-shapes",
        layers="conv1,conv2,conv3,conv5,fc6,fc7",
        json=json,
    )


def finish(made: "Run", network: "Network", sample: int | None, seed: int) -> Path:
    """Do what follows extraction: neighbour graphs, projections, the report."""
    from fc7.engine.cli.console import progress
    from fc7.engine.features.project import METHODS, MIN_ROWS
    from fc7.engine.features.workflow import index, project
    from fc7.engine.report import write_report
    from fc7.engine.store.vectors import PIXELS, vector_layers

    with progress() as report:
        vectors = vector_layers(made)[-1:]  # none where only maps were asked for
        for layer in vectors:
            index(made, layer, report=report)
        index(made, PIXELS, k=_PIXEL_NEIGHBORS, report=report)
        # Two or three images have neighbours and patches to report, but make no map.
        methods = METHODS if int(made.good.sum()) >= MIN_ROWS else ()
        for layer in vectors:
            for method in methods:
                project(made, layer, method, sample=sample, seed=seed, report=report)
        return write_report(made, network=network)


def _extract(
    source: "Source",
    network: "Network",
    layers: list[str],
    out: Path,
    dtype: str,
    maps: bool,
    top_k: int,
    batch: int,
    part_rows: int,
    threads: int | None,
    parts: str | None,
) -> tuple["Run", list["Summary"]]:
    from fc7.engine.cli.console import progress
    from fc7.engine.features.workflow import ExtractOptions, extract_with_summaries

    with progress() as report:
        return extract_with_summaries(
            source,
            network,
            layers,
            out,
            ExtractOptions(
                dtype=dtype,
                maps=maps,
                top_k=top_k,
                batch_rows=batch,
                part_rows=part_rows,
                threads=thread_count(threads),
                parts=parts,
                report=report,
            ),
        )
