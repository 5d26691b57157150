"""What pruning costs in accuracy: by criterion on shapes, and after fine-tuning on CIFAR-10.

    python -m fc7.bench.pruning --cifar 'cifar10/*.parquet'

On shapes, `tiny-shapes` loses a fifth of its channels, ranked by Taylor, L1 and chance, and is
tested on rows that neither training nor ranking has seen; the mean is over seeds of the rows that
channels are ranked by, and of chance. The rise of inversion error, which costs a row many hundred
times as much, is compared with Taylor by the same few rows. On CIFAR-10, `tiny-cifar10` loses 30 %
of its multiply-adds, is trained for one epoch on the rows it was trained on, and is tested on the
5,000 it never saw.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from fc7.bench.record import record
from fc7.engine.attribution.importance.criteria import read_importance
from fc7.engine.attribution.importance.workflow import importance
from fc7.engine.attribution.pruning.removal import shrunk
from fc7.engine.attribution.pruning.training import FineTuneOptions
from fc7.engine.attribution.pruning.workflow import PruneOptions, choose, prune
from fc7.engine.data import Source, open_source
from fc7.engine.information.job import inversion_importance
from fc7.engine.models import Network, load_model

CRITERIA = ("taylor", "l1", "random")
FRACTION, SEEDS = 0.2, range(5)
RANKED_BY, TESTED_ON = 512, "shapes:500:2"
BY_FEW, FEW, FEW_SEEDS = ("inversion", "taylor"), 8, range(2)
HELD_OUT, FLOPS, MOST_POINTS = 5000, 0.7, 0.02


class Rows(Source):
    """Some consecutive rows of a source."""

    def __init__(self, whole: Source, start: int, stop: int) -> None:
        self._whole, self._start, self._stop = whole, start, stop
        self.spec = f"{whole.spec}, rows {start} to {stop}"
        self.kind, self.label_names, self.max_pixels = (
            whole.kind,
            whole.label_names,
            whole.max_pixels,
        )

    def __len__(self) -> int:
        return self._stop - self._start

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return rows start to stop of these."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return self._whole.rows(self._start + start, self._start + max(start, stop))

    def read(self, row: int) -> bytes:
        """Return the payload of one of these rows."""
        return self._whole.read(self._start + row)

    def decode(self, payload: bytes) -> Tensor:
        """Decode as the whole source does."""
        return self._whole.decode(payload)


def by_criterion(
    network: Network,
    seeds: Sequence[int],
    ranked_by: int,
    tested_on: str,
    criteria: Sequence[str] = CRITERIA,
) -> dict[str, list[float]]:
    """Return the accuracy without a fifth of the channels, by criterion, for each seed.

    Args:
        network: `tiny-shapes`, on the CPU.
        seeds: of the rows that channels are ranked by, and of chance.
        ranked_by: how many rows.
        tested_on: shapes:N:SEED.
        criteria: to rank by.
    """
    images, labels = _examples(open_source(tested_on))
    found: dict[str, list[float]] = {name: [] for name in ("whole", *criteria)}
    for seed in seeds:
        source = f"shapes:{ranked_by}:{100 + seed}"
        with tempfile.TemporaryDirectory() as folder:
            run = importance(source, network, Path(folder) / "run")
            if "inversion" in criteria:
                inversion_importance(source, network, run.folder)
            ranked = read_importance(run, network, seed)
        for name in criteria:
            units, _ = choose(network, ranked, PruneOptions(FRACTION, criterion=name, seed=seed))
            found[name].append(_accuracy(network, shrunk(network.model, units), images, labels))
        found["whole"].append(_accuracy(network, network.model, images, labels))
    return found


def on_cifar(cifar: str, seed: int = 0) -> dict[str, Any]:
    """Return what is left of `tiny-cifar10` without 30 % of its multiply-adds."""
    whole = open_source(cifar)
    cut = len(whole) - HELD_OUT
    train, test = Rows(whole, 0, cut), Rows(whole, cut, len(whole))
    network = load_model("tiny-cifar10", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        ranking = Rows(whole, 0, 4 * RANKED_BY)
        run = importance(ranking, network, Path(folder) / "run")
        found = prune(
            run,
            Path(folder) / "pruned.safetensors",
            PruneOptions(flops=FLOPS, device="cpu"),
            test,
            FineTuneOptions(epochs=1, seed=seed),
            train,
        )
    assert found.tuned is not None
    assert found.before.accuracy is not None
    assert found.tuned.accuracy is not None
    return {
        "before": asdict(found.before),
        "after": asdict(found.after),
        "tuned": asdict(found.tuned),
        "layers": dict(found.layers),
        "points_lost": found.before.accuracy.share - found.tuned.accuracy.share,
    }


def _examples(source: Source) -> tuple[Tensor, Tensor]:
    images = torch.stack([source.decode(source.read(row)) for row in range(len(source))])
    labels = torch.tensor(source.rows()["label"].to_numpy())
    return images.float() / 255, labels


@torch.inference_mode()
def _accuracy(network: Network, model: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    logits = torch.cat([model(network.normalise(part)) for part in torch.split(images, 100)])
    return float((logits.argmax(1) == labels).double().mean())


def _means(by_seed: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in by_seed.items()}


def main() -> int:
    """Measure and record; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.pruning", description=__doc__)
    parser.add_argument("--cifar", metavar="GLOB", help="CIFAR-10 as Parquet files")
    arguments = parser.parse_args()
    network = load_model("tiny-shapes", device="cpu")
    each = by_criterion(network, SEEDS, RANKED_BY, TESTED_ON)
    means = _means(each)
    few = by_criterion(network, FEW_SEEDS, FEW, TESTED_ON, BY_FEW)
    results: dict[str, Any] = {
        "shapes": {
            "fraction": FRACTION,
            "tested_on": TESTED_ON,
            "seeds": len(SEEDS),
            "accuracy": means,
            "by_seed": each,
            "few_rows": {"rows": FEW, "accuracy": _means(few), "by_seed": few},
        }
    }
    missed = means["taylor"] <= max(means["l1"], means["random"])
    for name, value in means.items():
        print(f"shapes, {name:8} {value:.1%}")
    print(f"shapes, by {FEW} rows", few, flush=True)
    command = ["python", "-m", "fc7.bench.pruning"]
    if arguments.cifar:
        found = results["cifar10"] = on_cifar(arguments.cifar)
        missed = missed or found["points_lost"] > MOST_POINTS
        for name in ("before", "after", "tuned"):
            print(f"cifar10, {name:8} {found[name]['accuracy']['share']:.2%}")
        command += ["--cifar", "cifar10/*.parquet"]
    else:
        print("went without CIFAR-10: it needs --cifar GLOB")
    print(record("pruning", results, shlex.join(command)))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
