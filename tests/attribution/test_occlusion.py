"""Occlusion maps of real networks, against full inference in float64 and against Captum."""

import pytest
import torch
import torchvision
from captum.attr import Occlusion as CaptumOcclusion
from torch import nn
from truth import MEAN, STD, Case, Truth, compare, corners_and, enliven, everywhere, network_of

from fc7.engine.attribution.occlusion import Occlusion, occlusion_maps
from fc7.engine.attribution.occlusion.grid import places, to_pixels
from fc7.engine.data.transform import Transform
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model

# Name, height and width, window, stride and fill; the smallest sizes that the networks take, for
# full inference in float64 is slow. Windows and strides leave a rest, and one stride is larger.
NETWORKS = [
    ("alexnet", (67, 91), 24, 20, None),
    ("vgg11", (35, 49), 16, 11, 0.2),
    ("vgg16", (32, 47), 16, 12, None),
    ("resnet18", (80, 59), 20, 13, (0.9, 0.1, 0.6)),
    ("resnet50", (64, 49), 16, 11, None),
    ("googlenet", (64, 81), 24, 19, 0.8),
    ("densenet121", (64, 50), 21, 16, None),
    ("squeezenet1_1", (75, 50), 9, 15, None),
    ("mobilenet_v2", (64, 51), 16, 14, 0.5),
    ("efficientnet_b0", (64, 53), 20, 15, (0.2, 0.9, 0.4)),
]


def architecture(name, size):
    """Return a network of torchvision's with weights that are drawn once, and not twice."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    return network_of(enliven(model.to_empty(device="cpu"), size), size)


def images_of(size, count=2):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("name", "size", "window", "stride", "fill"), NETWORKS)
def test_equals_full_inference(name, size, window, stride, fill):
    network = architecture(name, size)
    truth = Truth.of(network, together=16)
    occlusion = Occlusion(network, window, stride, fill, "logit", size)
    assert occlusion.unknown == ()
    found = corners_and(occlusion, images=2, sampled=6)
    compare(occlusion, truth, network, images_of(size), found, window, stride, fill).check()


def test_448_pixels():
    size = (448, 448)
    network = architecture("squeezenet1_1", size)
    truth = Truth.of(network, together=16)
    occlusion = Occlusion(network, 60, 96, None, "logit", size)
    assert occlusion.plan.full_multiply_adds > 6.5 * occlusion.plan.multiply_adds
    found = corners_and(occlusion, images=1, sampled=0)
    compare(occlusion, truth, network, images_of(size, 1), found, 60, 96, None).check()


def small(size=(30, 26), seed=3, **options):
    """A network of three layers, quick enough to be run at every place."""
    layers = {"c": nn.Conv2d(8, 12, 3, 2), "d": nn.MaxPool2d(3, 2)}
    case = Case(lambda m, x: m.d(m.c(m.a(x).relu()).relu()).flatten(1), size, **layers)
    model = enliven(case, size, seed)
    transform = Transform(resize=size, crop=size)
    return Network(
        model, "small", weights="own", transform=transform, mean=MEAN, std=STD, device="cpu",
        **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "stride"), [(1, 9), (7, 5), (26, 1), (13, 4), (3, 20), (25, 30), (8, 18)]
)
@pytest.mark.parametrize("fill", [None, 0, (0.0, 1.0, 0.5)])
def test_any_window(window, stride, fill):
    network = small()
    truth = Truth.of(network, together=16)
    occlusion = Occlusion(network, window, stride, fill, "logit", (30, 26))
    rows, columns = occlusion.grid
    assert rows == -(-(30 - window) // stride) + 1
    assert columns == -(-(26 - window) // stride) + 1
    images, found = images_of((30, 26)), everywhere(occlusion, 2)
    compare(occlusion, truth, network, images, found, window, stride, fill).check()
    # A window that lies behind the border covers nothing.
    drops = occlusion.maps(images).drops
    empty = [
        n for n, (y, x, _, _) in enumerate(places((30, 26), window, stride)) if y >= 30 or x >= 26
    ]
    assert (drops.flatten(1)[:, empty] == 0).all()
    assert (len(empty) > 0) == (stride > window)


def test_the_last_window_is_cut_off_at_the_border():
    """A linear network's drop is the weights' sum over what is covered: by hand, pixel by pixel."""
    size, window, stride, fill = (7, 10), 3, 3, (0.25, 0.5, 1.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 10, 2))
    network = network_of(enliven(model, size), size)
    weight = network.model[1].weight[1].double().reshape(3, 7, 10)
    (image,) = images_of(size, 1)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for row, column in [(r, c) for r in range(3) for c in range(4)]:
        for y in range(row * 3, min(row * 3 + 3, 7)):
            for x in range(column * 3, min(column * 3 + 3, 10)):
                for c in range(3):
                    change = (float(image[c, y, x]) - fill[c]) / STD[c]
                    expected[row, column] += change * weight[c, y, x]
    occlusion = Occlusion(network, window, stride, fill, "logit", size)
    found = occlusion.maps(image[None], [1]).drops[0].double()
    # 27 products of the order of 1, each rounded to 24 bits.
    torch.testing.assert_close(found, expected, rtol=0, atol=27 * 2**-24)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((31, 37), 7, 5), ((31, 37), 9, 3), ((32, 36), 12, 4)]
)
def test_equals_captum(size, window, stride):
    """Captum's grid is ours, and it spreads its maps over pixels as `to_pixels` does."""
    network = small(size)
    images, targets = images_of(size, 3), torch.tensor([0, 3, 1])
    mean = torch.tensor(MEAN)[:, None, None]
    theirs = CaptumOcclusion(network).attribute(
        images,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        target=targets,
        baselines=mean.expand(images.shape),
        perturbations_per_eval=8,
    )
    assert (theirs == theirs[:, :1]).all()  # a window covers all colours
    occlusion = Occlusion(network, window, stride, None, "logit", size)
    ours = to_pixels(occlusion.maps(images, targets).drops, size, window, stride)
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs[:, 0], rtol=1e-4, atol=1e-5)


