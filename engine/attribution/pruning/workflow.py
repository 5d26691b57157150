"""Pruning as a function: what `fc7 prune` does and `import fc7` offers.

found = prune(run, "pruned.safetensors", PruneOptions(fraction=0.2), test="shapes:500:2")
found.after.accuracy.share
load_model("pruned.safetensors")
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fc7.engine.attribution.importance.criteria import (
    ChannelImportance,
    criterion_of,
    read_importance,
)
from fc7.engine.attribution.importance.stored import ConvolutionLayer, read_stored
from fc7.engine.attribution.pruning.accuracy import Accuracy, measure_accuracy
from fc7.engine.attribution.pruning.choice import Room, by_fraction, by_multiply_adds, ranked
from fc7.engine.attribution.pruning.coupling import Unit, couple
from fc7.engine.attribution.pruning.removal import axis_sizes, places_removed, widths, without
from fc7.engine.attribution.pruning.training import RESULT, FineTune, FineTuneOptions
from fc7.engine.data import Source, open_source
from fc7.engine.errors import Fc7Error, ModelError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.models.cost import (
    images_per_second,
    multiply_adds,
    multiply_adds_by_module,
    parameters,
)
from fc7.engine.models.pruned import SUFFIX, Pruned, save_pruned
from fc7.engine.models.targets import LABEL, class_count
from fc7.engine.store import Report, Run, run_stage
from fc7.engine.store.atomic import publish, remove_stale, temporary_beside
from fc7.engine.store.network import network_of


@dataclass(frozen=True)
class PruneOptions:
    """What to remove, and how what is left is measured.

    Attributes:
        fraction: of all channels of convolutions, how many may go; None where `flops` is given.
        flops: the share of multiply-adds that may stay; None where `fraction` is given.
        criterion: by which channels are ranked: taylor, activation, l1, inversion or random.
        seed: of the random criterion.
        keep_layers: names or paths of convolutions, or of blocks of them, that lose no channel.
        device: where accuracy and speed are measured and training runs.
        threads: decoding threads.
        report: called while data is read.
    """

    fraction: float | None = None
    flops: float | None = None
    criterion: str = "taylor"
    seed: int = 0
    keep_layers: Sequence[str] = ()
    device: str = "auto"
    threads: int = 2
    report: Report | None = None


@dataclass(frozen=True)
class Figures:
    """What a network takes and gives.

    Attributes:
        accuracy: on the test rows; None where there are no labels to tell it by.
        channels: of all convolutions together.
        parameters: numbers in the weights.
        multiply_adds: of one image.
        images_per_second: on this machine, 32 at a time.
    """

    accuracy: Accuracy | None
    channels: int
    parameters: int
    multiply_adds: int
    images_per_second: float


@dataclass(frozen=True)
class PrunedNetwork:
    """What pruning has made.

    Attributes:
        file: the smaller network.
        before: of the network as it was.
        after: of the smaller one, before any training.
        tuned: of the smaller one after fine-tuning; None without it.
        layers: channels of each convolution, before and after, by name.
        kept: why a convolution lost nothing, by name, where nothing could go.
        tested_on: the rows that accuracy is about, or why there are none.
    """

    file: Path
    before: Figures
    after: Figures
    tuned: Figures | None
    layers: Mapping[str, tuple[int, int]]
    kept: Mapping[str, str]
    tested_on: str


def prune(
    run: Run,
    out: str | Path,
    options: PruneOptions,
    test: str | Path | Source | None = None,
    finetune: FineTuneOptions | None = None,
    data: str | Path | Source | None = None,
) -> PrunedNetwork:
    """Remove the least important channels of a run's network, and write the smaller one.

    Args:
        run: a run that `importance` has finished.
        out: the file, `.safetensors`; `load_model` takes it.
        options: what to remove.
        test: labelled rows that accuracy is measured on; the run's own where they are None.
        finetune: how to train what is left; not at all if None. Training continues after a stop.
        data: labelled rows to train on; the run's own where they are None.

    Raises:
        OptionError: an option is out of range, or a package is missing.
        StoreError: the run holds no importances, or its network is not to be had any more.
        ModelError: the network cannot be followed from layer to layer.
    """
    out = _checked(Path(out), options)
    network = network_of(run, device="cpu")
    importance = read_importance(run, network, options.seed)
    chosen, kept = choose(network, importance, options)
    tested, why = _test_rows(run, test)
    training = _open(data, run) if finetune is not None else None
    state, groups = without(network.model, chosen)
    pruned = Pruned.of(network, groups, _made(run, options))
    with tempfile.TemporaryDirectory(prefix="fc7-") as folder:
        file = Path(folder) / out.name
        save_pruned(file, pruned, state)
        del state
        # What is measured is what is written, as whoever reads it will have it.
        load = partial(load_model, network.name, device=options.device)
        as_before = partial(load, precision=network.precision)
        networks = [network_of(run, options.device), as_before(file)]
        _check_answer(*networks)
        accuracies = [
            _accuracy(each, tested, f"accuracy {when}", options)
            for each, when in zip(networks, ("before", "after"), strict=True)
        ]
        if finetune is not None and training is not None:
            stage = _stage(load(file), pruned, training, finetune, options)
            file = run_stage(run, stage).folder / "result" / RESULT
            accuracies.append(_accuracy(as_before(file), tested, "accuracy tuned", options))
        _publish_copy(file, out)
    whole, smaller = networks
    speeds = images_per_second(networks)
    after, *tuned = (_figures(smaller, accuracy, speeds[1]) for accuracy in accuracies[1:])
    changes = widths(network.model, places_removed(chosen))
    names = {layer.path: layer.name for layer in importance.layers}
    return PrunedNetwork(
        out,
        _figures(whole, accuracies[0], speeds[0]),
        after,
        tuned[0] if tuned else None,
        {name: changes[path] for path, name in names.items()},
        {names.get(path, path): reason for path, reason in kept.items()},
        why,
    )


def choose(
    network: Network, importance: ChannelImportance, options: PruneOptions
) -> tuple[list[Unit], Mapping[str, str]]:
    """Return what goes, and why some convolutions lose nothing.

    Raises:
        OptionError: an option is out of range, or no channel can go.
    """
    criterion = criterion_of(options.criterion)
    layers = importance.layers
    if options.criterion not in importance.scores:
        raise OptionError(
            f"the run holds no {options.criterion} errors; fc7 importance --inversion measures them"
        )
    scores = importance.scores[options.criterion]
    coupling = couple(network, _kept_paths(network, layers, options.keep_layers))
    if not coupling.units:
        reasons = "; ".join(sorted(set(coupling.kept.values())))
        raise OptionError(f"no channel of {network.name} can go: {reasons}")
    known = {layer.path for layer in layers}
    units = [unit for unit in coupling.units if all(path in known for path, _ in unit.channels)]
    ordered = ranked(units, layers, scores, criterion)
    cost = multiply_adds_by_module(network.model, network.input_size)
    room = Room(axis_sizes(network.model, units), cost)
    if options.fraction is not None:
        channels = sum(layer.channels for layer in layers)
        return by_fraction(ordered, options.fraction, channels, room), coupling.kept
    assert options.flops is not None
    return by_multiply_adds(ordered, options.flops, room), coupling.kept


def _checked(out: Path, options: PruneOptions) -> Path:
    """Return where the file goes, before anything is spent on what could not be written."""
    if out.suffix != SUFFIX:
        raise OptionError(f"{out} must end in {SUFFIX}, as the file of a network")
    if (options.fraction is None) == (options.flops is None):
        raise OptionError("give a fraction of channels to remove or a share of flops to keep")
    out.parent.stat()
    return out


def _made(run: Run, options: PruneOptions) -> dict[str, object]:
    """Say how the smaller network comes about."""
    chance = {"seed": options.seed} if options.criterion == "random" else {}
    return {
        "criterion": options.criterion,
        "scored_on": run.meta["source"]["spec"],
        "fraction": options.fraction,
        "flops": options.flops,
        **chance,
    }


def _publish_copy(file: Path, out: Path) -> None:
    """Copy a file to where it is wanted, whole or not at all."""
    remove_stale(out.parent, out.name)
    temporary = temporary_beside(out)
    try:
        shutil.copyfile(file, temporary)
        publish(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _kept_paths(
    network: Network, layers: Sequence[ConvolutionLayer], names: Sequence[str]
) -> set[str]:
    """Return the paths of the convolutions that layers are, or that lie in them."""
    kept: set[str] = set()
    for name in names:
        path = network.layer(name).path
        inside = {one.path for one in layers if one.path == path or one.path.startswith(f"{path}.")}
        if not inside:
            raise OptionError(f"{name} is no convolution of {network.name}, and holds none")
        kept |= inside
    return kept


def _accuracy(
    network: Network, source: Source | None, what: str, options: PruneOptions
) -> Accuracy | None:
    """Return how often a network is right about rows, if there are any."""
    if source is None:
        return None
    return measure_accuracy(network, source, what, options.threads, options.report)


def _figures(network: Network, accuracy: Accuracy | None, speed: float) -> Figures:
    channels = sum(after for _, after in widths(network.model, {}).values())
    cost = multiply_adds(network.model, network.input_size)
    return Figures(accuracy, channels, parameters(network.model), cost, speed)


def _stage(
    smaller: Network,
    pruned: Pruned,
    source: Source,
    finetune: FineTuneOptions,
    options: PruneOptions,
) -> FineTune:
    made = {**pruned.made, "finetuned": {"epochs": finetune.epochs, "data": source.spec}}
    pruned = dataclasses.replace(pruned, made=made)
    return FineTune(smaller, pruned, source, finetune, options.report)


def _open(data: str | Path | Source | None, run: Run) -> Source:
    """Open rows, by default those of the run."""
    if isinstance(data, Source):
        return data
    if data is not None:
        return open_source(data)
    source = open_source(run.meta["source"]["spec"])
    run.check_source(source)
    return source


def _test_rows(run: Run, test: str | Path | Source | None) -> tuple[Source | None, str]:
    """Return the rows to measure accuracy on, and words for them, or for why there are none."""
    if test is not None:
        source = _open(test, run)
        return source, source.spec
    if read_stored(run).target != LABEL:
        return None, "the run's labels are not the network's classes; name labelled rows to test on"
    try:
        source = _open(None, run)
    except Fc7Error as error:
        return None, f"the run's images are not to be had any more ({error})"
    return source, f"{source.spec}, the rows that channels were chosen by"


def _check_answer(network: Network, smaller: Network) -> None:
    before, after = class_count(network), class_count(smaller)
    if before != after:
        raise ModelError(
            f"removing channels left {network.name} with {after} of {before} answers; keep the "
            "last convolution (--keep-layers)"
        )
