"""Attribution as functions: what `fc7 occlude` does and `import fc7` offers.

run = occlude("photos/", "alexnet", "run/", OccludeOptions(window=32, stride=16))
run["occlusion"]                                (N, rows, columns)
"""

from pathlib import Path

from fc7.engine.attribution.occlusion.job import Occlude, OccludeOptions, name_in
from fc7.engine.data import Source, open_source
from fc7.engine.models import Network, load_model
from fc7.engine.store import Run, Summary, run_map
from fc7.engine.store.network import check_network


def occlude(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: OccludeOptions | None = None,
) -> Run:
    """Make occlusion maps of a data set in a run; see `occlude_with_summary`."""
    return occlude_with_summary(data, model, out, options)[0]


def occlude_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: OccludeOptions | None = None,
) -> tuple[Run, Summary]:
    """Make occlusion maps of a data set in a run: which parts of each image the answer depends on.

    A run that was begun is continued. Maps that are asked for differently (another window,
    another target) join it under a name of their own: `occlusion-2` beside `occlusion`.

        run["occlusion"]              (N, rows, columns), by how much the score falls there
        run["occlusion.target"]       (N,), the class whose score it is; see `Occlude` for the rest

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its occlusion job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these maps were begun
            with another size of a batch or on another device.
        OptionError: an option is out of range, or the class is none of the network's.
    """
    options = options or OccludeOptions()
    source = data if isinstance(data, Source) else open_source(data)
    network = model if isinstance(model, Network) else load_model(model).folded([])
    job = Occlude(network, source, options)  # a wrong option is found before anything is written
    run = Run.create(out, source, options.part_rows)
    check_network(run, network)
    job.name = name_in(run, job.asked)
    return run, run_map(run, job, (), options.parts, options.report)
