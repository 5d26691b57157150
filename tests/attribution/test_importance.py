"""Importance: what a run holds, against the formulas by hand in float64, and after stops."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fc7.engine.attribution.importance.convolutions import find_convolutions
from fc7.engine.attribution.importance.criteria import (
    CRITERIA,
    filter_l1,
    normalised,
    random_scores,
    read_importance,
)
from fc7.engine.attribution.importance.gates import gather_evidence
from fc7.engine.attribution.importance.job import ImportanceOptions
from fc7.engine.attribution.importance.stored import ConvolutionLayer, read_stored
from fc7.engine.attribution.importance.workflow import importance, importance_with_summary
from fc7.engine.data import open_source
from fc7.engine.data.transform import Transform
from fc7.engine.errors import FingerprintError, ModelError, OptionError, StoreError
from fc7.engine.models import Network, load_model
from fc7.engine.store import Progress, open_store, verify

SIZE = 13


class Taped(nn.Module):
    """A network that keeps, where a tape is given, each channel's activation as the paper has it.

    That is behind the normalisation and behind the ReLU where there is one.
    """

    tape: list[Tensor] | None = None

    def keep(self, activation: Tensor) -> Tensor:
        if self.tape is not None:
            activation.retain_grad()
            self.tape.append(activation)
        return activation


class Functional(Taped):
    """Convolutions of odd sizes, functional ReLUs, one normalised, one bare."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, stride=2)
        self.second = nn.Conv2d(5, 7, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(7)
        self.third = nn.Conv2d(7, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.keep(F.relu(self.first(x)))
        x = self.keep(F.relu(self.norm(self.second(x))))
        x = self.keep(self.third(x))
        return self.head(F.max_pool2d(x, 3).mean((2, 3)))


class Grouped(Taped):
    """A grouped convolution, a depthwise one, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.groups = nn.Conv2d(8, 12, 3, groups=4, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 5, groups=12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.stem, self.groups, self.depthwise):
            x = self.keep(torch.relu(layer(x)))
        return self.head(x.mean((2, 3)))


class Residual(Taped):
    """A residual sum, whose branches end without a ReLU of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(6)
        self.one = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.one_norm = nn.BatchNorm2d(6)
        self.two = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.two_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.keep(F.relu(self.stem_norm(self.stem(x))))
        branch = self.keep(F.relu(self.one_norm(self.one(x))))
        branch = self.keep(self.two_norm(self.two(branch)))
        return self.head(F.relu(x + branch).mean((2, 3)))


class InPlace(nn.Module):
    """As `Functional`, every ReLU a module that works in place."""

    def __init__(self, of: Functional) -> None:
        super().__init__()
        self.first, self.second, self.norm = of.first, of.second, of.norm
        self.third, self.head, self.relu = of.third, of.head, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.second(self.relu(self.first(x)))))
        return self.head(F.max_pool2d(self.third(x), 3).mean((2, 3)))


def network_of(model: nn.Module) -> Network:
    return Network(
        model, "mine", weights="own", transform=Transform(resize=SIZE, crop=SIZE), device="cpu"
    )


