"""What is lost with a channel, beside networks that lack it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fc7.engine.attribution.importance.criteria import read_importance
from fc7.engine.attribution.importance.job import ImportanceOptions
from fc7.engine.attribution.importance.workflow import importance
from fc7.engine.attribution.pruning.workflow import PruneOptions, prune
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.errors import LayerError, OptionError
from fc7.engine.information.job import (
    InversionImportanceOptions,
    SilenceChannels,
    inversion_importance,
    inversion_importance_with_summary,
)
from fc7.engine.information.silenced import SilenceOptions, Silencer
from fc7.engine.models import Network, load_model
from fc7.engine.store import open_store


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def image() -> Tensor:
    source = ShapesSource(3, 11)
    return source.decode(source.read(1)).float() / 255


def test_before_any_step_it_is_what_the_layer_loses(network: Network, image: Tensor) -> None:
    """One evaluation finds what it starts from: the image away from 0 and 1."""
    silencer = Silencer(network, "conv5", SilenceOptions(evaluations=1, batch_channels=7))
    channels = network.layer("conv3").shape[0]
    found = silencer(image, network.layer("conv3").path, channels)
    model = copy.deepcopy(network.model).double()
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (network.mean, network.std))

    def read(x: Tensor) -> Tensor:
        x = (x.double()[None] - mean) / std
        for name, module in model.named_children():
            x = module(x)
            if name == "conv5":
                return x.flatten()
        raise AssertionError

    whole, near = read(image), image.clamp(0.02, 0.98)
    conv3 = model.get_submodule("conv3")
    assert isinstance(conv3, nn.Conv2d)
    assert conv3.bias is not None
    least = (read(near) - whole).norm() / whole.norm()
    for channel in (0, 5, channels - 1):
        weight, bias = conv3.weight[channel].clone(), conv3.bias[channel].clone()
        with torch.no_grad():
            conv3.weight[channel], conv3.bias[channel] = 0, 0
        rise = (read(near) - whole).norm() / whole.norm() - least
        with torch.no_grad():
            conv3.weight[channel], conv3.bias[channel] = weight, bias
        # float32 features beside float64's, of which two like numbers are subtracted.
        assert float(found[channel]) == pytest.approx(float(rise), abs=2e-6)


def test_a_channel_that_nobody_reads_is_no_loss(image: Tensor) -> None:
    network = load_model("tiny-shapes", device="cpu")
    conv4 = network.model.get_submodule("conv4")
    assert isinstance(conv4, nn.Conv2d)
    conv4.weight[:, 3] = 0
    channels = network.layer("conv3").shape[0]
    silencer = Silencer(network, "conv5", SilenceOptions(evaluations=4))
    found = silencer(image, network.layer("conv3").path, channels)
    assert float(found[3]) == 0
    others = torch.cat([found[:3], found[4:]])
    assert float(others.median()) > 1e-3


def test_a_search_lowers_what_is_lost(network: Network, image: Tensor) -> None:
    path, channels = network.layer("conv1").path, network.layer("conv1").shape[0]
    rises = [
        Silencer(network, "conv3", SilenceOptions(evaluations=count))(image, path, channels)
        for count in (1, 8)
    ]
    assert float(rises[1].mean()) < 0.8 * float(rises[0].mean())


def test_a_channel_does_not_depend_on_its_company(network: Network, image: Tensor) -> None:
    silencer = Silencer(network, "conv3", SilenceOptions(evaluations=3, batch_channels=8))
    path = network.layer("conv1").path
    channels = network.layer("conv1").shape[0]
    assert torch.equal(silencer(image, path, channels)[:11], silencer(image, path, 11))


def test_the_run_ranks_channels_by_it(network: Network, tmp_path: Path) -> None:
    source = ShapesSource(2, 5)
    options = InversionImportanceOptions(evaluations=1, part_rows=2, threads=1)
    run = importance(source, network, tmp_path / "run", ImportanceOptions(part_rows=2))
    asked = PruneOptions(fraction=0.2, criterion="inversion", device="cpu")
    with pytest.raises(OptionError, match="importance --inversion"):
        prune(run, tmp_path / "no.safetensors", asked)
    assert "inversion" not in read_importance(run, network).scores
    run = inversion_importance(source, network, tmp_path / "run", options)
    rows = np.asarray(run["importance-inversion"])
    found = read_importance(open_store(run.folder), network)
    layers = found.scores["inversion"]
    assert rows.shape == (2, sum(layer.channels for layer in found.layers))
    mean = rows.mean(0, dtype=np.float64).clip(0)
    start = 0
    for layer, scores in zip(found.layers, layers, strict=True):
        own = mean[start : start + layer.channels]
        np.testing.assert_allclose(scores, own / np.linalg.norm(own), rtol=1e-6)
        start += layer.channels
    _, summary = inversion_importance_with_summary(source, network, run.folder, options)
    assert summary.computed == 0
    made = prune(run, tmp_path / "small.safetensors", asked)
    assert made.after.channels < made.before.channels


def test_what_is_wrong_is_said(network: Network) -> None:
    for wrong in ({"evaluations": 0}, {"batch_channels": 0}, {"variation": float("nan")}):
        with pytest.raises(OptionError):
            Silencer(network, "conv3", SilenceOptions(**wrong))
    with pytest.raises(LayerError):
        Silencer(network, "conv9")


def test_branches_flow_into_what_is_inverted() -> None:
    """Of GoogLeNet's last block the last convolution is one branch of four."""
    network = load_model("googlenet", weights="random", device="cpu")
    job = SilenceChannels(network, ShapesSource(1, 1), InversionImportanceOptions())
    assert job.fingerprint()["options"]["behind"] == "inception5b"
