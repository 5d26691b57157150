"""The jobs of saliency and guided gradients equal the functions, row by row, and resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backward import lively

from fc7.engine.attribution.cam import class_activation_maps
from fc7.engine.attribution.gradient_jobs import METHODS, GuidedOptions, SaliencyOptions
from fc7.engine.attribution.guided import guided_maps
from fc7.engine.attribution.saliency import (
    gradient_maps,
    gradient_x_input_maps,
    integrated_gradients_maps,
    saliency_maps,
    smoothgrad_maps,
)
from fc7.engine.attribution.workflow import (
    guided,
    guided_with_summary,
    saliency,
    saliency_with_summary,
)
from fc7.engine.data import open_source
from fc7.engine.errors import Fc7Error, FingerprintError, OptionError, QuestionError
from fc7.engine.models import Network, load_model
from fc7.engine.store import verify

DATA, ROWS = "shapes:21:7", 21


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def pixels(network: Network) -> torch.Tensor:
    source = open_source(DATA)
    images = (network.transform(source.decode(source.read(row))) for row in range(ROWS))
    return torch.stack(list(images)).float() / 255


@pytest.fixture(scope="module")
def labels() -> Any:
    return open_source(DATA).rows()["label"].to_numpy()


def close(actual: Any, expected: torch.Tensor) -> None:
    """Assert equality to the rounding of another batch size, relative to each row's map."""
    difference = np.asarray(actual, np.float64) - expected.double().numpy()
    sizes = expected.flatten(1).abs().amax(1).numpy()
    assert (np.abs(difference).reshape(len(sizes), -1).max(1) <= 1e-4 * sizes).all()


def test_every_method_equals_its_function(
    network: Network, pixels: torch.Tensor, labels: Any, tmp_path: Path
) -> None:
    few = {"samples": 3, "noise": 0.1, "seed": 4, "steps": 5, "baseline": (0.1, 0.2, 0.3)}
    x = gradient_x_input_maps(network, pixels, labels, (0.1, 0.2, 0.3)).sum(1)
    paths = integrated_gradients_maps(network, pixels, labels, 5, (0.1, 0.2, 0.3)).sum(1)
    expected = {
        "saliency": saliency_maps(network, pixels, labels),
        "gradient": gradient_maps(network, pixels, labels),
        "gradient-x-input": x,
        "smoothgrad": smoothgrad_maps(network, pixels, labels, 3, 0.1, 4).abs().amax(1),
        "integrated-gradients": paths,
    }
    assert [*expected, "cam"] == list(METHODS)
    for number, (method, maps) in enumerate(expected.items(), 1):
        options = SaliencyOptions(method=method, target="label", part_rows=8, batch_rows=5, **few)
        run = saliency(DATA, network, tmp_path / "run", options)
        name = "saliency" if number == 1 else f"saliency-{number}"
        assert run.job(name).outputs[name].attributes["method"] == method
        close(run[name][:], maps)
        assert run[f"{name}.target"][:].tolist() == labels.tolist()


def test_class_activation_maps_are_kept_as_coarse_as_they_are(tmp_path: Path) -> None:
    network = lively("resnet18")
    options = SaliencyOptions(method="cam", target=7, batch_rows=2)
    run = saliency("shapes:3:7", network, tmp_path / "run", options)
    source = open_source("shapes:3:7")
    seen = [network.transform(source.decode(source.read(row))) for row in range(3)]
    maps = class_activation_maps(network, torch.stack(seen).float() / 255, [7] * 3)
    assert maps.shape[1:] == run["saliency"].shape[1:] == (3, 2)
    close(run["saliency"][:], maps)


def test_the_columns_say_what_the_network_said(
    network: Network, pixels: torch.Tensor, labels: Any, tmp_path: Path
) -> None:
    logits = network(pixels)
    for make, name in ((saliency, "saliency"), (guided, "guided")):
        run = make(DATA, network, tmp_path / "run")
        predicted = logits.argmax(1)
        assert run[f"{name}.predicted"][:].tolist() == predicted.tolist()
        assert run[f"{name}.target"][:].tolist() == predicted.tolist()
        np.testing.assert_allclose(run[f"{name}.score"][:], logits.amax(1), rtol=1e-4)
        top = logits.softmax(1).amax(1)
        np.testing.assert_allclose(run[f"{name}.probability"][:], top, rtol=1e-4)


