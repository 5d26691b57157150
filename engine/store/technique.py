"""A technique's job in a run: begun, continued, or beside another that was asked differently.

Not among the store's public names, since it needs torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fc7.engine.data import Source, open_source
from fc7.engine.models import Network, load_model
from fc7.engine.store.job import Map
from fc7.engine.store.naming import name_in
from fc7.engine.store.network import check_network
from fc7.engine.store.run import Run, SourceLike
from fc7.engine.store.runner import Report, Summary, run_map


class Asked(Map, Protocol):
    """A map that a run may hold several of, each asked differently."""

    name: str

    @property
    def asked(self) -> Mapping[str, Any]:
        """What distinguishes this job from others of its technique, as JSON."""


class Pace(Protocol):
    """How a technique's options say how a data set goes through."""

    @property
    def part_rows(self) -> int:
        """Rows committed together, in a new run."""

    @property
    def parts(self) -> str | None:
        """A slice of the parts, such as `0::8`, for one task of a job array."""

    @property
    def report(self) -> Report | None:
        """What is called after each batch."""


def opened(data: str | Path | Source, model: str | Network) -> tuple[Source, Network]:
    """Return a source and a network, opened or loaded where they are only named."""
    source = data if isinstance(data, Source) else open_source(data)
    return source, model if isinstance(model, Network) else load_model(model)


def begun(source: SourceLike, network: Network, out: str | Path, part_rows: int) -> Run:
    """Return the run of a source and a network, begun where there is none.

    Raises:
        FingerprintError: the run in `out` has another source or network.
    """
    run = Run.create(out, source, part_rows)
    check_network(run, network)
    return run


def carry_out(
    job: Asked, source: SourceLike, network: Network, out: str | Path, options: Pace
) -> tuple[Run, Summary]:
    """Run a job, which is made before: a wrong option is found before anything is written.

    Raises:
        FingerprintError: the run in `out` has another source or network, or this job was begun
            with another size of a batch or on another device.
    """
    run = begun(source, network, out, options.part_rows)
    job.name = name_in(run, job.name, job.asked)
    return run, run_map(run, job, (), options.parts, options.report)
