"""Fine-tuning: it goes on after a kill to the same bits, and lowers the loss."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fc7.engine.attribution.importance.job import ImportanceOptions
from fc7.engine.attribution.importance.workflow import importance
from fc7.engine.attribution.pruning.training import FineTune, FineTuneOptions, flip_and_shift
from fc7.engine.attribution.pruning.workflow import PruneOptions, prune
from fc7.engine.data import open_source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.models.pruned import Pruned
from fc7.engine.store import Run, run_stage, verify

NET = """
from torch import nn
def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(True), nn.Dropout2d(0.2),
        nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(True), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(48, 16),
    )
"""

OPTIONS = FineTuneOptions(epochs=2.4, batch_rows=8, learning_rate=0.05, seed=7, threads=1)


def stage_in(folder: Path, checkpoint_seconds: float = 0) -> tuple[Run, FineTune]:
    """A run, and the training of a network with normalisations and dropout on 43 rows of it."""
    torch.set_num_threads(1)
    network = load_model("stop_net:make", device="cpu", resize=32, crop=32)
    source = open_source("shapes:43:5")
    pruned = Pruned.of(network, {}, {"criterion": "none"})
    options = replace(OPTIONS, checkpoint_seconds=checkpoint_seconds)
    return Run.create(folder, source), FineTune(network, pruned, source, options)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_finetune import stage_in
from fc7.engine.store import run_stage
run_stage(*stage_in(Path("killed")))
"""


def test_after_a_kill_the_weights_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stop_net.py").write_text(NET)
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(tests=str(Path(__file__).parent))])
    deadline = time.monotonic() + 120
    while not list(Path("killed").glob("jobs/finetune-*/checkpoints/00000[2-9]")):
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    run, stage = stage_in(Path("killed"))
    assert stage.steps == 12  # 5 steps an epoch, whose last 3 rows are left out
    seen: list[int] = []
    stage.report = lambda progress: seen.append(progress.done)
    job = run_stage(run, stage)
    assert 3 * 8 <= seen[0] <= 12 * 8, "it went on after its second step or later"
    whole = run_stage(*stage_in(Path("whole"), checkpoint_seconds=60))
    for name in ("network.safetensors", "losses.npy"):
        killed, undisturbed = (each.folder / "result" / name for each in (job, whole))
        assert killed.read_bytes() == undisturbed.read_bytes(), name
    assert np.isfinite(job.result("losses")).all()
    assert not (job.folder / "checkpoints").exists()
    assert verify(run) == []
    trained = load_model("stop_net:make", job.folder / "result/network.safetensors", device="cpu")
    start = stage.network.model.state_dict()
    state = load_file(job.folder / "result/network.safetensors")
    # Weights have moved, and so have the statistics: normalisations train.
    for key in ("0.weight", "1.running_mean", "4.bias", "10.weight"):
        assert not torch.equal(state[key], start[key]), key
    assert int(state["1.num_batches_tracked"]) == 12
    assert trained.digest != stage.network.digest
    record = job.result_record()
    assert record is not None
    assert record["info"]["steps"] == 12


def test_steps_are_those_of_momentum_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = load_model("tiny-shapes", device="cpu")
    source = open_source("shapes:12:5")
    options = FineTuneOptions(
        epochs=1, batch_rows=4, learning_rate=0.01, weight_decay=0.01, augment=False, threads=1
    )
    stage = FineTune(network, Pruned.of(network, {}, {}), source, options)
    job = run_stage(Run.create("run", source), stage)
    order = np.random.default_rng([0, 0]).permutation(12)
    images = torch.stack([source.decode(source.read(int(row))) for row in order]).double() / 255
    labels = torch.tensor(source.rows()["label"].to_numpy()[order], dtype=torch.int64)
    model = load_model("tiny-shapes", device="cpu").model.double().requires_grad_()
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(3):
        batch = slice(4 * step, 4 * step + 4)
        logits = model((images[batch] - 0.5) / 0.25)
        loss = -(logits.log_softmax(1)[range(4), labels[batch]]).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rate = 0.01 * (1 + np.cos(np.pi * step / 3)) / 2
        with torch.no_grad():
            for (name, p), gradient in zip(model.named_parameters(), gradients, strict=True):
                slope = gradient + (0.01 * p if p.ndim > 1 else 0)
                velocity[name] = 0.9 * velocity[name] + slope
                p -= rate * (slope + 0.9 * velocity[name])
        assert float(job.result("losses")[step]) == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    for name, tensor in load_file(job.folder / "result/network.safetensors").items():
        expected = model.state_dict()[name].float()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-5)