def test_probability_and_predicted_classes():
    network = small()
    images = images_of((30, 26), 3)
    occlusion = Occlusion(network, 9, 8, size=(30, 26))
    truth = Truth.of(network)
    maps = occlusion.maps(images)
    whole = truth.logits(images).softmax(1)
    assert torch.equal(maps.targets, whole.argmax(1))
    assert torch.equal(maps.drops, occlusion.maps(images, whole.argmax(1)).drops)
    chosen = [4, 4, 0]
    asked = occlusion.maps(images, chosen)
    assert asked.targets.tolist() == chosen
    assert (asked.drops != maps.drops).any()
    for found in (maps, asked):
        n = torch.arange(3)
        score = whole[n, found.targets]
        torch.testing.assert_close(found.scores.double(), score, rtol=1e-5, atol=1e-6)
        for place, (top, left, bottom, right) in enumerate(places((30, 26), 9, 8)):
            hidden = images.clone()
            hidden[:, :, top:bottom, left:right] = torch.tensor(MEAN)[:, None, None]
            drop = score - truth.logits(hidden).softmax(1)[n, found.targets]
            ours = found.drops.flatten(1)[:, place].double()
            torch.testing.assert_close(ours, drop, rtol=1e-5, atol=1e-6)
    assert maps.drops.abs().max() > 0.01


def test_made_once_for_any_images():
    """What one call left behind does not show in the next."""
    network, size = small(), (30, 26)
    occlusion = Occlusion(network, 8, 6, 0.1, "logit", size)
    first, second = images_of(size, 4).split(2)
    before = occlusion.maps(first)
    occlusion.maps(second)
    again = occlusion.maps(first)
    assert torch.equal(before.drops, again.drops)
    fresh = Occlusion(network, 8, 6, 0.1, "logit", size).maps(first)
    assert torch.equal(before.drops, fresh.drops)
    assert torch.equal(before.drops, occlusion_maps(network, first, None, 8, 6, 0.1, "logit"))