def shaken(make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose normalisations do something."""
    torch.manual_seed(3)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model


def by_hand(network: Network, images: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """|mean of a dL/da| and mean |a| of every image and channel, an image at a time, in float64."""
    model = copy.deepcopy(network.model).double().requires_grad_()
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (network.mean, network.std))
    taylor, activation = [], []
    for image, target in zip(images.double(), targets, strict=True):
        model.tape = []
        logits = model(((image - mean[:, None, None]) / std[:, None, None])[None])
        loss = torch.logsumexp(logits[0], 0) - logits[0, target]
        loss.backward()
        sums: list[list[float]] = [[], []]
        for kept in model.tape:
            assert kept.grad is not None
            for channel in range(kept.shape[1]):
                a, slope = kept[0, channel].detach(), kept.grad[0, channel]
                sums[0].append(abs(float((a * slope).sum()) / a.numel()))
                sums[1].append(float(a.abs().sum()) / a.numel())
        taylor.append(sums[0])
        activation.append(sums[1])
    return np.array(taylor), np.array(activation)


@pytest.mark.parametrize("make", [Functional, Grouped, Residual])
def test_evidence_is_the_papers_formula(make: Callable[[], nn.Module]) -> None:
    network = network_of(shaken(make))
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 2, 1, 2])
    folded = network.folded([])
    convolutions = find_convolutions(folded, network.layers)
    found = gather_evidence(folded, convolutions, images, lambda predicted: targets)
    taylor, activation = by_hand(network, images, targets)
    # float32 through a handful of layers, against the largest of each.
    np.testing.assert_allclose(found.taylor, taylor, atol=3e-6 * taylor.max())
    np.testing.assert_allclose(found.activation, activation, atol=3e-6 * activation.max())
    assert (taylor.max(0) > 1e-3 * taylor.max()).mean() > 0.5, "else the test would see little"
    with torch.no_grad():
        losses = F.cross_entropy(network(images), targets, reduction="none")
    torch.testing.assert_close(found.loss, losses)


def test_it_does_not_matter_how_a_relu_is_written() -> None:
    model = shaken(Functional)
    assert isinstance(model, Functional)
    found = []
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    for each in (model, InPlace(model)):
        folded = network_of(each).folded([])
        convolutions = find_convolutions(folded, network_of(each).layers)
        found.append(gather_evidence(folded, convolutions, images, lambda predicted: predicted))
    torch.testing.assert_close(found[0].taylor, found[1].taylor, rtol=0, atol=0)
    torch.testing.assert_close(found[0].activation, found[1].activation, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_a_convolution_that_runs_twice_counts_both_times() -> None:
    class Twice(Taped):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.keep(torch.tanh(self.keep(self.conv(x))))
            return self.head(torch.tanh(self.conv(x)).mean((2, 3)))

    network = network_of(shaken(Twice))
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([0, 1])
    convolutions = find_convolutions(network, network.layers)
    found = gather_evidence(network, convolutions, images, lambda predicted: targets)
    # Removing a channel multiplies both of its outputs by a gate: its slope, by finite differences.
    step = 1e-4
    for channel in range(3):
        sides = []
        for gate in (1 + step, 1 - step):
            model = copy.deepcopy(network.model).double()
            factor = torch.ones(3, dtype=torch.float64)
            factor[channel] = gate
            model.conv.weight.data *= factor[:, None, None, None]
            model.conv.bias.data *= factor
            logits = model(network.normalise(images).double())
            sides.append(F.cross_entropy(logits, targets, reduction="none"))
        slope = (sides[0] - sides[1]).abs().detach() / (2 * step * SIZE * SIZE)
        torch.testing.assert_close(found.taylor[:, channel].double(), slope, rtol=1e-3, atol=1e-9)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


def images_of(spec: str) -> Tensor:
    source = open_source(spec)
    images = [source.decode(source.read(row)) for row in range(len(source))]
    return torch.stack(images).float() / 255


class TapedSequence(Taped):
    def __init__(self, of: nn.Sequential) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        for name, module in self.of.named_children():
            x = module(x)
            if name in ("relu1", "relu2", "relu3", "relu4", "relu5"):
                x = self.keep(x)
        return x


def test_a_run_holds_rows_and_means(tmp_path: Path, network: Network) -> None:
    options = ImportanceOptions(batch_rows=3, part_rows=4, threads=1)
    run = importance("shapes:7:4", network, tmp_path / "run", options)
    images, labels = images_of("shapes:7:4"), torch.from_numpy(run.labels)
    assert isinstance(network.model, nn.Sequential)
    taped = copy.copy(network)
    taped._modules = {"model": TapedSequence(network.model)}
    taylor, activation = by_hand(taped, images, labels)
    rows = np.asarray(run["importance.taylor"])
    assert (rows.shape, rows.dtype) == ((7, 352), np.float32)
    np.testing.assert_allclose(rows, taylor, atol=1e-5 * taylor.max())
    with torch.no_grad():
        logits = network(images)
    np.testing.assert_array_equal(run["importance.correct"], (logits.argmax(1) == labels).numpy())
    losses = F.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(run["importance.loss"], losses, rtol=1e-4, atol=1e-6)
    stored = read_stored(run)
    assert [layer.name for layer in stored.layers] == [f"conv{n}" for n in range(1, 6)]
    assert run.job("importance").outputs["importance.taylor"].attributes["offsets"] == [
        *(0, 32, 96, 192, 288)
    ]
    # The sum of float32 rows in float64 has no rounding to speak of.
    np.testing.assert_allclose(
        np.concatenate(stored.taylor), rows.mean(0, dtype=np.float64), rtol=1e-12
    )
    stacked = np.asarray(run["importance.activation"], dtype=np.float64)
    np.testing.assert_allclose(stacked, activation, atol=1e-5 * activation.max())
    np.testing.assert_allclose(np.concatenate(stored.activation), stacked.mean(0), rtol=1e-12)
    assert (stored.rows, stored.labelled, stored.target) == (7, 7, "label")
    assert stored.accuracy == float((logits.argmax(1) == labels).double().mean())
    assert verify(run) == []


def test_criteria_compare_across_layers(tmp_path: Path, network: Network) -> None:
    run = importance("shapes:5:1", network, tmp_path / "run", ImportanceOptions(threads=1))
    found = read_importance(run, seed=4)
    assert set(found.scores) == {*CRITERIA} - {"inversion"}  # that takes a job of its own
    for name in ("taylor", "activation", "l1"):
        norms = [np.linalg.norm(layer) for layer in found.scores[name]]
        np.testing.assert_allclose(norms, 1, err_msg=name)
    weights = network.model.get_submodule("conv3").weight.double().numpy()
    by_filter = [np.abs(weights[channel]).sum() for channel in range(96)]
    np.testing.assert_allclose(filter_l1(found.layers, network)[2], by_filter)
    for mine, again in zip(found.scores["random"], random_scores(found.layers, 4), strict=True):
        np.testing.assert_array_equal(mine, again)
    other = random_scores(found.layers, 5)
    assert not np.isclose(found.scores["random"][0], other[0]).any()
    assert [s.shape for s in found.scores["taylor"]] == [(32,), (64,), (96,), (96,), (64,)]
    zeros = normalised((np.zeros(3), np.array([3.0, 4.0])))
    np.testing.assert_array_equal(zeros[0], 0)
    np.testing.assert_allclose(zeros[1], [0.6, 0.8])


def test_chance_favours_neither_wide_nor_narrow_layers() -> None:
    layers = [ConvolutionLayer("narrow", "a", 8), ConvolutionLayer("wide", "b", 512)]
    least = np.zeros(2)
    for seed in range(300):
        scores = random_scores(layers, seed)
        cut = np.quantile(np.concatenate(scores), 0.25)
        least += [(layer <= cut).mean() for layer in scores]
    # 2,400 draws for the narrow layer: a standard error below 0.009.
    np.testing.assert_allclose(least / 300, 0.25, atol=0.03)


def test_parts_and_a_stop_change_no_byte(tmp_path: Path, network: Network) -> None:
    folder = tmp_path / "run"

    def stop(progress: Progress) -> None:
        if progress.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importance("shapes:14:9", network, folder, ImportanceOptions(2, 4, 1, report=stop))
    assert 1 <= len(open_store(folder).job("importance").committed()) < 4
    with pytest.raises(StoreError, match="not finished"):
        read_stored(open_store(folder))
    half = ImportanceOptions(2, 4, 1, parts="3::2")
    _, summary = importance_with_summary("shapes:14:9", network, folder, half)
    assert not summary.is_complete
    options = ImportanceOptions(2, 4, 1)
    run = importance("shapes:14:9", network, folder, options)
    whole = importance("shapes:14:9", network, tmp_path / "whole", options)
    files = sorted(path.relative_to(folder) for path in folder.glob("jobs/importance*/*/*.npy"))
    assert len(files) == 4 * 4 + 4 * 4 + 4
    for file in files:
        assert (folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    assert verify(run) == []


def test_predictions_stand_in_for_labels_that_are_no_classes(
    tmp_path: Path, network: Network
) -> None:
    source, folder = open_source("shapes:4:2"), tmp_path / "images"
    for row in range(4):
        path = folder / f"class-{row}" / f"{row}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(source.decode(source.read(row)).permute(1, 2, 0).numpy()).save(path)
    (folder / "class-1" / "1b.png").write_text("no image")
    options = ImportanceOptions(threads=1)
    run = importance(folder, network, tmp_path / "run", options)
    stored = read_stored(run)
    assert (stored.target, stored.rows, stored.labelled) == ("predicted", 4, 0)
    assert stored.accuracy is None
    # Bad rows hold zeros, which the means leave out.
    np.testing.assert_array_equal(np.flatnonzero(~run.good), [2])
    rows = np.asarray(run["importance.taylor"], dtype=np.float64)
    np.testing.assert_allclose(np.concatenate(stored.taylor), rows.sum(0) / 4, rtol=1e-12)
    assert np.asarray(run["importance.correct"])[run.good].tolist() == [-1] * 4


def test_errors_name_the_cause(tmp_path: Path, network: Network) -> None:
    with pytest.raises(OptionError, match="batch_rows is 0"):
        importance("shapes:2:0", network, tmp_path / "a", ImportanceOptions(batch_rows=0))
    linear = network_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4)))
    with pytest.raises(ModelError, match="no convolutions"):
        importance("shapes:2:0", linear, tmp_path / "b")
    run = importance("shapes:2:0", network, tmp_path / "c", ImportanceOptions(threads=1))
    other = load_model("tiny-shapes", weights="random", device="cpu")
    with pytest.raises(FingerprintError, match="another network"):
        importance("shapes:2:0", other, run.folder)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_text("no image")
    (folder / "b.png").write_text("no image")
    with pytest.raises(StoreError, match="no row of"):
        read_stored(importance(folder, network, tmp_path / "d", ImportanceOptions(threads=1)))
    broken = load_model("tiny-shapes", device="cpu")
    broken.model.get_submodule("conv2").bias.data[3] = torch.nan
    with pytest.raises(StoreError, match="not finite"):
        read_stored(importance("shapes:2:0", broken, tmp_path / "e", ImportanceOptions(threads=1)))
