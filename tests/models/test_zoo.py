"""Loading networks by name, with weights from everywhere they may come from."""

import pickle
import sys

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet18_Weights, SqueezeNet1_1_Weights
from torchvision.transforms.v2.functional import normalize

from fc7.engine.data.transform import Transform
from fc7.engine.errors import ModelError
from fc7.engine.models import load_model

SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def squeezenet():
    return load_model(SMALL, "random", seed=3, device="cpu")


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_logits_are_torchvisions_own_after_its_normalisation(images):
    network = load_model("resnet18", "random", device="cpu")
    reference = torchvision.models.resnet18()
    reference.load_state_dict(network.model.state_dict())
    normalised = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = reference.eval()(normalised)
        # Float32 carries 24 bits; twenty layers that sum in another order lose a few of them.
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone(squeezenet):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = load_model(SMALL, "random", seed=3, device="cpu")
    other = load_model(SMALL, "random", seed=4, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.digest == squeezenet.digest
    assert other.digest != squeezenet.digest
    assert again.describe() == squeezenet.describe()
    assert again.describe()["seed"] == 3


@pytest.mark.parametrize("kind", ["safetensors", "state", "checkpoint", "parallel", "compiled"])
def test_weights_come_back_from_files(kind, squeezenet, images, tmp_path):
    state = {key: value.contiguous() for key, value in squeezenet.model.state_dict().items()}
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "state":
        torch.save(state, file)
    elif kind == "checkpoint":
        torch.save({"epoch": 3, "state_dict": state}, file)
    else:
        prefix = {"parallel": "module.", "compiled": "_orig_mod."}[kind]
        torch.save({prefix + key: value for key, value in state.items()}, file)
    loaded = load_model(SMALL, file, device="cpu")
    assert loaded.digest == squeezenet.digest
    assert loaded.weights == file.name
    assert loaded.describe()["seed"] is None
    assert torch.equal(loaded(images), squeezenet(images))


def test_a_file_of_a_network_tuned_to_ten_classes_makes_one_of_ten(tmp_path, images):
    tuned = torchvision.models.squeezenet1_1(num_classes=10).eval()
    torch.save(tuned.state_dict(), tmp_path / "tuned.pth")
    loaded = load_model(SMALL, tmp_path / "tuned.pth", device="cpu")
    assert loaded(images).shape == (2, 10)


def test_files_that_do_not_fit_say_what_differs(squeezenet, tmp_path):
    state = squeezenet.model.state_dict()
    wrong = dict(state)
    del wrong["features.0.weight"]
    wrong["features.0.bias"] = torch.zeros(5)
    wrong["extra"] = torch.zeros(1)
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(ModelError) as caught:
        load_model(SMALL, tmp_path / "wrong.pth", device="cpu")
    message = str(caught.value)
    assert "missing: features.0.weight (64, 3, 3, 3)" in message
    assert "unexpected: extra" in message
    assert "features.0.bias is (5,) instead of (64,)" in message
    assert "\n" not in message
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ModelError, match=r"not of squeezenet1_1; missing: .* more; unexpected"):
        load_model(SMALL, tmp_path / "resnet18.pth", device="cpu")


class Code:
    """Unpickling it would create a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
def test_hostile_files_are_refused_and_run_nothing(name, tmp_path):
    trap = tmp_path / "trap"
    contents = {
        "random": torch.randint(256, (4096,), dtype=torch.uint8).numpy().tobytes(),
        "empty": b"",
        "code": pickle.dumps({"weight": Code(trap)}, protocol=2),
        "huge header": (2**62).to_bytes(8, "little") + b"{}",
        "zip": b"PK\x03\x04" + bytes(100),
    }
    for what, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="cannot read weights") as caught:
            load_model(SMALL, tmp_path / name, device="cpu")
        assert "\n" not in str(caught.value), what
    torch.save({"weight": Code(trap)}, tmp_path / "code.pth")
    with pytest.raises(ModelError, match="cannot read weights"):
        load_model(SMALL, tmp_path / "code.pth", device="cpu")
    assert not trap.exists()
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ModelError, match="no named tensors"):
        load_model(SMALL, tmp_path / "empty.pth", device="cpu")


def test_published_weights_bring_their_transform_and_labels(monkeypatch, squeezenet, tmp_path):
    """torchvision finds what it would download in its cache; the same file works offline too."""
    entry = SqueezeNet1_1_Weights.IMAGENET1K_V1
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / entry.url.rsplit("/", 1)[-1]
    torch.save(squeezenet.model.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for weights in (None, "default", "imagenet1k_v1", file):
        network = load_model(SMALL, weights, device="cpu")
        assert network.digest == squeezenet.digest
        assert network.weights == "IMAGENET1K_V1"
        assert network.transform == Transform(resize=256, crop=224)
        assert network.labels == tuple(entry.meta["categories"])
        assert network.describe()["transform"] == network.transform.to_dict()


def test_weights_that_cannot_be_downloaded_say_how_to_do_without(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A closed port of this machine stands for a network that is not there.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ModelError) as caught:
        load_model("resnet18", device="cpu")
    message = str(caught.value)
    assert ResNet18_Weights.DEFAULT.url in message
    assert "--weights random" in message
    assert "--weights FILE" in message
    assert "\n" not in message


def test_torchvisions_file_of_googlenet_fills_a_network_without_auxiliary_heads(tmp_path):
    entry = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1
    source = torchvision.models.googlenet(init_weights=False, aux_logits=True, transform_input=True)
    file = tmp_path / entry.url.rsplit("/", 1)[-1]
    torch.save(source.state_dict(), file)
    network = load_model("googlenet", file, device="cpu")
    images = torch.rand(1, 3, 33, 33)
    normalised = normalize(images, list(network.mean), list(network.std))
    with torch.inference_mode():
        expected = source.eval()(normalised)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    assert network.model.transform_input
    assert "aux1" not in dict(network.model.named_children()) or network.model.aux1 is None


@pytest.mark.parametrize(("name", "side"), [("tiny-shapes", 64), ("tiny-cifar10", 32)])
def test_built_in_networks_take_images_of_their_own_size(name, side, tmp_path):
    network = load_model(name, "random", seed=1, device="cpu")
    assert network.transform == Transform(resize=side, crop=side)
    assert len(network.labels) == network(torch.rand(2, 3, side, side)).shape[1]
    state = {key: value.contiguous() for key, value in network.model.state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    assert load_model(name, tmp_path / "own.safetensors", device="cpu").digest == network.digest
    names = [f"conv{number}" for number in range(1, 6)] + ["fc6", "fc7", "fc8"]
    assert [layer for layer in network.layers if layer in names] == names
    assert all(network.layer(layer).rectified for layer in names[:-1])


def test_wrong_names_of_networks_and_weights_list_the_right_ones():
    with pytest.raises(ModelError, match="did you mean alexnet"):
        load_model("alexnett")
    with pytest.raises(ModelError, match="IMAGENET1K_V1, IMAGENET1K_V2 or an existing file"):
        load_model("resnet50", "IMAGENET1K_V9")
    with pytest.raises(ModelError, match="no precision 'int4'"):
        load_model("tiny-shapes", "random", precision="int4")
    with pytest.raises(ModelError, match="no device 'abacus'"):
        load_model("tiny-shapes", "random", device="abacus")
    with pytest.raises(ModelError, match="std must be above 0"):
        load_model("tiny-shapes", "random", std=(1, 0, 1))
    with pytest.raises(ModelError, match="mean must be three numbers"):
        load_model("tiny-shapes", "random", mean=(0.5,))


OWN = """
import torch
from torch import nn
from helper_of_mine import width

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width * 30 * 30, 5)
    def forward(self, x):
        y = self.fc(self.conv(x).flatten(1))
        return y, y * 2

