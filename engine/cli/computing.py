"""What the verbs that compute have in common: data and network opened, what was done said."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fc7.engine.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import DataclassInstance

    from fc7.engine.data import Source
    from fc7.engine.models import Network
    from fc7.engine.store import Run, Summary

Options = TypeVar("Options", bound="DataclassInstance")
Data = TypeVar("Data", bound="Source")

BATCH, PART_ROWS, MAX_PIXELS = 32, 1024, 100_000_000


def open_data_and_network(
    data: str,
    max_pixels: int,
    model: str,
    weights: str | None,
    seed: int,
    device: str,
    precision: str,
    mean: str | None,
    std: str | None,
    resize: int | None,
    crop: int | None,
) -> tuple["Source", "Network"]:
    """Open what the options name, the data first: it is the faster to find missing."""
    from fc7.engine.data import open_source

    source = open_source(data, max_pixels=max_pixels)
    return source, open_network(model, weights, seed, device, precision, mean, std, resize, crop)


def open_network(
    model: str,
    weights: str | None,
    seed: int,
    device: str,
    precision: str,
    mean: str | None,
    std: str | None,
    resize: int | None,
    crop: int | None,
) -> "Network":
    """Load the network that the options name."""
    from fc7.engine.models import load_model

    return load_model(
        model,
        weights=weights,
        seed=seed,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # load_model checks it and says so
        mean=o.split_numbers(mean, "--mean"),
        std=o.split_numbers(std, "--std"),
        resize=resize,
        crop=crop,
    )


def draws_one(data: str, out: Path) -> bool:
    """Return whether one image's picture is asked for, and not a run of many.

    Raises:
        OptionError: one picture of many images is asked for, or a run of one file.
        OSError: the picture's folder is not there.
    """
    from fc7.engine.data.folder import is_image_name
    from fc7.engine.drawing.sheet import PICTURES
    from fc7.engine.errors import OptionError

    draws, is_file = out.suffix.lower() in PICTURES, Path(data).is_file()
    if draws and not is_file:
        raise OptionError(
            f"{data} is not an image file, and {out} can show one image only; name a file, or a "
            "folder for --out"
        )
    if not draws and is_file and is_image_name(os.fsencode(Path(data).name)):
        raise OptionError(f"{data} is one image; name a picture for --out, such as map.png")
    if draws:
        out.parent.stat()  # before a minute is spent on what could not be written
    return draws


def weights_for_shapes(model: str, weights: str | None = None) -> str | None:
    """Return the weights to load where only shapes matter: the cheapest, unless some are named."""
    brings_its_own = ":" in model or model.endswith(".safetensors")
    return weights or (None if brings_its_own else "random")


def thread_count(threads: int | None) -> int:
    """Return how many threads decode: as many as this process has cores, unless it is said."""
    return threads or len(os.sched_getaffinity(0))


def with_progress(
    make: "Callable[[Data, Network, Path, Options], tuple[Run, Summary]]",
    source: Data,
    network: "Network",
    out: Path,
    options: "Options",
) -> tuple["Run", "Summary"]:
    """Run a technique's function, such as `occlude_with_summary`, under a progress bar."""
    import dataclasses

    from fc7.engine.cli.console import progress

    with progress() as report:
        return make(source, network, out, dataclasses.replace(options, report=report))


def outcome_of(made: "Run", summaries: list["Summary"]) -> dict[str, Any]:
    """Return what was done to a run, as JSON."""
    import dataclasses

    return {
        "run": str(made.folder),
        "rows": len(made),
        "bad_rows": int((~made.good).sum()),
        "jobs": [dataclasses.asdict(summary) for summary in summaries],
    }


def conclude(
    outcome: dict[str, Any],
    summaries: list["Summary"],
    strict: bool,
    json: bool,
    more: "Sequence[str]" = (),
) -> None:
    """Say what was done; end with an exit code of its own if rows were bad and may not be.

    Args:
        outcome: for machines.
        summaries: of the jobs, for people.
        strict: whether no row may be bad.
        json: whether it is said to a machine.
        more: lines for people, after those of the jobs.
    """
    from fc7.engine.cli.console import STRICT, emit_json, say, summary_lines

    if json:
        emit_json(outcome)
    else:
        for summary in summaries:
            for line in summary_lines(summary):
                say(line)
        for line in more:
            say(line)
    if strict and any(summary.bad for summary in summaries):
        sys.exit(STRICT)
