"""Pruning: what is removed for real changes nothing that it should not, and costs what is said."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from fc7.bench.pruning import Rows, by_criterion
from fc7.engine.attribution.importance.criteria import CRITERIA, ChannelImportance, read_importance
from fc7.engine.attribution.importance.job import ImportanceOptions
from fc7.engine.attribution.importance.stored import ConvolutionLayer
from fc7.engine.attribution.importance.workflow import importance
from fc7.engine.attribution.pruning.choice import Room, by_fraction, by_multiply_adds, ranked
from fc7.engine.attribution.pruning.coupling import IN, OUT, Unit, couple
from fc7.engine.attribution.pruning.removal import axis_sizes, places_removed, shrunk, without
from fc7.engine.attribution.pruning.workflow import PruneOptions, choose, prune
from fc7.engine.data import open_source
from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError, ModelError, OptionError, StoreError
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model
from fc7.engine.models.cost import multiply_adds, multiply_adds_by_module, parameters
from fc7.engine.models.pruned import Pruned, save_pruned
from fc7.engine.store import Run
from fc7.engine.store.network import network_of

SIDE = 64


def shake(model: nn.Module) -> None:
    """Give normalisations statistics and weights of their own."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)


def some_of(network: Network, units: tuple[Unit, ...], share: float) -> tuple[list[Unit], Room]:
    """Units drawn at random that leave every layer something, and what room they leave."""
    cost = multiply_adds_by_module(network.model, network.input_size)
    room, chosen = Room(axis_sizes(network.model, units), cost), []
    order = np.random.default_rng(1).permutation(len(units))
    for place in order[: round(share * len(units))]:
        if room.fits(units[place]):
            room.take(units[place])
            chosen.append(units[place])
    return chosen, room


