"""Receptive fields against the support of the gradient of the same network, made linear."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError, ModelError
from fc7.engine.models import Network, load_model, receptive_field


def network_of(model, size):
    transform = Transform(resize=size, crop=size, interpolation="bilinear", antialias=True)
    return Network(model, "test", weights="own", transform=transform, device="cpu")


def without_weights(name, size=(224, 224)):
    """A torchvision network whose memory is not even cleared: its wiring is all that counts."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GoogLeNet will draw its weights another way
        model = torchvision.models.get_model(name, weights=None)
    return network_of(model.to_empty(device="cpu"), size)


def linear_copy(model):
    """The same wiring with positive weights and averages for maxima, in float64.

    Positive images then pass every ReLU, nothing cancels, and a pixel's gradient is zero exactly
    where no path leads to it.
    """
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.uniform_(module.weight, 0.5 / fan_in, 1.5 / fan_in)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(
                    child.kernel_size, child.stride, child.padding, child.ceil_mode
                )
                setattr(module, name, average)
    return model


def gradient_boxes(network, paths, size, positions):
    """By path: the hull of the pixels that each position's sum over channels depends on."""
    model = linear_copy(network.model)
    images = torch.rand(1, 3, *size, dtype=torch.float64) + 0.5
    images.requires_grad_(True)
    maps = {}

    def keep(path):
        def hook(module, arguments, output):
            maps[path] = output.sum(1)[0]
            if len(maps) == len(paths):
                raise StopIteration

        return hook

    for path in paths:
        model.get_submodule(path).register_forward_hook(keep(path))
    with pytest.raises(StopIteration):
        model(images)
    return {path: [hull(maps[path][place], images) for place in positions[path]] for path in paths}


def hull(value, images):
    (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
    seen = (gradient[0] != 0).any(0)
    rows, columns = torch.where(seen.any(1))[0], torch.where(seen.any(0))[0]
    if len(rows) == 0:
        return (0, 0, 0, 0)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def probes(grid):
    """Three corners, the middle of an edge, and the interior."""
    rows, columns = grid
    middle = (rows // 2, columns // 2)
    return [(0, 0), (0, columns - 1), (rows - 1, columns - 1), (rows - 1, middle[1]), middle]


class Permuted(nn.Module):
    """ConvNeXt's way: mixes channels in (N, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=2, padding=1, groups=3)
        self.mix = nn.Linear(6, 8)
        self.out = nn.Identity()

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1)
        x = self.mix(x)
        return self.out(x.permute(0, 3, 1, 2) * 2 + 1)


class Branches(nn.Module):
    """Branches of different reach, joined by concatenation, addition and slicing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.far = nn.Conv2d(4, 4, 3, padding=4, dilation=4)
        self.near = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        joined = torch.cat([self.far(x), self.near(x)], 1)
        first, second = joined.chunk(2, dim=1)
        total = first + second
        total += 1
        return self.out(total[:, :, 1:])


LINEAR = {
    "dilation": (nn.Sequential(nn.Conv2d(3, 2, 3, dilation=3, padding=1)), (11, 13)),
    "ceil_mode": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.ReLU(True)),
        (18, 15),
    ),
    "uneven": (
        nn.Sequential(
            nn.Conv2d(3, 4, (5, 2), stride=(3, 1), padding=(2, 0)),
            nn.AvgPool2d((1, 3), (1, 2)),
            nn.Conv2d(4, 2, 3, padding=1),
        ),
        (22, 13),
    ),
    "groups": (
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6)),
        (11, 9),
    ),
    "same": (nn.Sequential(nn.Conv2d(3, 2, 4, padding="same", dilation=2)), (12, 13)),
    "only padding": (nn.Sequential(nn.Conv2d(3, 2, 1, padding=2), nn.AvgPool2d(2)), (8, 6)),
    "reflected": (nn.Sequential(nn.Conv2d(3, 2, 3, padding=2, padding_mode="reflect")), (9, 9)),
    "adaptive": (
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d((3, 4)), nn.ReLU()),
        (23, 30),
    ),
    "permuted": (Permuted(), (15, 18)),
    "branches": (Branches(), (13, 18)),
}


