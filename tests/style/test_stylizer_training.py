"""Training a transformer network: by hand in float64, and the same wherever it was stopped."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fc7.engine.data import open_source
from fc7.engine.data.shape_drawing import render
from fc7.engine.errors import OptionError, StoreError
from fc7.engine.models import Network, load_model
from fc7.engine.models.bare import seeded
from fc7.engine.store import Progress, Run, verify
from fc7.engine.style.fast.crops import random_crop, shrunk
from fc7.engine.style.fast.options import TrainStylizerOptions
from fc7.engine.style.fast.stylizer import load_stylizer
from fc7.engine.style.fast.transformer import Transformer
from fc7.engine.style.fast.workflow import stylizer_file, train_stylizer
from fc7.engine.synthesis.picture_files import read_picture

LAYERS = {"style_layers": ("relu1", "conv3=3"), "content_layers": ("relu2",)}
QUICK = TrainStylizerOptions(
    steps=6, batch_rows=3, crop=24, width=3, blocks=1, threads=1, seed=4, **LAYERS
)
FILES = ("network.safetensors", "losses.npy")


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("paintings")
    for row in range(2):
        Image.fromarray(render(6, row)[0].transpose(1, 2, 0)).save(folder / f"p{row}.png")
    return sorted(folder.iterdir())


class Stopped(Exception):  # noqa: N818
    """What ends training in the middle."""


def stopped_at(*steps: int) -> Any:
    left = set(steps)

    def report(progress: Progress) -> None:
        step = progress.done // QUICK.batch_rows
        if step in left:
            left.discard(step)
            raise Stopped

    return report


def test_losses_are_those_by_hand(network: Network, paintings: list[Path], tmp_path: Path) -> None:
    options = replace(QUICK, steps=4, content_weight=0.5, style_weight=3.0, variation=0.2)
    source = open_source("shapes:5:1")
    trained = train_stylizer(source, paintings, network, tmp_path / "run", options)
    with seeded(options.seed):
        model = Transformer(options.architecture(2)).double()
    judge = load_model("tiny-cifar10", device="cpu").model.double()
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (network.mean, network.std))

    def read(pixels: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        for name in ("relu1", "conv3", "relu2"):

            def hook(_m: nn.Module, _i: object, out: Tensor, name: str = name) -> None:
                seen[name] = out.clone()

            path = network.layer(name).path
            handle = judge.get_submodule(path).register_forward_hook(hook)
            with suppress(RuntimeError):  # what stands behind takes one size alone
                judge((pixels - mean) / std)
            handle.remove()
        return seen

    def moment(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return flat @ flat.mT / flat.shape[2]

    def off(found: Tensor, wanted: Tensor) -> Tensor:
        return (found - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2))

    styles = [read(read_picture(file, 48)[None].double()) for file in paintings]
    moments = {name: torch.cat([moment(each[name]) for each in styles]) for name in styles[0]}
    slopes = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    order = [*np.random.default_rng([4, 0]).permutation(5)]
    order += [*np.random.default_rng([4, 1]).permutation(5)]
    order += [*np.random.default_rng([4, 2]).permutation(5)]
    for step in range(4):
        places = range(3 * step, 3 * step + 3)
        crops = []
        for place in places:
            image = shrunk(source.decode(source.read(int(order[place]))), 24)
            crops.append(random_crop(image, 24, (4, place)).double() / 255)
        x, turns = torch.stack(crops), torch.tensor([place % 2 for place in places])
        made = model(x, nn.functional.one_hot(turns, 2).double())
        found, content = read(made), read(x)
        total = 3 * 0.25 * off(moment(found["relu1"]), moments["relu1"][turns])
        total = total + 3 * 0.75 * off(moment(found["conv3"]), moments["conv3"][turns])
        two = (each["relu2"].flatten(2) for each in (found, content))
        total = total + 0.5 * off(*two)
        down = (made[:, :, 1:] - made[:, :, :-1]).square().sum((1, 2, 3))
        across = (made[..., 1:] - made[..., :-1]).square().sum((1, 2, 3))
        total = (total + 0.2 * (down + across) / 24**2).mean()
        gradients = torch.autograd.grad(total, list(model.parameters()))
        rate = 1e-3 * (1 + np.cos(np.pi * step / 4)) / 2
        with torch.no_grad():
            for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                slopes[name] = 0.9 * slopes[name] + 0.1 * g
                squares[name] = 0.999 * squares[name] + 0.001 * g * g
                slope = slopes[name] / (1 - 0.9 ** (step + 1))
                square = squares[name] / (1 - 0.999 ** (step + 1))
                p -= rate * slope / (square.sqrt() + 1e-8)
        # Adam moves even a weight whose gradient is rounding alone (a bias before a normalisation)
        # by a whole step; what that does to the output is removed again, to float32's precision.
        assert float(trained.losses[step, 0]) == pytest.approx(total.item(), rel=2e-3), step
    terms = trained.info["terms"]
    assert terms == ["total", "style relu1", "style conv3", "content relu2", "variation"]
    weights = np.array([3 * 0.25, 3 * 0.75, 0.5, 0.2])
    np.testing.assert_allclose(trained.losses[:, 1:] @ weights, trained.losses[:, 0], rtol=1e-5)


def test_stopped_twice_is_as_if_never(
    network: Network, paintings: list[Path], tmp_path: Path
) -> None:
    whole = train_stylizer("shapes:7:1", paintings, network, tmp_path / "whole", QUICK)
    stops = stopped_at(2, 5)
    options = replace(QUICK, checkpoint_seconds=0, report=stops)
    for step in (2, 5):
        with pytest.raises(Stopped):
            train_stylizer("shapes:7:1", paintings, network, tmp_path / "run", options)
        names = [path.name for path in (tmp_path / "run").glob("jobs/stylizer/checkpoints/*")]
        assert names == [f"{step:06d}"]
    seen: list[int] = []
    options = replace(options, report=lambda progress: seen.append(progress.done), threads=2)
    trained = train_stylizer("shapes:7:1", paintings, network, tmp_path / "run", options)
    assert seen == [18], "it went on after its fifth step"
    for name in FILES:
        found, expected = (each.job.folder / "result" / name for each in (trained, whole))
        assert found.read_bytes() == expected.read_bytes(), name
    assert not (trained.job.folder / "checkpoints").exists()
    assert np.isfinite(trained.losses).all()
    assert verify(trained.run) == []
    assert list(load_stylizer(trained.file).styles) == ["p0", "p1"]
    # Asked again, it is there; asked differently, another stands beside it.
    again = train_stylizer("shapes:7:1", paintings, network, tmp_path / "run", options)
    assert (seen, again.job.name) == ([18], "stylizer")
    assert stylizer_file(tmp_path / "run") == trained.file
    other = replace(QUICK, steps=1, norm="batch")
    other_job = train_stylizer("shapes:7:1", paintings[:1], network, tmp_path / "run", other).job
    assert other_job.name == "stylizer-2"
    turned = train_stylizer("shapes:7:1", paintings[::-1], network, tmp_path / "run", options)
    assert turned.job.name == "stylizer-3", "the order of styles is that of the weights' rows"
    with pytest.raises(OptionError, match="holds 3 networks; name one of"):
        stylizer_file(tmp_path / "run")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_no_checkpoint(
    network: Network, paintings: list[Path], tmp_path: Path
) -> None:
    whole = train_stylizer("shapes:7:1", paintings, network, tmp_path / "whole", QUICK)
    options = replace(QUICK, checkpoint_seconds=0, report=stopped_at(3))
    with pytest.raises(Stopped):
        train_stylizer("shapes:7:1", paintings, network, tmp_path / "run", options)
    job = tmp_path / "run/jobs/stylizer"
    (good,) = (job / "checkpoints").glob("*/state.safetensors")
    before, options = good.read_bytes(), replace(options, report=None)
    # Room for a network and a record, not for what Adam remembers of it too.
    assert whole.file.stat().st_size < len(before) // 2
    for _ in range(2):
        with no_file_larger_than(len(before) // 2), pytest.raises(OSError) as caught:  # noqa: PT011
            train_stylizer("shapes:7:1", paintings, network, tmp_path / "run", options)
        assert caught.value.errno == errno.EFBIG
        assert caught.value.filename.endswith("state.safetensors")
        assert good.read_bytes() == before
        assert not list((tmp_path / "run").rglob("*.tmp"))
    trained = train_stylizer("shapes:7:1", paintings, network, tmp_path / "run", options)
    for name in FILES:
        found, expected = (each.job.folder / "result" / name for each in (trained, whole))
        assert found.read_bytes() == expected.read_bytes(), name


def test_images_of_any_size_and_bad_ones(
    network: Network, paintings: list[Path], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for row, (height, width) in enumerate([(9, 40), (64, 24), (100, 300)]):
        drawn = Image.fromarray(render(8, row)[0].transpose(1, 2, 0))
        drawn.resize((width, height)).save(images / f"{row}.png")
    (images / "bad.png").write_text("no image")
    options = replace(QUICK, steps=8, batch_rows=1)
    trained = train_stylizer(images, paintings[:1], network, tmp_path / "run", options)
    assert np.isnan(trained.losses[:, 0]).sum() == 2, "one of four, twice"
    assert np.isfinite(trained.info["last_loss"])
    for path in images.glob("?.png"):
        path.write_text("no image either")
    with pytest.raises(OptionError, match=r"no image of .* can be used"):
        train_stylizer(images, paintings[:1], network, tmp_path / "other", options)


def test_training_lowers_the_loss(network: Network, paintings: list[Path], tmp_path: Path) -> None:
    options = replace(QUICK, steps=30, learning_rate=0.01)
    trained = train_stylizer("shapes:40:1", paintings, network, tmp_path / "run", options)
    first, last = trained.losses[:5, 0].mean(), trained.losses[-5:, 0].mean()
    assert last < 0.7 * first


def test_crops_are_functions_of_their_key() -> None:
    image = torch.arange(30 * 41, dtype=torch.int32).reshape(1, 30, 41) % 251
    image = image.to(torch.uint8).expand(3, -1, -1)
    assert shrunk(image, 30) is image
    assert shrunk(image, 40).shape == (3, 40, 54)
    assert shrunk(image, 16).shape == (3, 18, 24)
    assert shrunk(image, 27) is image, "30 is within 9/8 of 27"
    places = set()
    for key in range(200):
        crop = random_crop(image, 27, (0, key))
        assert torch.equal(crop, random_crop(image, 27, (0, key)))
        places |= {
            (top, left)
            for top in range(4)
            for left in range(15)
            if torch.equal(crop, image[:, top : top + 27, left : left + 27])
        }
    assert {top for top, _ in places} == set(range(4))
    assert {left for _, left in places} == set(range(15))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps is 0; it is 1 or more"),
        ({"crop": 4}, "crop is 4; it is 8 or more"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": 1e30}, "start with a learning rate below"),
        ({"style_weight": float("nan")}, "style_weight is nan"),
        ({"content_weight": -1.0}, "content_weight is -1"),
        ({"norm": "batch"}, "knows one style, and there are 2"),
        ({"style_layers": ("fc7",)}, "fc7 has no places"),
    ],
    ids=range(8),
)
def test_errors_name_the_cause(
    network: Network,
    paintings: list[Path],
    tmp_path: Path,
    changed: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(OptionError, match=message):
        train_stylizer(
            "shapes:7:1", paintings, network, tmp_path / "run", replace(QUICK, **changed)
        )


def test_a_run_without_a_network_is_named(tmp_path: Path) -> None:

    Run.create(tmp_path / "run", open_source("shapes:3:1"))
    with pytest.raises(StoreError, match="holds no trained network; fc7 stylize train makes one"):
        stylizer_file(tmp_path / "run")
