"""Adversarial examples of a data set as a function: what `fc7 fool` does.

run = fool("photos/", "alexnet", "run/", FoolOptions(method="ddn"))
run["fool"]                                     (N, 3, H, W), what to add to what the network sees
"""

from pathlib import Path

from fc7.engine.data import Source
from fc7.engine.models import Network
from fc7.engine.store import Run, Summary
from fc7.engine.store.technique import carry_out, opened
from fc7.engine.synthesis.fool_job import Fool, FoolOptions


def fool(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: FoolOptions | None = None,
) -> Run:
    """Make adversarial examples of a data set in a run; see `fool_with_summary`."""
    return fool_with_summary(data, model, out, options)[0]


def fool_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: FoolOptions | None = None,
) -> tuple[Run, Summary]:
    """Make adversarial examples of a data set: small changes that the network falls for.

    A run that was begun is continued. Attacks that are asked for differently (another method,
    another target) join it under a name of their own: `fool-2` beside `fool`.

        run["fool"]              (N, 3, H, W), the changes of pixels in [0, 1]
        run["fool.success"]      (N,), whether they fool; see `fc7.engine.synthesis.fool_job` for
                                 the rest

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or this job was begun
            with another size of a batch or on another device.
        OptionError: an option is out of range, or the class is none of the network's.
        QuestionError: nothing flows back to the pixels.
    """
    options = options or FoolOptions()
    source, network = opened(data, model)
    return carry_out(Fool(network, source, options), source, network, out, options)