@pytest.mark.parametrize("case", LINEAR)
def test_small_structures_equal_the_gradient_everywhere(case):
    torch.manual_seed(0)
    model, size = LINEAR[case]
    network = network_of(model, size)
    last = list(network.model.named_modules())[-1][0]
    field = receptive_field(network, last)
    positions = [(r, c) for r in range(field.grid[0]) for c in range(field.grid[1])]
    expected = gradient_boxes(network, [last], size, {last: positions})[last]
    assert field.boxes().tolist() == [list(box) for box in expected]
    assert field.box(len(positions) - 1) == field.box(positions[-1]) == expected[-1]


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("alexnet", (95, 79), ["conv1", "pool1", "conv5", "pool5"]),
        ("resnet18", (51, 40), ["maxpool", "layer1", "layer2.0"]),
        ("googlenet", (70, 43), ["conv3", "inception3a"]),
        ("densenet121", (51, 40), ["transition1"]),
        ("shufflenet_v2_x0_5", (64, 91), ["stage2.0", "stage2"]),
        ("squeezenet1_1", (63, 80), ["features.3", "features.12"]),
    ],
)
def test_networks_equal_the_gradient_at_corners_edges_and_inside(name, size, layers):
    torch.manual_seed(0)
    network = without_weights(name)
    fields = {network.layer(name).path: receptive_field(network, name, size) for name in layers}
    positions = {path: probes(field.grid) for path, field in fields.items()}
    for path, boxes in gradient_boxes(network, list(fields), size, positions).items():
        assert [fields[path].box(position) for position in positions[path]] == boxes, path


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride", "offset"),
    [
        # Araujo, Norris and Sim, "Computing Receptive Fields of CNNs", Distill 2019, table 1.
        ("vgg16", "pool5", 212, 32, -90),
        ("inception_v3", "Mixed_7c", 1311, 32, -618),
        # By r += (k - 1) j, j *= s along the layers, with the 3 x 3 convolution taking the stride.
        ("alexnet", "conv5", 163, 16, -66),
        ("resnet50", "layer4", 427, 32, -213),
    ],
)
def test_interior_arithmetic_has_the_known_values(name, layer, size, stride, offset):
    network = without_weights(name)
    field = receptive_field(network, layer)
    assert field.size == (size, size)
    assert field.stride == (stride, stride)
    assert field.offset == (offset, offset)


def test_interior_arithmetic_gives_the_boxes_clipped():
    field = receptive_field(without_weights("alexnet"), "conv5", (224, 193))
    for row in range(field.grid[0]):
        for column in range(field.grid[1]):
            top = field.offset[0] + row * field.stride[0]
            left = field.offset[1] + column * field.stride[1]
            clipped = (
                max(0, top),
                max(0, left),
                min(224, top + field.size[0]),
                min(193, left + field.size[1]),
            )
            # The far edge may fall short of the image where no window reaches its last pixels.
            assert np.abs(np.subtract(field.box((row, column)), clipped)).max() <= 3
            assert field.box((row, column))[:2] == clipped[:2]


class Unknown(nn.Module):
    """A function without a rule that keeps the shape."""

    def forward(self, x):
        return F.conv2d(torch.fft.ifft2(torch.fft.fft2(x)).real, torch.ones(2, 3, 1, 1))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))


class Written(nn.Module):
    """Writes into a view of a tensor and into a buffer that a view was taken of before."""

    def forward(self, x):
        y = x.clone()
        y[:, :, :1].add_(x.mean((2, 3), keepdim=True))
        buffer = torch.zeros_like(x)
        view = buffer[:, :]
        buffer[:] = y
        return view * 1


class Hidden(nn.Module):
    """Computes where no function mode looks."""

    class Spread(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x + x.mean((2, 3), keepdim=True)

    def forward(self, x):
        return self.Spread.apply(x) * 1


class Normalised(nn.Module):
    """Statistics over the image in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize("kind", [Unknown, Gated, Written, Hidden, Normalised])
def test_what_mixes_the_image_sees_all_of_it(kind):
    network = network_of(nn.Sequential(kind(), nn.ReLU()), (8, 10))
    field = receptive_field(network, "1")
    assert field.is_global
    assert field.box(0) == (0, 0, 8, 10)
    assert field.size == (8, 10)
    assert field.stride == (0, 0)


def test_dilated_max_pooling_contains_the_gradient_of_many_draws():
    torch.manual_seed(0)
    model = nn.Sequential(nn.MaxPool2d(3, 2, padding=1, dilation=2), nn.Conv2d(3, 1, 3))
    network = network_of(model, (19, 17))
    field = receptive_field(network, "1")
    union = np.zeros((len(field.boxes()), 19, 17), dtype=bool)
    for _ in range(60):
        images = torch.rand(1, 3, 19, 17, requires_grad=True)
        for place, value in enumerate(network.model(images).flatten()):
            (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
            union[place] |= (gradient[0].abs().amax(0) > 0).numpy()
    for seen, box in zip(union, field.boxes().tolist(), strict=True):
        rows, columns = np.where(seen.any(1))[0], np.where(seen.any(0))[0]
        # 60 draws find each of nine taps' maxima, so the hull is reached as well as held.
        assert [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1] == box


def test_vectors_have_one_position():
    network = load_model("tiny-shapes", "random", device="cpu")
    field = receptive_field(network, "fc7")
    assert field.grid == (1, 1)
    assert field.boxes().shape == (1, 4)
    assert field.is_global
    with pytest.raises(IndexError, match="no position 1"):
        field.box(1)


def test_a_model_that_cannot_run_without_numbers_runs_with_them():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x if x.sum().item() < 1e9 else -x)

    field = receptive_field(network_of(Looks(), (9, 9)), "conv")
    assert field.size == (3, 3)
    assert field.box((6, 6)) == (6, 6, 9, 9)


def test_wrong_questions_are_answered_in_one_line():
    network = load_model("tiny-shapes", "random", device="cpu")
    with pytest.raises(LayerError, match="conv5"):
        receptive_field(network, "conv6")
    with pytest.raises(ModelError, match="2 x 2 pixels"):
        receptive_field(network, "pool5", (2, 2))


def test_the_network_is_not_touched():
    network = without_weights("resnet18")
    before = torch.get_rng_state()
    receptive_field(network, "layer2")
    assert all(not module._forward_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(network.model, torchvision.models.ResNet)
    assert not any(parameter.is_meta for parameter in network.model.parameters())
