"""Importance as functions: what `fc7 importance` does and `import fc7` offers.

run = importance("photos/", "alexnet", "run/")
read_importance(run).scores["taylor"]           one array (C,) for each convolution
"""

from pathlib import Path

from fc7.engine.attribution.importance.job import ImportanceOptions, MeasureImportance
from fc7.engine.attribution.importance.means import ImportanceMeans
from fc7.engine.data import Source
from fc7.engine.models import Network
from fc7.engine.store import Run, Summary, run_map
from fc7.engine.store.technique import begun, opened


def importance(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: ImportanceOptions | None = None,
) -> Run:
    """Measure how important each channel is over a data set; see `importance_with_summary`."""
    return importance_with_summary(data, model, out, options)[0]


def importance_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: ImportanceOptions | None = None,
) -> tuple[Run, Summary]:
    """Measure how important each channel of each convolution is, over a data set, into a run.

    A run that was begun is continued.

        run["importance.taylor"]      (N, C), what each row says of the channels of all convolutions
        read_importance(run)          their means, one array for each convolution, by criterion

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`. Rows
            without a label that is one of the network's classes are asked about the class that
            the network predicts.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its importance job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or the job was begun
            with another size of a batch or on another device.
        ModelError: the network has no convolutions.
    """
    options = options or ImportanceOptions()
    source, network = opened(data, model)
    job = MeasureImportance(network, source, options)
    run = begun(source, network, out, options.part_rows)
    return run, run_map(run, job, [ImportanceMeans()], options.parts, options.report)
