"""Facets as functions: what `fc7 facets` does and `import fc7` offers.

made = facets(fc7.open_store("runs/photos"), "runs/facets", classes=["grocery store", 7])
made["facets"]                                          (N, 3, H, W), an image of each facet
made = facets(run, "runs/facets", layer="conv5", units=[17])
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import open_source
from fc7.engine.data.facet_targets import FacetsSource
from fc7.engine.errors import FingerprintError, OptionError, StoreError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name, class_number
from fc7.engine.store import Run, Summary, open_store
from fc7.engine.store.network import network_of
from fc7.engine.store.technique import carry_out
from fc7.engine.store.vectors import Vectors, default_vectors, open_vectors
from fc7.engine.synthesis.facet_plan import Facet, facets_of
from fc7.engine.synthesis.facet_rows import classes_of_run, rows_of_union, rows_of_unit
from fc7.engine.synthesis.facets import FacetImages, FacetsOptions, Plan
from fc7.engine.synthesis.objectives import channel
from fc7.engine.synthesis.terms import class_count_of

Named = int | str
"""A class by number or name."""


def facets(
    run: Run | str | Path,
    out: str | Path,
    classes: Sequence[Named | Sequence[Named]] | None = None,
    layer: str | None = None,
    units: Sequence[int] | None = None,
    options: FacetsOptions | None = None,
    network: Network | None = None,
) -> Run:
    """Make images of the facets of classes or units in a run of their own.

    A run that was begun is continued.

        made["facets"]                (N, 3, H, W) uint8, an image for each facet
        made["facets.start"]          (N, 3, H, W) uint8, the mean image that it began with
        made["facets.nearest"]        rows of the first run; see `fc7.engine.synthesis.facets`

    Args:
        run: a run that holds the rows' vectors, such as fc7; its images must still be in place.
        out: the folder of the run that is made.
        classes: numbers or names; several in one sequence are taken as one class.
        layer: in place of classes, a canonical name or module path.
        units: of the layer.
        options: how.
        network: the run's network; loaded as the run describes it if None.

    Raises:
        FingerprintError: the run in `out` is of other facets, another network, or was begun with
            other options.
        LayerError: there is no such layer.
        OptionError: or no such class or unit; no row excites it, or fewer than there are to be
            facets; the run does not hold what is asked of it; or an option is out of range.
        SourceError, StoreError: the run's images are not what or where they were.
    """
    held = run if isinstance(run, Run) else open_store(run)
    options = options or FacetsOptions()
    network = network or network_of(held)
    plan = plan_of(held, network, classes, layer, units, options)
    return facets_with_summary(plan, network, out, options)[0]


def facets_with_summary(
    plan: Plan, network: Network, out: str | Path, options: FacetsOptions
) -> tuple[Run, Summary]:
    """Make images of facets in a run, and say what was done; see `facets`."""
    job = FacetImages(network, plan, options)
    return carry_out(job, plan.targets, network, out, options)


def plan_of(
    run: Run,
    network: Network,
    classes: Sequence[Named | Sequence[Named]] | None = None,
    layer: str | None = None,
    units: Sequence[int] | None = None,
    options: FacetsOptions | None = None,
) -> Plan:
    """Find the facets; arguments and errors are those of `facets`."""
    options = options or FacetsOptions()
    unions = _unions(network, classes, layer, units)
    vectors = _vectors(run, options.by)
    names, members = _members(run, network, layer, unions, options)
    found = [
        _facets(vectors, rows, options, name) for name, rows in zip(names, members, strict=True)
    ]
    source = open_source(run.meta["source"]["spec"])
    try:
        run.check_source(source)
    except FingerprintError as error:
        raise StoreError(
            f"the images of {run.folder} have changed, so there is no mean of them; put back "
            f"{run.meta['source']['spec']} as it was"
        ) from error
    by = options.by or default_vectors(run)
    about = {
        "source": {key: run.meta["source"][key] for key in ("spec", "digest")},
        "by": by,
        "vectors": run.outputs()[by].digest,
    }
    targets = FacetsSource(layer, unions, [len(kinds) for kinds in found])
    return Plan(targets, found, source, open_vectors(run, by, rectify=False), about)


def _unions(
    network: Network,
    classes: Sequence[Named | Sequence[Named]] | None,
    layer: str | None,
    units: Sequence[int] | None,
) -> list[tuple[int, ...]]:
    """Return what facets are asked of, each once."""
    if layer is not None:
        if classes is not None:
            raise OptionError(f"classes are no units of {layer}; name one or the other")
        if not units:
            count = network.layer(layer).shape[0]
            raise OptionError(f"no unit of {layer} is named; there are 0 to {count - 1}")
        for unit in units:
            channel(layer, unit).check(network)
        return list(dict.fromkeys((unit,) for unit in units))
    if units is not None:
        raise OptionError("units of which layer? name one")
    count = class_count_of(network)
    if not classes:
        raise OptionError(f"no class is named; there are 0 to {count - 1}")
    unions: dict[tuple[int, ...], None] = {}
    for wanted in classes:
        named = [wanted] if isinstance(wanted, int | str) else wanted
        numbers = dict.fromkeys(class_number(each, network, count) for each in named)
        if not numbers:
            raise OptionError("a union of no classes; name one at least")
        unions[tuple(numbers)] = None
    return list(unions)


def _vectors(run: Run, by: str | None) -> Vectors:
    """Open what is clustered."""
    if by is not None and by not in run.outputs():
        raise OptionError(
            f"{run.folder} holds no {by}; it has {', '.join(run.outputs()) or 'no layer'}"
        )
    try:
        return open_vectors(run, by or default_vectors(run))
    except StoreError as error:
        raise OptionError(str(error)) from error


def _members(
    run: Run,
    network: Network,
    layer: str | None,
    unions: Sequence[tuple[int, ...]],
    options: FacetsOptions,
) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Return the name of each union or unit, and its rows."""
    if layer is not None:
        most = options.rows_of_a_unit
        if most < 1:
            raise OptionError(f"rows of a unit is {most}; write 1 or more")
        names = [f"unit {union[0]} of {layer}" for union in unions]
        return names, [rows_of_unit(run, layer, union[0], most) for union in unions]
    known = classes_of_run(run, network, class_count_of(network), options.members)
    names = [" or ".join(class_name(network, unit) for unit in union) for union in unions]
    return names, [rows_of_union(known, union) for union in unions]


def _facets(
    vectors: Vectors, rows: NDArray[np.int64], options: FacetsOptions, name: str
) -> list[Facet]:
    own = vectors[vectors.from_rows(rows)] if len(rows) else np.zeros((0, 1), np.float32)
    return facets_of(own, rows, options.facets, options.most, options.nearest, options.seed, name)
