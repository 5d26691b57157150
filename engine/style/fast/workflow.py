"""Fast style as functions: what `fc7 stylize` does and `import fc7` offers.

trained = train_stylizer("photos/", ["scream.jpg", "waves.jpg"], "vgg16", "runs/painters")
trained.file                                    the network, safetensors
run = stylize("holiday/", trained.file, "runs/holiday")
run["stylize.scream"]                           (N,), each a PNG file
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import Source, open_source
from fc7.engine.errors import OptionError, StoreError
from fc7.engine.models import Network
from fc7.engine.store import Job, Run, Summary, open_store, run_map, run_stage
from fc7.engine.store.atomic import publish, remove_stale, temporary_beside
from fc7.engine.store.naming import name_in
from fc7.engine.store.technique import opened
from fc7.engine.style.fast.exporting import SUFFIX as ONNX
from fc7.engine.style.fast.exporting import check_onnx, export_onnx
from fc7.engine.style.fast.job import Stylize
from fc7.engine.style.fast.options import StylizeOptions, TrainStylizerOptions
from fc7.engine.style.fast.paintings import read_paintings
from fc7.engine.style.fast.stylizer import SUFFIX, Stylizer, load_stylizer, save_stylizer
from fc7.engine.style.fast.training import RESULT, TECHNIQUE, TrainStylizer


@dataclass(frozen=True)
class TrainedStylizer:
    """What training has made.

    Attributes:
        run: where it is.
        job: its job there.
        file: the network, as `load_stylizer` takes it.
    """

    run: Run
    job: Job
    file: Path

    @property
    def info(self) -> dict[str, Any]:
        """Styles, steps, terms, the first loss and the last, seconds."""
        record = self.job.result_record()
        assert record is not None
        found: dict[str, Any] = record["info"]
        return found

    @property
    def losses(self) -> NDArray[np.float32]:
        """(steps, terms), the means of each batch, by `info["terms"]`."""
        found: NDArray[np.float32] = self.job.result("losses")
        return found


def train_stylizer(
    data: str | Path | Source,
    styles: Sequence[str | Path],
    model: str | Network,
    out: str | Path,
    options: TrainStylizerOptions | None = None,
) -> TrainedStylizer:
    """Train a network that gives any image one of some styles, in a run.

    Training that was stopped continues. Another one joins the run under a name of its own:
    `stylizer-2` beside `stylizer`.

    Args:
        data: images of any kind, a source or what names one; labels do not matter.
        styles: image files, one a style.
        model: a network by whose layers style and content are judged, or the name of one.
        out: the run's folder.
        options: how.

    Raises:
        FingerprintError: the run in `out` has another source.
        LayerError: there is no such layer.
        OptionError: an option is out of range, an image of a style cannot be used, or the loss is
            not a number.
        OSError: the disk is full; the newest checkpoint is kept.
    """
    options = options or TrainStylizerOptions()
    options.check()
    paintings = read_paintings(styles, options.longest_style)
    source, network = opened(data, model)
    stage = TrainStylizer(network, source, paintings, options)
    run = Run.create(out, source, options.part_rows)
    stage.name = name_in(run, stage.name, stage.asked)
    job = run.jobs().get(stage.name)
    # Trained on another device, or by another torch, it is what was asked for nevertheless.
    if job is None or job.result_record() is None:
        job = run_stage(run, stage)
    return TrainedStylizer(run, job, job.folder / "result" / RESULT)


def stylize(
    data: str | Path | Source,
    network: str | Path | Stylizer,
    out: str | Path,
    options: StylizeOptions | None = None,
) -> Run:
    """Give a data set the styles of a network, in a run; see `stylize_with_summary`."""
    return stylize_with_summary(data, network, out, options or StylizeOptions())[0]


def stylize_with_summary(
    data: str | Path | Source,
    network: str | Path | Stylizer,
    out: str | Path,
    options: StylizeOptions,
) -> tuple[Run, Summary]:
    """Give a data set the styles of a network, in a run: one pass an image and style.

    A run that was begun is continued. What is asked for differently joins it under a name of its
    own: `stylize-2` beside `stylize`.

        run["stylize"]              (N,), PNG files, each of its image's size
        run["stylize.scream"]       of a network of several styles, where all are asked for

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        network: a stylizer, its file, or the run that it was trained in.
        out: the run's folder.
        options: how.

    Raises:
        FingerprintError: the run in `out` has another source, or these pictures were begun with
            another size of a batch or on another device.
        ModelError: the file holds no such network.
        OptionError: an option is out of range, or there is no such style.
    """
    source = data if isinstance(data, Source) else open_source(data)
    stylizer = network if isinstance(network, Stylizer) else load_stylizer(stylizer_file(network))
    job = Stylize(stylizer, source, options)
    run = Run.create(out, source, options.part_rows)
    job.name = name_in(run, job.name, job.asked)
    return run, run_map(run, job, (), options.parts, options.report)


def stylizer_file(place: str | Path) -> Path:
    """Return a network's file: itself, or the one that was trained in a run.

    Raises:
        OptionError: several were trained in the run.
        StoreError: none was.
    """
    place = Path(place).expanduser()
    if not place.is_dir():
        return place
    jobs = open_store(place).jobs().items()
    files = {
        name: job.folder / "result" / RESULT
        for name, job in jobs
        if name.partition("-")[0] == TECHNIQUE and job.result_record() is not None
    }
    if not files:
        raise StoreError(f"{place} holds no trained network; fc7 stylize train makes one")
    if len(files) > 1:
        named = ", ".join(str(file) for file in files.values())
        raise OptionError(f"{place} holds {len(files)} networks; name one of {named}")
    return next(iter(files.values()))


def check_export(file: str | Path) -> None:
    """Raise OptionError where a network cannot be written so, before anything is spent on it.

    Raises:
        OptionError: the name ends in nothing known, or a package is missing.
        OSError: the file's folder is not there.
    """
    file = Path(file)
    if file.suffix not in (SUFFIX, ONNX):
        raise OptionError(f"{file} must end in {SUFFIX} or {ONNX}, as a network's file")
    if file.suffix == ONNX:
        check_onnx()
    os.stat(file.parent)


def export_stylizer(network: str | Path | Stylizer, file: str | Path) -> None:
    """Write a trained network as a file of its own: `.safetensors`, or `.onnx`.

    Args:
        network: its file, the run that it was trained in, or what was read from one.
        file: where it goes; whole or not at all.

    Raises:
        ModelError: the file holds no such network.
        OptionError: the name ends in nothing known, or a package is missing.
        OSError: the file cannot be written.
    """
    check_export(file)
    stylizer = (
        network if isinstance(network, Stylizer) else load_stylizer(stylizer_file(network), "cpu")
    )
    out = Path(file)
    remove_stale(out.parent, out.name)
    temporary = temporary_beside(out)
    try:
        (export_onnx if out.suffix == ONNX else save_stylizer)(stylizer, temporary)
        publish(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
