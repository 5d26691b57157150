"""A network of styles as a file: it comes back the same, and nothing else comes back at all."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fc7.engine.errors import ModelError, OptionError
from fc7.engine.style.fast.exporting import export_onnx
from fc7.engine.style.fast.paintings import read_paintings
from fc7.engine.style.fast.stylizer import Stylizer, load_stylizer, save_stylizer
from fc7.engine.style.fast.transformer import Architecture, Transformer
from fc7.engine.style.fast.workflow import export_stylizer

KEY = "fc7.stylizer"


def made(styles: tuple[str, ...] = ("scream", "waves"), **parts: Any) -> Stylizer:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        architecture = Architecture(**{"width": 4, "blocks": 1, **parts}, styles=len(styles))
        model = Transformer(architecture)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, 1.0 if "weight" in name else 0.0, 0.3)
    return Stylizer(model.eval(), {name: name.encode() for name in styles}, {"data": "somewhere"})


def images(count: int, size: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("parts", [{}, {"norm": "batch", "styles": ("scream",)}, {"blocks": 0}])
def test_a_network_comes_back(tmp_path: Path, parts: dict[str, Any]) -> None:
    before, file = made(**parts), tmp_path / "a.safetensors"
    save_stylizer(before, file)
    after = load_stylizer(file, device="cpu")
    assert after.model.architecture == before.model.architecture
    assert dict(after.styles) == dict(before.styles)
    assert after.made == before.made
    assert after.digest == before.digest
    shares = before.shares("scream")
    x = images(2, (13, 18))
    assert torch.equal(after(x, shares), before(x, shares))
    assert not after(x, shares).requires_grad


def changed(
    file: Path,
    said: Callable[[dict[str, Any]], None] = lambda said: None,
    state: Callable[[dict[str, Tensor]], None] = lambda state: None,
) -> None:
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = json.loads(opened.metadata()[KEY])
    said(metadata)
    state(tensors)
    save_file(tensors, file, {KEY: json.dumps(metadata)})


def half(state: dict[str, Tensor]) -> None:
    state["last.weight"] = state["last.weight"].half()


def not_finite(state: dict[str, Tensor]) -> None:
    state["last.bias"][1] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"said": lambda said: said["architecture"].update(width=5)},
            r"\(16,\) instead of .*\(20,\)",
        ),
        ({"said": lambda said: said["architecture"].update(width=1024)}, "are not of the network"),
        ({"said": lambda said: said["architecture"].update(width=10**12)}, "width is 10000"),
        ({"said": lambda said: said["architecture"].update(blocks=10**9)}, "blocks is 1000"),
        ({"said": lambda said: said["architecture"].update(blocks=2)}, "blocks.1.* is missing"),
        ({"said": lambda said: said["architecture"].update(blocks=0)}, "is not its own"),
        ({"said": lambda said: said["architecture"].update(norm="batch")}, "knows one style"),
        ({"said": lambda said: said["architecture"].pop("norm")}, "does not say what network"),
        ({"said": lambda said: said.update(format=2)}, "format 2, this fc7 reads 1"),
        ({"said": lambda said: said.update(styles="ab")}, "does not say what network"),
        ({"said": lambda said: said["styles"].append(said["styles"][0])}, "two styles of one name"),
        ({"said": lambda said: said["styles"].pop()}, r"\(2, 16\) instead of .*\(1, 16\)"),
        ({"said": lambda said: said["styles"][0].update(picture="!")}, "does not say what network"),
        ({"state": half}, "last.weight is torch.float16"),
        ({"state": not_finite}, "last.bias has values that are no numbers"),
        ({"state": lambda state: state.pop("last.bias")}, "last.bias is missing"),
    ],
    ids=range(16),
)
def test_a_file_of_something_else_is_refused_in_a_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = tmp_path / "a.safetensors"
    save_stylizer(made(), file)
    changed(file, **change)
    with pytest.raises(ModelError, match=message) as caught:
        load_stylizer(file, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_no_file_of_a_network_is_refused_in_a_line(tmp_path: Path) -> None:
    text, weights = tmp_path / "text.safetensors", tmp_path / "weights.safetensors"
    text.write_text("hello, I am no network")
    save_file({"weight": torch.zeros(3)}, weights)
    cut = tmp_path / "cut.safetensors"
    save_stylizer(made(), cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    for file, message in (
        (text, "cannot read"),
        (weights, "holds no network of styles"),
        (cut, "cannot read"),
        (tmp_path / "none.safetensors", "there is no file"),
        (Path(__file__), "is no .safetensors file"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            load_stylizer(file)
        assert "\n" not in str(caught.value)
        assert "fc7 stylize train makes such a network" in str(caught.value)


def test_words_stand_for_shares() -> None:
    two, one = made(), made(("scream",))
    assert one.shares() == one.shares("scream") == (1.0,)
    assert two.shares("waves") == (0.0, 1.0)
    assert two.shares(" waves=1, scream=3 ") == (0.75, 0.25)
    assert two.shares("scream,waves") == (0.5, 0.5)
    assert two.shares("scream=0,waves") == (0.0, 1.0)
    for words, message in (
        (None, "which style"),
        ("nobody", "no style 'nobody'; the network has scream, waves"),
        ("", "no style ''"),
        ("scream=x", "has no weight"),
        ("scream=", "has no weight"),
        ("scream=-1,waves=2", "each must be 0 or more"),
        ("scream=nan", "each must be 0 or more"),
        ("scream=0", "one above 0"),
        ("scream,scream", "named twice"),
    ):
        with pytest.raises(OptionError, match=message):
            two.shares(words)


def test_styles_are_named_by_their_files(tmp_path: Path) -> None:
    names = ["The Scream (1893).png", "a/waves.png", "b/waves.png", "all.png", "\u6ce2.png"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / name)
    found = read_paintings([tmp_path / name for name in names], side=15)
    assert [painting.name for painting in found] == [
        *("The_Scream_1893", "waves", "waves-2", "all-2", "style"),
    ]
    assert found[0].image.shape == (3, 10, 15)
    assert len({painting.digest for painting in found}) == 5
    assert found[0].picture.startswith(b"RIFF")
    with pytest.raises(OptionError, match="which style"):
        read_paintings([], 15)
    with pytest.raises(OptionError, match="name an image file"):
        read_paintings([Path(__file__)], 15)


@pytest.mark.parametrize("styles", [("scream",), ("scream", "waves")], ids=["one", "two"])
def test_onnx_computes_the_same(tmp_path: Path, styles: tuple[str, ...]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'fc7[onnx]'")
    import onnxruntime

    stylizer, file = made(styles, blocks=0), tmp_path / "a.onnx"
    export_stylizer(stylizer, file)
    assert sorted(tmp_path.iterdir()) == [file]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count, size in ((1, (24, 20)), (3, (37, 53)), (2, (8, 9)), (1, (5, 3)), (1, (1, 1))):
        x = images(count, size)
        shares = stylizer.shares(",".join(f"{name}={1 + n}" for n, name in enumerate(styles)))
        given = {"images": x.numpy()}
        if len(styles) > 1:
            given["mixture"] = np.tile(np.array(shares, np.float32), (count, 1))
        (found,) = session.run(["stylized"], given)
        np.testing.assert_allclose(found, stylizer(x, shares).numpy(), rtol=0, atol=1e-4)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # as Python has it where an import must fail
    with pytest.raises(OptionError, match=r"the package onnx .*pip install 'fc7\[onnx\]'"):
        export_onnx(made(), tmp_path / "a.onnx")
    with pytest.raises(OptionError, match=r"must end in \.safetensors or \.onnx"):
        export_stylizer(made(), tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())
