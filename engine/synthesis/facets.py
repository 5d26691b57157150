"""Multifaceted feature visualization as a job: an image for each kind of row that excites a class.

Nguyen, Yosinski and Clune, 2016, "Multifaceted feature visualization: uncovering the different
types of features learned by each neuron in deep neural networks", arXiv:1602.03616.

run["facets"]               (N, 3, H, W) uint8
run["facets.start"]         (N, 3, H, W) uint8, the mean image that each began with
run["facets.members"]       (N,) int64, how many rows of the first run are of this kind
run["facets.nearest"]       (N, n) int64, those of its rows nearest to their mean; -1 past the last
run["facets.score"]         (N,) float32, the objective of that image as it is stored
run["facets.steps"]         (N,) int64
run["facets.status"]        (N,) uint8, into `STATUSES`
run["facets.curve"]         (N, steps) float32, what each step's image scored, with what pulled it
                            towards its kind; NaN after the last
run["facets.predicted"]     (N,) int64, of classes alone: what the network says of the image
run["facets.probability"]   (N,) float32, likewise: of its class, or of any class of its union
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.data import Source
from fc7.engine.data.facet_targets import FacetsSource, FacetTarget, spell_union
from fc7.engine.errors import BadImage, LayerError, OptionError, StoreError
from fc7.engine.models import Network
from fc7.engine.store import Arrays, Output, Report
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.store.vectors import Vectors
from fc7.engine.synthesis.classes import PART_ROWS, TargetRow, TargetRows, seed_of
from fc7.engine.synthesis.facet_plan import MOST, NEAREST, Facet, told
from fc7.engine.synthesis.facet_rows import Members
from fc7.engine.synthesis.facet_stages import stages
from fc7.engine.synthesis.judging import STATUSES, Judge, as_stored, course
from fc7.engine.synthesis.objectives import Objective, any_class, channel, feature_match
from fc7.engine.synthesis.queue import Made, Task
from fc7.engine.synthesis.stages import Stages

TECHNIQUE = "facets"
ROWS_OF_A_UNIT = 200
PULL = 10.0


@dataclass(frozen=True)
class FacetsOptions:
    """How facets are found, and how their images are made.

    Attributes:
        facets: of each class or unit; what the silhouette of the clusters says if None.
        most: where it says so: no more than this.
        by: the run's output that is clustered, one vector a row; the deepest before the logits if
            None.
        members: whether a class's rows are those of its label, or those predicted as it; "auto"
            takes labels where there are any.
        rows_of_a_unit: as many rows that excite a unit most are clustered.
        nearest: rows nearest to a cluster's mean whose images' mean a facet begins with.
        pull: how strongly an image is kept to its kind, in a class's logits: the weight of the
            squared distance of its vector, in the layer that was clustered, to the mean vector of
            the rows it begins with, as a share of that vector's square. At 0 the start alone makes
            a facet, as in the paper. By default `PULL`, or 0 where what was clustered is no vector
            that the network computes, such as `pixels`.
        steps: of all stages together; see `facet_stages`.
        seed: of all that is random.
        batch_rows: images that ascend together.
        part_rows: rows committed together, in a new run.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    facets: int | None = None
    most: int = MOST
    by: str | None = None
    members: Members | str = "auto"
    rows_of_a_unit: int = ROWS_OF_A_UNIT
    nearest: int = NEAREST
    pull: float | None = None
    steps: int | None = None
    seed: int = 0
    batch_rows: int = 16
    part_rows: int = PART_ROWS
    parts: str | None = None
    report: Report | None = None


@dataclass(frozen=True)
class Plan:
    """The facets that are to be made, and of what.

    Attributes:
        targets: the rows of the job.
        facets: of each union or unit of the targets, as many as they count.
        images: the rows that were clustered, as images.
        vectors: as the layer returned them, before any ReLU.
        about: where those rows are from, as JSON that changes with them.
    """

    targets: FacetsSource
    facets: Sequence[Sequence[Facet]]
    images: Source
    vectors: Vectors
    about: Mapping[str, Any]