def make():
    return Pair()

def broken():
    return 1 / 0

def number():
    return 7
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "nets_of_mine.py").write_text(OWN)
    (tmp_path / "helper_of_mine.py").write_text("width = 4\n")
    (tmp_path / "syntax_of_mine.py").write_text("def make(:\n")
    (tmp_path / "needs_of_mine.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_of_mine")]:
        del sys.modules[name]


def test_a_function_of_the_current_folder_makes_a_network(own):
    path = list(sys.path)
    network = load_model("nets_of_mine:make", seed=5, device="cpu")
    assert sys.path == path
    assert network.input_size == (32, 32)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert list(network.layers) == ["conv", "fc"]
    assert network.digest == load_model("nets_of_mine:make", seed=5, device="cpu").digest
    torch.save(network.model.state_dict(), own / "w.pth")
    assert load_model("nets_of_mine:make", "w.pth", device="cpu").digest == network.digest


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("nets_of_mine:mke", None, "no function 'mke' in nets_of_mine; it has Pair, make"),
        ("nets_of_mine:broken", None, r"ZeroDivisionError: .* \(nets_of_mine.py, line 19\)"),
        ("nets_of_mine:number", None, "must return an nn.Module, not a int"),
        ("nets_of_mine:make", "random", "makes its own weights"),
        ("nets_of_mine:make", "no.pth", "no weights 'no.pth'"),
        ("nowhere_of_mine:make", None, "no module 'nowhere_of_mine'"),
        ("syntax_of_mine:make", None, "SyntaxError"),
        ("needs_of_mine:make", None, "No module named 'not_installed_anywhere'"),
    ],
)
def test_errors_in_code_of_ones_own_stay_readable(own, name, weights, message):
    path = list(sys.path)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(name, weights, device="cpu")
    assert "\n" not in str(caught.value)
    assert sys.path == path


def test_no_mode_change_reaches_batch_norm_or_dropout(images):
    network = load_model("shufflenet_v2_x0_5", "random", device="cpu")
    before = {key: value.clone() for key, value in network.model.state_dict().items()}
    expected = network(images)
    assert network.train() is network
    assert not any(module.training for module in network.modules())
    assert torch.equal(network(images), expected)
    assert all(torch.equal(before[key], value) for key, value in network.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_images_of_another_kind_are_refused(squeezenet):
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        squeezenet(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected float images"):
        squeezenet.activations(torch.zeros(1, 64, 64, 3), ["conv1"])


def test_mean_and_std_may_be_ones_own(images):
    network = load_model(SMALL, "random", mean=(0, 0, 0), std=(2, 1, 0.5), device="cpu")
    divided = images / torch.tensor([2, 1, 0.5]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(network.normalise(images), divided)


def test_a_digest_sees_names_shapes_and_numbers():
    from fc7.engine.models.state import digest_of

    a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    b.load_state_dict(a.state_dict())
    assert digest_of(a) == digest_of(b)
    with torch.no_grad():
        b.weight[0, 0] += 1e-6
    assert digest_of(a) != digest_of(b)
    wide = nn.Conv2d(4, 4, 3)
    before = digest_of(wide)
    assert digest_of(wide.to(memory_format=torch.channels_last)) == before
    assert digest_of(nn.Sequential(wide)) != before