@pytest.mark.parametrize("together", [1, 2, 7])
def test_a_map_does_not_depend_on_its_batch_mates(together):
    network, size = small(), (30, 26)
    occlusion = Occlusion(network, 8, 6, 0.1, "logit", size)
    assert occlusion.images_together > 4
    images = images_of(size, 5)
    alone = torch.cat([occlusion.maps(image).drops for image in images.split(1)])
    occlusion.images_together = together
    torch.testing.assert_close(occlusion.maps(images).drops, alone, rtol=1e-5, atol=1e-5)
    spoilt = images.clone()
    spoilt[1], spoilt[3] = torch.nan, 1e30
    found = occlusion.maps(spoilt).drops[[0, 2, 4]]
    torch.testing.assert_close(found, alone[[0, 2, 4]], rtol=1e-5, atol=1e-5)


def test_images_in_any_memory():
    network, size = small(), (30, 26)
    occlusion = Occlusion(network, 8, 6, None, "logit", size)
    images = images_of(size)
    expected = occlusion.maps(images).drops
    for other in (
        images.double(),
        images.contiguous(memory_format=torch.channels_last),
        images.transpose(2, 3).contiguous().transpose(2, 3),
        images.repeat_interleave(2, 0)[::2],
        images.clone().requires_grad_(),
    ):
        before = other.detach().clone()
        torch.testing.assert_close(occlusion.maps(other).drops, expected, rtol=0, atol=0)
        assert torch.equal(other, before)
    one = images[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(occlusion.maps(one).drops[1], expected[0], rtol=1e-5, atol=1e-5)
    assert occlusion.maps(images[:0]).drops.shape == (0, *occlusion.grid)


@pytest.mark.parametrize(("precision", "share"), [("bf16", 0.05), ("fp16", 0.01)])
def test_half_precision_loses_a_share_of_the_effect(precision, share):
    """Differences are rounded, not activations: about three layers' rounding of 2^-8 or 2^-11."""
    size = (30, 26)
    images, targets = images_of(size), [1, 2]
    exact, rounded = (
        Occlusion(small(precision=each), 8, 6, None, "logit", size).maps(images, targets).drops
        for each in ("fp32", precision)
    )
    assert exact.abs().max() > 0.5
    assert (rounded - exact).abs().max() < share * exact.abs().max()


def test_the_built_in_network():
    network = load_model("tiny-shapes", device="cpu")
    truth = Truth.of(network, together=8)
    occlusion = Occlusion(network, 16, 8, None, "logit")
    assert occlusion.unknown == ()
    found = corners_and(occlusion, 2, 20)
    images = images_of((64, 64))
    compare(occlusion, truth, network, images, found, 16, 8, None).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 0}, "window is 0"),
        ({"window": -3}, "window is -3"),
        ({"stride": 0}, "stride 0"),
        ({"window": 27}, "the window is 27 pixels, but the image only 26"),
        ({"window": 31, "size": (30, 64)}, "the window is 31 pixels, but the image only 30"),
        ({"fill": 1.5}, "fill is 1.5"),
        ({"fill": float("nan")}, "fill is nan"),
        ({"fill": (0.1, 0.2)}, "fill is (0.1, 0.2)"),
        ({"score": "logits"}, "'logits'"),
        ({"growth": 0.0}, "growth is 0.0"),
        ({"growth": float("nan")}, "growth is nan"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(OptionError) as raised:
        Occlusion(small(), **{"window": 5, "stride": 5, **options})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([0, 5], "no class 5; small has 0 to 4"),
        ([-1, 0], "no class -1"),
        ([0], "1 classes for 2 images"),
        ([0.0, 1.0], "whole numbers"),
        (torch.tensor([True, False]), "whole numbers"),
    ],
)
def test_classes_out_of_range(targets, said):
    with pytest.raises(OptionError) as raised:
        occlusion_maps(small(), images_of((30, 26)), targets, 5, 5)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 30, 27),
        torch.zeros(2, 1, 30, 26),
        torch.zeros(3, 30, 26),
        torch.zeros(2, 3, 30, 26, dtype=torch.uint8),
    ],
)
def test_other_images(images):
    with pytest.raises(ValueError, match=r"expected float images \(N, 3, 30, 26\)"):
        Occlusion(small(), 5, 5, size=(30, 26)).maps(images)