def test_guided_of_a_class_and_of_units(
    network: Network, pixels: torch.Tensor, tmp_path: Path
) -> None:
    run = guided(DATA, network, tmp_path / "run", GuidedOptions(target=3, rule="deconv"))
    close(run["guided"][:], guided_maps(network, pixels, [3] * ROWS, rule="deconv"))
    for number, (layer, unit) in enumerate((("conv4", 9), ("conv4", (9, 2, 3)), ("fc7", 1)), 2):
        run = guided(DATA, network, tmp_path / "run", GuidedOptions(layer=layer, unit=unit))
        maps = guided_maps(network, pixels, layer=layer, unit=unit)
        close(run[f"guided-{number}"][:], maps)
        output = network.activations(pixels, [layer])[layer]
        answers = output[:, 9].flatten(1) if layer == "conv4" else output[:, 1:2]
        place = run[f"guided-{number}.position"][:]
        if isinstance(unit, tuple):
            assert (place == 2 * network.layer(layer).shape[2] + 3).all()
        else:
            assert place.tolist() == answers.argmax(1).tolist()
        value = answers[np.arange(ROWS), place]
        np.testing.assert_allclose(run[f"guided-{number}.value"][:], value, rtol=1e-4, atol=1e-6)


def test_parts_resume_and_bytes_do_not_depend_on_it(network: Network, tmp_path: Path) -> None:
    whole = saliency(DATA, network, tmp_path / "whole", SaliencyOptions(part_rows=8))
    options = SaliencyOptions(part_rows=8, parts="1::2")
    saliency(DATA, network, tmp_path / "parts", options)
    parts, summary = saliency_with_summary(DATA, network, tmp_path / "parts")
    assert (summary.rows, summary.computed) == (ROWS, ROWS - 8)
    assert np.array_equal(whole["saliency"][:], parts["saliency"][:])
    assert not verify(parts)
    _, again = saliency_with_summary(DATA, network, tmp_path / "parts")
    assert again.computed == 0


def test_float16_is_asked_for(network: Network, tmp_path: Path) -> None:
    run = saliency(DATA, network, tmp_path / "run")
    half = saliency(DATA, network, tmp_path / "run", SaliencyOptions(dtype="float16"))
    assert half["saliency-2"].dtype == np.float16
    np.testing.assert_allclose(half["saliency-2"][:], run["saliency"][:], rtol=1e-3, atol=1e-7)


def test_unlabelled_rows_are_asked_about_what_is_predicted(
    network: Network, tmp_path: Path
) -> None:
    from PIL import Image

    source = open_source("shapes:4:3")
    for row in range(4):
        folder = tmp_path / "data" / (network.labels[row] if row else "")
        folder.mkdir(parents=True, exist_ok=True)
        picture = source.decode(source.read(row)).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(folder / f"{row}.png")
    (tmp_path / "data" / "bad.png").write_text("no image")
    run, summary = guided_with_summary(
        tmp_path / "data", network, tmp_path / "run", GuidedOptions(target="label")
    )
    assert [status for _, status, _ in summary.bad] == ["not-an-image"]
    rows = run.rows.to_pydict()
    for row, (label, status) in enumerate(zip(rows["label"], rows["status"], strict=True)):
        if status == "ok":
            target = int(run["guided.target"][row])
            if label is None:
                assert target == int(run["guided.predicted"][row])
            else:
                assert network.labels[target] == run.label_names[label]


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (saliency, SaliencyOptions(method="magic"), "no method 'magic'"),
        (saliency, SaliencyOptions(target=16), "no class 16"),
        (saliency, SaliencyOptions(method="smoothgrad", samples=0), "samples is 0"),
        (saliency, SaliencyOptions(dtype="int8"), "no dtype 'int8'"),
        (saliency, SaliencyOptions(batch_rows=0), "batch_rows is 0"),
        (guided, GuidedOptions(rule="soft"), "no rule 'soft'"),  # type: ignore[arg-type]
        (guided, GuidedOptions(layer="fc7"), "which unit of fc7"),
        (guided, GuidedOptions(layer="fc7", unit=1, target=2), "fc7 is none"),
        (guided, GuidedOptions(layer="fc7", unit=10**6), "no unit 1000000 in fc7"),
        (guided, GuidedOptions(unit=1), "of which layer"),
    ],
)
def test_wrong_options_leave_nothing_behind(
    make: Any, options: Any, says: str, network: Network, tmp_path: Path
) -> None:
    with pytest.raises(Fc7Error, match=says):
        make(DATA, network, tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


def test_another_network_or_batch_is_refused(network: Network, tmp_path: Path) -> None:
    saliency(DATA, network, tmp_path / "run", SaliencyOptions(parts="0:1", part_rows=8))
    with pytest.raises(FingerprintError, match="batch_rows"):
        saliency(DATA, network, tmp_path / "run", SaliencyOptions(batch_rows=3))
    other = load_model("tiny-shapes", weights="random", device="cpu")
    with pytest.raises(FingerprintError, match="another network"):
        saliency(DATA, other, tmp_path / "run")
    assert issubclass(QuestionError, Fc7Error)
    assert issubclass(OptionError, Fc7Error)