def test_training_makes_up_for_what_is_gone(tmp_path: Path) -> None:
    network = load_model("tiny-shapes", device="cpu")
    run = importance("shapes:96:7", network, tmp_path / "run", ImportanceOptions(threads=1))
    finetune = FineTuneOptions(batch_rows=32, learning_rate=0.003, threads=1)
    out = tmp_path / "tuned.safetensors"
    options = PruneOptions(fraction=0.2, device="cpu", threads=1)
    found = prune(run, out, options, "shapes:100:2", finetune, "shapes:256:3")
    assert found.tuned is not None
    assert found.after.accuracy is not None
    assert found.tuned.accuracy is not None
    assert found.tuned.accuracy.loss < 0.7 * found.after.accuracy.loss
    assert found.tuned.accuracy.share > found.after.accuracy.share + 0.1
    loaded = load_model(str(out), device="cpu")
    (job,) = (job for job in run.jobs().values() if job.kind == "stage")
    assert loaded.digest == load_model(str(job.folder / "result/network.safetensors")).digest
    before = out.read_bytes()
    kept = (job.folder / "job.json").stat().st_mtime_ns
    prune(run, out, options, "shapes:100:2", finetune, "shapes:256:3")
    assert (job.folder / "job.json").stat().st_mtime_ns == kept, "it is not trained again"
    assert out.read_bytes() == before


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    network = load_model("tiny-shapes", device="cpu")
    assert network.labels is not None
    source = open_source("shapes:9:8")
    for row in range(9):
        path = tmp_path / "images" / network.labels[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if row in (2, 5):
            path.write_text("no image")
        else:
            Image.fromarray(source.decode(source.read(row)).permute(1, 2, 0).numpy()).save(path)
    images = open_source(tmp_path / "images")
    options = FineTuneOptions(epochs=3, batch_rows=1, threads=1)
    stage = FineTune(network, Pruned.of(network, {}, {}), images, options)
    losses = run_stage(Run.create(tmp_path / "run", images), stage).result("losses")
    assert len(losses) == 27
    assert np.isnan(losses).sum() == 6, "two of nine, three times"


def test_flips_and_shifts_are_functions_of_their_key() -> None:
    image = torch.arange(3 * 20 * 11, dtype=torch.int32).reshape(3, 20, 11).to(torch.uint8)
    found = [flip_and_shift(image, (0, 1, row)) for row in range(60)]
    for row, each in enumerate(found):
        assert each.shape == image.shape
        torch.testing.assert_close(each, flip_and_shift(image, (0, 1, row)), rtol=0, atol=0)
    inner = image[:, 2:-2, 1:-1]
    places = {
        (top, left, flipped)
        for each in found
        for top in range(5)
        for left in range(3)
        for flipped in (False, True)
        if torch.equal(
            (each.flip(2) if flipped else each)[:, top : top + 16, left : left + 9], inner
        )
    }
    assert {flipped for _, _, flipped in places} == {False, True}
    assert {top for top, _, _ in places} == set(range(5))
    assert {left for _, left, _ in places} == set(range(3))


def test_errors_name_the_cause(tmp_path: Path) -> None:
    network = load_model("tiny-shapes", device="cpu")
    source = open_source("shapes:12:5")

    def train(options: FineTuneOptions) -> None:
        stage = FineTune(network, Pruned.of(network, {}, {}), source, options)
        run_stage(Run.create(tmp_path / "run", source), stage)

    def refused(match: str, options: FineTuneOptions) -> None:
        with pytest.raises(OptionError, match=match):
            train(options)

    refused("epochs is 0", FineTuneOptions(epochs=0))
    refused("12 labelled rows, fewer than a batch of 128", FineTuneOptions())
    refused(
        "not a number; start with a learning rate below",
        FineTuneOptions(epochs=9, batch_rows=4, learning_rate=1e30, threads=1),
    )
    unlabelled = tmp_path / "images"
    unlabelled.mkdir()
    Image.new("RGB", (64, 64)).save(unlabelled / "a.png")
    other: Network = network
    with pytest.raises(OptionError, match="no row of"):
        FineTune(other, Pruned.of(network, {}, {}), open_source(unlabelled), FineTuneOptions())
