"""The training script: its augmentation, its learning, and the files it writes."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fc7.bench.train as script
from fc7.bench.train import fit, flip_and_shift, read_examples, save_weights
from fc7.engine.data import open_source
from fc7.engine.models.tiny import TINY, TinyAlexNet, fold_batch_norm, load_tiny


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


def test_each_image_is_a_shifted_or_mirrored_window_of_its_reflection() -> None:
    images = torch.arange(24 * 3 * 20 * 22).reshape(24, 3, 20, 22).remainder(251).to(torch.uint8)
    moved = flip_and_shift(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    found = set()
    for image, result in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(image[None].float(), (2, 2, 2, 2), mode="reflect")[0]
        windows = {
            (top, left, mirror): window.flip(2) if mirror else window
            for top in range(5)
            for left in range(5)
            for mirror in (False, True)
            for window in [padded[:, top : top + 20, left : left + 22]]
        }
        matches = [key for key, window in windows.items() if torch.equal(window, result.float())]
        assert len(matches) == 1
        found.update(matches)
    # 24 draws of 50 windows: were they all the same, there would be one.
    assert len(found) > 12
    assert {mirror for _, _, mirror in found} == {False, True}


def test_a_few_steps_lower_the_loss() -> None:
    examples = read_examples(open_source("shapes:128:4"))
    config = TINY["tiny-shapes"]
    torch.manual_seed(0)
    network = TinyAlexNet(config, batch_norm=True)
    losses = list(fit(network, config, examples, epochs=12, seed=0, batch_size=32))
    assert len(losses) == 48
    assert not network.training
    # Sixteen classes start near ln 16 = 2.77 or above.
    assert sum(losses[-8:]) / 8 < 0.8 * sum(losses[:8]) / 8


def test_the_same_seed_trains_the_same_network() -> None:
    examples = read_examples(open_source("shapes:64:4"))
    config = TINY["tiny-shapes"]
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        network = TinyAlexNet(config, batch_norm=True)
        runs.append(list(fit(network, config, examples, epochs=2, seed=seed, batch_size=32)))
    # Threads may add in another order, so equal to rounding in bfloat16 and no closer.
    assert runs[0] == pytest.approx(runs[1], rel=1e-2)
    assert runs[0] != pytest.approx(runs[2], rel=1e-6)


def test_weights_come_back_as_written_to_half_precision(tmp_path: Path) -> None:
    config = TINY["tiny-shapes"]
    network = TinyAlexNet(config, batch_norm=True).eval()
    plain = fold_batch_norm(network, config)
    save_weights(tmp_path / "w.safetensors", plain, {"seed": "1"})
    again = load_tiny("tiny-shapes", tmp_path / "w.safetensors")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float())


def test_the_command_trains_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SHAPES_TRAIN", "shapes:512:1")
    monkeypatch.setattr(script, "SHAPES_TEST", "shapes:64:2")
    file = tmp_path / "small.safetensors"
    result = CliRunner().invoke(
        script.app, ["tiny-shapes", "--epochs", "0.5", "--seed", "7", "--out", str(file)]
    )
    assert result.exit_code == 0, result.output
    assert "of 64 held-out rows" in result.output
    assert load_tiny("tiny-shapes", file)(torch.zeros(1, 3, 64, 64)).shape == (1, 16)


@pytest.mark.parametrize(
    ("arguments", "hint"), [(["tiny-cifar10"], "--cifar"), (["alexnet"], "tiny-shapes")]
)
def test_the_command_says_what_is_missing(arguments: list[str], hint: str) -> None:
    result = CliRunner().invoke(script.app, arguments)
    assert result.exit_code == 1
    assert hint in result.output
    assert len(result.output.strip().splitlines()) == 1