class FacetImages:
    """A map from facets to images.

    Args:
        network: the network, on the device that computes.
        plan: what is to be made.
        options: how.
        name: the job's name in the run.

    Raises:
        LayerError: the network has no such layer.
        OptionError: or no such unit, or an option is out of range.
    """

    def __init__(
        self, network: Network, plan: Plan, options: FacetsOptions, name: str = TECHNIQUE
    ) -> None:
        self.name, self._network, self._plan, self._options = name, network, plan, options
        self._facets = [facet for kinds in plan.facets for facet in kinds]
        self._recipes = stages(network, options.steps)
        self._size = network.input_size
        self._pull = _pull(network, plan.about["by"], options.pull)
        first = objective_of(plan.targets.target(0))
        batch = min(options.batch_rows, options.part_rows, len(plan.targets))
        self._stages = Stages(network, self._ascended(0), self._recipes, batch)
        self._judge = Judge(network, first, self._size, self._stages.together)

    @property
    def asked(self) -> dict[str, Any]:
        """What distinguishes this job from others of its technique."""
        options = self._options
        return {
            **self._plan.about,
            "layer": self._plan.targets.layer,
            "facets": told(self._plan.facets),
            "nearest": options.nearest,
            "pull": self._pull,
            "stages": [recipe.describe() for recipe in self._recipes],
            "size": list(self._size),
            "seed": options.seed,
        }

    @property
    def outputs(self) -> list[Output]:
        """The image, its start, and what stands beside them."""
        of = {"technique": TECHNIQUE, "of": self.name}
        asked = {key: value for key, value in self.asked.items() if key != "facets"}
        about = {**of, **asked, "statuses": list(STATUSES)}
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "start": ((3, *self._size), "uint8"),
            "members": ((), "int64"),
            "nearest": ((self._options.nearest,), "int64"),
            "score": ((), "float32"),
            "steps": ((), "int64"),
            "status": ((), "uint8"),
            "curve": ((self._stages.steps,), "float32"),
        }
        if self._plan.targets.layer is None:
            shapes |= {"predicted": ((), "int64"), "probability": ((), "float32")}
        return [
            Output(self.name, (3, *self._size), "uint8", about),
            *(Output(f"{self.name}.{key}", *shape, of) for key, shape in shapes.items()),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, the rows that were clustered, the stages, and how many images went together."""
        return fingerprint_of(
            self._network,
            **self.asked,
            together=self._stages.together,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Return the rows: starts are read as they are needed."""
        return TargetRows(numbers)

    def run(self, rows: Iterator[TargetRow]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield images as they are finished."""
        starts: dict[int, Tensor] = {}
        for group in self._stages(self._task(row.number, starts) for row in rows):
            began = torch.stack([starts.pop(made.row) for made in group])
            yield np.array([made.row for made in group], dtype=np.int64), self._arrays(group, began)

    def _task(self, row: int, starts: dict[int, Tensor]) -> Task:
        target = self._plan.targets.target(row)
        of = f"{target.layer}/{spell_union(target.units)}"
        seed = seed_of(self._options.seed, of, target.facet, 0)
        start = mean_image(self._plan.images, self._network, self._facets[row].nearest)
        starts[row] = start.mul(255).round().byte()
        return Task(row, self._ascended(row), seed, start)

    def _ascended(self, row: int) -> Objective:
        asked = objective_of(self._plan.targets.target(row))
        if self._pull == 0:
            return asked
        vectors, by = self._plan.vectors, self._plan.about["by"]
        own = vectors[vectors.from_rows(self._facets[row].nearest)]
        mean = torch.from_numpy(own.mean(0, dtype=np.float64).astype(np.float32))
        return asked + self._pull * feature_match(by, mean.reshape(self._network.layer(by).shape))

    def _arrays(self, group: list[Made], starts: Tensor) -> Arrays:
        images = as_stored(group)
        targets = [self._plan.targets.target(made.row) for made in group]
        scores, logits = self._judge(images.float() / 255, [objective_of(t) for t in targets])
        facets = [self._facets[made.row] for made in group]
        nearest = np.full((len(group), self._options.nearest), -1, dtype=np.int64)
        for line, facet in zip(nearest, facets, strict=True):
            line[: len(facet.nearest)] = facet.nearest
        found: dict[str, NDArray[Any]] = {
            **course(group, self._stages.steps),
            "start": starts.numpy(),
            "members": np.array([facet.size for facet in facets], dtype=np.int64),
            "nearest": nearest,
            "score": scores.numpy(),
        }
        if logits is not None:
            each = zip(logits.double().softmax(1), targets, strict=True)
            sums = [float(line[list(target.units)].sum()) for line, target in each]
            found["predicted"] = logits.argmax(1).numpy()
            found["probability"] = np.array(sums, dtype=np.float32)
        named = {f"{self.name}.{column}": array for column, array in found.items()}
        return {self.name: images.numpy(), **named}


def objective_of(target: FacetTarget) -> Objective:
    """Return what a facet ascends: its unit, or the logit its classes would have as one."""
    if target.layer is None:
        return any_class(target.units)
    return channel(target.layer, target.units[0])


def _pull(network: Network, by: str, asked: float | None) -> float:
    """Return the weight of the pull, 0 where nothing can pull and nothing is said."""
    try:
        can = math.prod(network.layer(by).shape[1:]) == 1  # fc7, or pooled features
    except LayerError:
        can = False
    if asked is None:
        return PULL if can else 0.0
    if not math.isfinite(asked) or asked < 0:
        raise OptionError(f"pull is {asked}; write a number of at least 0")
    if asked > 0 and not can:
        raise OptionError(
            f"{by} is no vector that {network.name} computes, so that nothing pulls; set pull to 0"
        )
    return asked


def mean_image(source: Source, network: Network, rows: NDArray[np.int64]) -> Tensor:
    """Return the mean of images as the network sees them, (3, H, W) float32 in [0, 1].

    Raises:
        StoreError: one of them can no longer be read.
    """
    total = torch.zeros(3, *network.input_size, dtype=torch.float64)
    for row in rows.tolist():
        try:
            total += network.transform(source.decode(source.read(row)))
        except BadImage as error:
            raise StoreError(
                f"{source.key(row)} can no longer be read ({error}); put it back as it was"
            ) from error
    return (total / len(rows) / 255).float()