SMALLER = """
from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.vgg import VGG, cfgs, make_layers

def vgg():
    # VGG11, whose linear layers are a hundred million numbers, with smaller ones.
    model = VGG(make_layers(cfgs["A"]), init_weights=False)
    model.classifier = nn.Sequential(
        nn.Linear(512 * 49, 40), nn.ReLU(True), nn.Dropout(), nn.Linear(40, 30), nn.ReLU(True),
        nn.Dropout(), nn.Linear(30, 20),
    )
    return model

def densenet():
    # DenseNet121 in fewer layers.
    return DenseNet(growth_rate=8, block_config=(3, 3, 2, 2), num_init_features=16)
"""


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "fc7"),
        ("resnet18", "layer4"),
        ("googlenet", "inception5b"),
        ("mobilenet_v2", "features.18"),
        ("smaller_networks:vgg", "conv5_2"),
        ("smaller_networks:densenet", "denseblock4"),
    ],
)
def test_channels_that_nothing_listens_to_are_not_missed(
    name: str, layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("smaller_networks.py").write_text(SMALLER)
    weights = None if ":" in name else "random"
    network = load_model(name, weights, device="cpu", resize=SIDE, crop=SIDE)
    shake(network.model)
    coupling = couple(network, ())
    assert not coupling.kept
    convolutions = {
        path: module.out_channels
        for path, module in network.model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    # Each channel of each convolution is in one unit.
    every = sorted(channel for unit in coupling.units for channel in unit.channels)
    assert every == sorted((path, n) for path, width in convolutions.items() for n in range(width))
    units, room = some_of(network, coupling.units, 0.3)
    gone = places_removed(units)
    for (path, axis), places in gone.items():
        if axis == IN:
            network.model.get_submodule(path).weight.data[:, sorted(places)] = 0
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    assert expected.std() > 1e-3

    smaller = shrunk(network.model, units)
    got = smaller(network.normalise(images))
    # Zeros are left out of sums, which float32 adds up in another order.
    scale = float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=3e-6 * scale)
    for (path, axis), places in gone.items():
        if isinstance(module := smaller.get_submodule(path), nn.Conv2d) and axis == OUT:
            assert module.out_channels == convolutions[path] - len(places)
    assert multiply_adds(smaller, network.input_size) == room.multiply_adds

    state, groups = without(network.model, units)
    file = tmp_path / "pruned.safetensors"
    save_pruned(file, Pruned.of(network, groups, {}), state)
    loaded = load_model(str(file), device="cpu")
    torch.testing.assert_close(loaded(images), got, rtol=0, atol=1e-6 * scale)
    assert loaded.name == name
    assert loaded.layer(layer).path == network.layer(layer).path
    assert parameters(loaded.model) < 0.9 * parameters(network.model)


def test_a_depthwise_convolution_of_the_images_stays() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, groups=3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    transform = Transform(resize=9, crop=9)
    network = Network(model, "mine", weights="own", transform=transform, device="cpu")
    coupling = couple(network, ())
    assert coupling.kept == {"0": "they are those of the images"}
    assert {path for unit in coupling.units for path, _ in unit.channels} == {"2"}


class Hostile(nn.Module):
    """Sums over other widths, a kept convolution, a shuffle, a parameter of its own, a reuse."""

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Conv2d(3, 6, 3, padding=1)
        self.grouped = nn.Conv2d(6, 6, 3, groups=3, padding=1)
        self.gate = nn.Conv2d(6, 1, 1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.scaled = nn.Conv2d(6, 4, 1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.rolled = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.free(x))
        x = torch.relu(self.grouped(x))
        x = x * torch.sigmoid(self.gate(x))
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        x = torch.relu(self.scaled(x) * self.scale)
        x = torch.relu(torch.roll(self.rolled(x), 1, dims=1))
        return self.last(x).mean((2, 3))


def test_what_cannot_be_followed_stays() -> None:
    torch.manual_seed(0)
    network = Network(
        Hostile(), "mine", weights="own", transform=Transform(resize=9, crop=9), device="cpu"
    )
    coupling = couple(network, ())
    free = {path for unit in coupling.units for path, _ in unit.channels}
    assert free == set()
    every = {"free", "grouped", "gate", "twice", "scaled", "rolled", "last"}
    assert set(coupling.kept) == every
    for path, word in (("grouped", "3 groups"), ("rolled", "roll"), ("last", "answer")):
        assert word in coupling.kept[path], coupling.kept


def test_residual_sums_and_depthwise_convolutions_go_together() -> None:
    network = load_model("mobilenet_v2", "random", device="cpu", resize=32, crop=32)
    units = {unit.channels[0]: unit for unit in couple(network, ()).units}
    # Expansion and depthwise convolution of block 2, then the sum over blocks 2 and 3.
    first = units["features.2.conv.0.0", 5]
    assert first.channels == (("features.2.conv.0.0", 5), ("features.2.conv.1.0", 5))
    assert first.removes["features.2.conv.2", IN] == {5}
    summed = units["features.2.conv.2", 7]
    assert summed.channels == (("features.2.conv.2", 7), ("features.3.conv.2", 7))
    kept = couple(network, {"features.3.conv.2"})
    assert "as asked" in kept.kept["features.2.conv.2"]
    assert len(kept.units) == len(units) - 24


def unit(*channels: tuple[str, int], goes: Mapping[tuple[str, str], set[int]]) -> Unit:
    return Unit(channels, {axis: frozenset(places) for axis, places in goes.items()})


def chain(widths: tuple[int, ...]) -> tuple[list[Unit], list[ConvolutionLayer], Room]:
    """Units, layers and room of convolutions one behind the other, at cost in x out."""
    names = [chr(97 + place) for place in range(len(widths))]
    sizes: dict[tuple[str, str], int] = {(names[0], OUT): widths[0]}
    units, cost = [], {names[0]: 3 * widths[0]}
    for place, width in enumerate(widths):
        after = names[place + 1] if place + 1 < len(widths) else None
        if after:
            sizes |= {(after, IN): width, (after, OUT): widths[place + 1]}
            cost[after] = width * widths[place + 1]
        for n in range(width):
            goes = {(names[place], OUT): {n}} | ({(after, IN): {n}} if after else {})
            units.append(unit((names[place], n), goes=goes))
    layers = [ConvolutionLayer(n, n, w) for n, w in zip(names, widths, strict=True)]
    return units, layers, Room(sizes, cost)


def test_the_least_important_go_first_and_no_layer_goes_whole() -> None:
    units, layers, room = chain((3, 4))
    scores = (np.array([0.1, 0.2, 0.3]), np.array([9.0, 0.15, 8.0, 0.25]))
    order = ranked(units, layers, scores, CRITERIA["taylor"])
    assert [one.channels[0] for one in order[:4]] == [("a", 0), ("b", 1), ("a", 1), ("b", 3)]
    chosen = by_fraction(order, 0.99, 7, room)
    # Of a, which would lose all three, the last stays, and of b the most important.
    left = {("a", n) for n in range(3)} | {("b", n) for n in range(4)}
    left -= {channel for one in chosen for channel in one.channels}
    assert left == {("a", 2), ("b", 0)}
    assert room.multiply_adds == 3 * 1 + 1 * 1
    units, layers, room = chain((3, 4))
    assert len(by_fraction(ranked(units, layers, scores, CRITERIA["l1"]), 0.5, 7, room)) == 3


def test_a_budget_of_multiply_adds_is_kept_and_no_more_than_needed_goes() -> None:
    units, layers, room = chain((10, 10))
    scores = (np.arange(10.0), np.arange(10.0) + 0.5)
    order = ranked(units, layers, scores, CRITERIA["taylor"])
    chosen = by_multiply_adds(order, 0.5, room)
    # a and b in turn: 3 (10 - i) + (10 - i)(10 - j) for i and j gone is 65 at most at 3, 4... by
    # hand: (3, 3) leaves 70, (4, 3) leaves 60.
    assert [one.channels[0][0] for one in chosen] == ["a", "b"] * 3 + ["a"]
    assert room.multiply_adds == 3 * 6 + 6 * 7
    units, _, room = chain((2, 2))
    with pytest.raises(OptionError, match="40% of the multiply-adds stay"):
        by_multiply_adds(units, 0.1, room)


def test_coupled_channels_count_together_and_chance_does_not_spare_them() -> None:
    layers = [ConvolutionLayer(name, name, 40) for name in "abcd"]
    alone = [unit(("a", n), goes={("a", OUT): {n}}) for n in range(40)]
    coupled = [
        unit(*((name, n) for name in "bcd"), goes={(name, OUT): {n} for name in "bcd"})
        for n in range(40)
    ]
    scores = tuple(np.full(40, value) for value in (2.5, 1.0, 1.0, 1.0))
    order = ranked([*coupled, *alone], layers, scores, CRITERIA["taylor"])
    assert order[:40] == alone, "1 + 1 + 1 is more than 2.5"
    found = 0.0
    for seed in range(200):
        drawn = tuple(np.random.default_rng([seed, n]).random(40) for n in range(4))
        order = ranked([*alone, *coupled], layers, drawn, CRITERIA["random"])
        found += sum(len(one.channels) == 3 for one in order[:20]) / 20 / 200
    # Half of the units; of 4,000 draws the standard error is 0.008.
    assert found == pytest.approx(0.5, abs=0.03)


def test_alexnets_multiply_adds_by_hand() -> None:
    network = load_model("alexnet", "random", device="cpu")
    convolutions = (
        55 * 55 * 64 * 3 * 11 * 11
        + 27 * 27 * 192 * 64 * 5 * 5
        + 13 * 13 * (384 * 192 + 256 * 384 + 256 * 256) * 3 * 3
    )
    linear = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    assert multiply_adds(network.model, (224, 224)) == convolutions + linear == 714_188_480
    by_module = multiply_adds_by_module(network.model, (224, 224))
    assert by_module["features.3"] == 27 * 27 * 192 * 64 * 5 * 5


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def run(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("importance") / "run"
    return importance("shapes:96:7", network, folder, ImportanceOptions(threads=1))


def test_what_is_said_is_what_the_file_holds(run: Run, network: Network, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    options = PruneOptions(flops=0.6, keep_layers=["conv1"], device="cpu", threads=1)
    found = prune(run, out, options, test="shapes:60:2")
    loaded = load_model(str(out), device="cpu")
    assert found.layers["conv1"] == (32, 32)
    assert "as asked" in found.kept["conv1"]
    for name, (before, after) in found.layers.items():
        assert network.layer(name).shape[0] == before
        assert loaded.layer(name).shape[0] == after <= before
    assert found.before.channels - found.after.channels == sum(
        before - after for before, after in found.layers.values()
    )
    assert found.after.multiply_adds == multiply_adds(loaded.model, (64, 64))
    assert 0.55 < found.after.multiply_adds / found.before.multiply_adds <= 0.6
    assert found.after.parameters == sum(p.numel() for p in loaded.model.parameters())
    source = open_source("shapes:60:2")
    images = torch.stack([source.decode(source.read(row)) for row in range(60)]).float() / 255
    labels = torch.tensor(source.rows()["label"].to_numpy(), dtype=torch.int64)
    for figures, each in ((found.before, network), (found.after, loaded)):
        with torch.no_grad():
            logits = each(images)
        assert figures.accuracy is not None
        assert figures.accuracy.rows == 60
        assert figures.accuracy.share == float((logits.argmax(1) == labels).double().mean())
        losses = F.cross_entropy(logits, labels)
        assert figures.accuracy.loss == pytest.approx(float(losses), rel=1e-4)
        assert figures.images_per_second > 0
    assert loaded.labels == network.labels
    assert (loaded.mean, loaded.std) == (network.mean, network.std)
    assert loaded.transform == network.transform
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]
    again = prune(run, tmp_path / "again.safetensors", options, test="shapes:60:2")
    assert again.file.read_bytes() == out.read_bytes()


def test_a_pruned_network_runs_and_is_found_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prune(run, "small.safetensors", PruneOptions(fraction=0.3, device="cpu", threads=1))
    made = extract(
        "shapes:5:3", "small.safetensors", ["conv5", "fc7"], "made", ExtractOptions(threads=1)
    )
    pruned = importance("shapes:5:3", "small.safetensors", "twice", ImportanceOptions(threads=1))
    monkeypatch.chdir("/")  # what a run wrote down does not depend on where one stands
    for each in (made, pruned):
        found = network_of(Run(tmp_path / each.folder), "cpu")
        assert found.digest == load_model(str(tmp_path / "small.safetensors")).digest
    assert np.isfinite(np.asarray(Run(tmp_path / "made")["fc7"])).all()
    # And it can be pruned again.
    twice = prune(
        Run(tmp_path / "twice"), tmp_path / "smaller.safetensors", PruneOptions(fraction=0.3)
    )
    assert twice.after.channels < twice.before.channels < 352


def test_taylor_beats_l1_and_chance(network: Network) -> None:
    found = by_criterion(network, range(2), 128, "shapes:300:2")
    means = {name: sum(each) / len(each) for name, each in found.items()}
    # Over five seeds and 500 rows: 0.50, 0.30 and 0.20; a share of 300 has an error of 0.03.
    assert means["taylor"] > means["l1"] + 0.06, means
    assert means["l1"] > means["random"] - 0.1, means
    assert means["whole"] > 0.95


def test_rows_of_a_source_are_its_rows() -> None:
    whole = open_source("shapes:9:1")
    part = Rows(whole, 4, 8)
    assert len(part) == 4
    assert part.rows(1, 9).equals(whole.rows(5, 8))
    assert part.rows(-2).equals(whole.rows(6, 8))
    assert part.read(0) == whole.read(4)


def test_errors_name_the_cause(
    run: Run, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.safetensors"

    def refused(match: str, error: type[Exception] = OptionError, **options: Any) -> None:
        test = options.pop("test", None)
        with pytest.raises(error, match=match):
            prune(run, options.pop("out", out), PruneOptions(**options), test=test)
        assert not list(tmp_path.iterdir())

    refused("fraction of channels to remove or a share of flops")
    refused("fraction of channels to remove or a share of flops", fraction=0.1, flops=0.5)
    refused("fraction is 1.5", fraction=1.5)
    refused("flops is 0", flops=0.0)
    refused("stay; ask for more", flops=0.0001)
    refused("no criterion 'magic'; there are taylor, activation", fraction=0.1, criterion="magic")
    refused("must end in .safetensors", fraction=0.1, out=tmp_path / "x.pt")
    refused("no set that can go is so small", fraction=0.001)
    refused("seed is -1", fraction=0.1, seed=-1)
    refused("fc7 is no convolution", fraction=0.1, keep_layers=["fc7"])
    refused("no layer 'conv9'", LayerError, fraction=0.1, keep_layers=["conv9"])
    refused(
        "no channel of tiny-shapes can go",
        fraction=0.1,
        keep_layers=["conv1", "conv2", "conv3", "conv4", "conv5"],
    )
    with pytest.raises(FileNotFoundError):
        prune(run, tmp_path / "no" / "x.safetensors", PruneOptions(fraction=0.1))
    bare = extract("shapes:3:0", network, ["fc7"], tmp_path / "bare", ExtractOptions(threads=1))
    with pytest.raises(StoreError, match="no importances; fc7 importance makes them"):
        prune(bare, out, PruneOptions(fraction=0.1))
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(OptionError, match=r"pip install 'fc7\[prune\]'"):
        couple(network, ())


def damaged(file: Path, **changes: Any) -> None:
    """Write a pruned network's file anew with other words in its metadata."""
    from safetensors.torch import save_file

    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["fc7.pruned"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name in changes.pop("drop", ()):
        tensors.pop(name)
    tensors |= changes.pop("tensors", {})
    save_file(tensors, file, {"fc7.pruned": json.dumps(said | changes)})


def test_foreign_and_damaged_files_are_refused(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good.safetensors"
    units, _ = some_of(network, couple(network, ()).units, 0.2)
    state, groups = without(network.model, units)
    save_pruned(good, Pruned.of(network, groups, {}), state)
    whole = good.read_bytes()
    assert load_model("good.safetensors", device="cpu").file == good

    def refused(match: str, content: bytes = whole, **changes: Any) -> None:
        file = tmp_path / "bad.safetensors"
        file.write_bytes(content)
        if changes:
            damaged(file, **changes)
        with pytest.raises(ModelError, match=match) as caught:
            load_model("bad.safetensors", device="cpu")
        assert len(str(caught.value).splitlines()) == 1

    refused("cannot read", content=b"")
    refused("cannot read", content=whole[: len(whole) // 2])
    refused("cannot read", content=b"\xff" * 100)
    refused("format 7", format=7)
    refused("does not say", transform={"resize": -1, "crop": 3})
    refused("does not say", mean=[1, 2])
    refused("does not say", groups={"conv1": "many"})
    refused("cannot be built", network="vgg12")
    refused("not in the current folder", network="os:abort")
    refused("not in the current folder", network="../evil:run")
    refused("missing: conv2.weight", drop=["conv2.weight"])
    refused("not of tiny-cifar10|does not run", network="tiny-cifar10", drop=["fc6.weight"])
    refused("groups", groups={"conv1": 0})
    refused("shape: conv2.weight", tensors={"conv2.weight": torch.zeros(3)})
    other = torch.zeros(len(state["conv2.bias"]), 9, 5, 5)
    refused("does not run", tensors={"conv2.weight": other})
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match="does not say of which network"):
        load_model("weights.safetensors")
    with pytest.raises(ModelError, match=r"there is no file no\.safetensors"):
        load_model("no.safetensors")
    with pytest.raises(ModelError, match="leave the weights out"):
        load_model("good.safetensors", weights="random")
    with pytest.raises(ModelError, match="a smaller tiny-shapes, not alexnet"):
        load_model("alexnet", weights="good.safetensors")
    named = load_model("tiny-shapes", weights="good.safetensors", device="cpu")
    assert named.digest == load_model("good.safetensors", device="cpu").digest


def test_ones_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),\n"
        "        nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 8, 1), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))\n"
    )
    network = load_model("own_net:make", device="cpu", resize=16, crop=16)
    run = importance("shapes:6:1", network, "run", ImportanceOptions(threads=1))
    found = prune(run, "own.safetensors", PruneOptions(fraction=0.3, device="cpu", threads=1))
    assert found.before.accuracy is None
    assert "not the network's classes" in found.tested_on
    loaded = load_model("own.safetensors", device="cpu")
    assert loaded.input_size == (16, 16)
    assert sum(after for _, after in found.layers.values()) == 14
    assert loaded.layer("3").shape[0] == loaded.layer("0").shape[0]
    again = load_model("own_net:make", weights="own.safetensors", device="cpu", resize=16, crop=16)
    assert again.digest == loaded.digest
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    with pytest.raises(ModelError, match="--model own_net:make --weights"):
        load_model("../own.safetensors")
    # Installed, as it were: who asked for the network by name has named what runs.
    monkeypatch.syspath_prepend(str(tmp_path))
    prune(Run(tmp_path / "run"), "there.safetensors", PruneOptions(fraction=0.3, device="cpu"))
    there = load_model("own_net:make", weights="there.safetensors", device="cpu")
    assert there.digest == loaded.digest


def test_choosing_needs_scores_alone(network: Network, run: Run) -> None:
    found = read_importance(run, network)
    mine = tuple(np.arange(layer.channels, dtype=float) for layer in found.layers)
    other = ChannelImportance(found.stored, {**found.scores, "taylor": mine})
    units, _ = choose(network, other, PruneOptions(fraction=0.1))
    chosen = sorted(channel for one in units for _, channel in one.channels)
    # The lowest numbers of all five layers: 35 of 352.
    assert chosen == sorted([n for n in range(7) for _ in range(5)])
    before = copy.deepcopy(network.model.state_dict())
    shrunk(network.model, units)
    for name, tensor in network.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
