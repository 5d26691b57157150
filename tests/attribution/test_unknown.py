"""What has no rule runs in full and is named; a network that mixes its images runs one by one.

Either way the maps are those of full inference on each image alone.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer
from truth import Case, Truth, compare, enliven, everywhere, network_of

from fc7.engine.attribution.occlusion import Occlusion

SIZE = (14, 15)
CASES: dict[str, tuple[Case, tuple[str, ...]]] = {}
OTHER_LOGITS = "the network (traced, it gives other logits)"


def names(*unknown, **layers):
    def note(forward):
        CASES[forward.__name__] = Case(forward, SIZE, **layers), unknown
        return forward

    return note


# Written through a view: torch makes functions of it that have no rule.


@names("slice_scatter")
def piece_of_a_map_written_to(m, x):
    h = m.a(x)
    h[:, :4].mul_(3)
    return h.relu()


@names("slice_scatter")
def chunk_written_to(m, x):
    h = m.a(x)
    u, v = h.chunk(2, 1)
    u.relu_()
    return torch.cat([h, v], 1)


@names("select")
def row_set_to_zero(m, x):
    h = m.a(x)
    h[:, :, 0] = 0
    return h.relu()


@names("view")
def viewed_before_it_is_written_to(m, x):
    h = m.a(x)
    y = h.view(x.shape[0], 8, -1)
    h.relu_()
    return y.reshape(h.shape)


@names("copy")
def zeros_filled(m, x):
    h = m.a(x)
    out = torch.zeros(x.shape[0], 8, *h.shape[2:], dtype=h.dtype)
    out[:, :4] = h[:, 4:]
    out[:, 4:] = h[:, :4].relu()
    return out


@names("_foreach_mul")
def several_written_to(m, x):
    h, g = m.a(x), m.b(m.a(x).tanh())
    torch._foreach_mul_([h, g], 3.0)
    return h.relu() + g


# Functions of an element that are not the same everywhere, or not of an element.


@names("to")
def rounded_to_whole_numbers(m, x):
    return (4 * m.a(x)).to(torch.int32).to(x.dtype).relu()


@names("to")
def is_there_anything(m, x):
    return m.a(x).relu().bool().to(x.dtype)


@names("pow", p=nn.Parameter(torch.linspace(0.5, 3, 15)), c=nn.Conv2d(3, 15, 3, padding=1))
def power_by_column(m, x):
    return torch.pow(m.c(x).sigmoid(), m.p)


@names("mul", p=nn.Parameter(torch.linspace(-1, 3, 14)), c=nn.Conv2d(3, 14, 3, padding=1))
def factor_by_row(m, x):
    return (m.c(x) * m.p[:, None]).relu()


@names("add", p=nn.Parameter(torch.randn(1, 8, *SIZE)))
def embedding_by_place(m, x):
    return (m.a(x) + m.p).relu()


@names("mul", c=nn.Conv2d(8, 1, 3, padding=1))
def attention_by_place(m, x):
    h = m.a(x)
    return h * m.c(h).sigmoid()


@names("gt")
def masked(m, x):
    h = m.a(x)
    return h * (h > 0) + torch.where(h > 1, h, 0.1 * h)


@names("softmax")
def named_once(m, x):
    return m.b(m.a(x).softmax(1)).softmax(1)


@names("mean", "amax")
def mean_of_everything(m, x):
    return torch.cat([m.a(x).mean((1, 2, 3), keepdim=True), m.b(m.a(x)).amax((2, 3), True)], 1)


@names("dropout")
def dropout_in_training_mode(m, x):
    return F.dropout(m.a(x), 0.0, training=True).relu()


# Functions that move pixels or read them beyond a kernel.


@names("upsample_nearest2d", "amax", c=nn.Conv2d(16, 8, 3))
def two_branches_of_three(m, x):
    h = m.a(x).relu()
    u = F.interpolate(F.avg_pool2d(h, 2), SIZE)
    return torch.cat([h.mean((2, 3)), h.amax((2, 3)), m.c(torch.cat([h, u], 1)).mean((2, 3))], 1)


@names("max_pool2d_with_indices")
def pooled_and_unpooled(m, x):
    h, places = F.max_pool2d(m.a(x), 2, return_indices=True)
    return F.max_unpool2d(h, places, 2, output_size=SIZE)


@names("slice")
def rows_cut_off(m, x):
    return m.a(x)[:, :, 1:, :-1].relu()


@names("flip")
def flipped_beside_itself(m, x):
    y = torch.stack([x, x.flip(3)], 1).flatten(0, 1)
    h = m.a(y).relu().mean((2, 3)).view(-1, 2, 8)
    return h[:, 0] + h[:, 1] * 2


@names("flip")
def flipped_behind_the_batch(m, x):
    u, v = m.a(torch.cat([x, x.flip(3)], 0)).relu().mean((2, 3)).chunk(2, 0)
    return u + v * 2


@names(
    "group_norm", "instance_norm", "conv_transpose2d", "pad", "conv2d",
    layers=nn.ModuleList(
        [
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)),
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True)),
            nn.ConvTranspose2d(3, 8, 3, 2),
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(3, 8, (4, 3), padding="same"),
        ]
    ),
)  # fmt: skip
def layers_without_a_rule(m, x):
    return torch.cat([layer(x).relu().mean((2, 3)) for layer in m.layers], 1)


@names("view", "reshape", g=nn.Linear(8, 32))
def weights_by_image(m, x):
    n, h = x.shape[0], m.a(x)
    weights = m.g(h.mean((2, 3))).view(n * 4, 8, 1, 1)
    maps = h.reshape(1, n * 8, *h.shape[2:])
    return F.conv2d(maps, weights, groups=n).view(n, 4, *h.shape[2:]).relu()


@names("flatten")
def places_before_images(m, x):
    n, h = x.shape[0], m.a(x).flatten(2).permute(2, 0, 1)
    h = (h * 2).reshape(len(h), n * 2, 4).cumsum(0).tanh().reshape(len(h), n, 8)
    return h.mean(0)


# Networks that know how many images there are, or what is in the others.


@names(OTHER_LOGITS)
def divided_by_the_number_of_images(m, x):
    return m.a(x).relu() / len(x)


@names(OTHER_LOGITS)
def another_network_for_one_image(m, x):
    return m.a(x).relu() if len(x) == 1 else m.a(x).sigmoid()


@names(OTHER_LOGITS)
def less_the_mean_image(m, x):
    h = m.a(x)
    return (h - 0.5 * h.mean(0, keepdim=True) + h.roll(1, 0)).relu()


@names(OTHER_LOGITS)
def times_the_mean_of_all(m, x):
    h = m.a(x)
    return (h * h.mean()).relu()


@names(OTHER_LOGITS, n=nn.BatchNorm2d(8, track_running_stats=False))
def statistics_of_the_batch(m, x):
    return m.n(m.a(x)).relu()


@names("the network (KeyError)")
def another_precision_inside(m, x):
    with torch.autocast("cpu", enabled=False):
        h = m.a(x)
    return h.relu()


def maps_are_true(model, size, unknown, window=5, stride=4):
    network = network_of(enliven(model, size), size)
    truth = Truth.of(network)
    occlusion = Occlusion(network, window, stride, 0.9, "logit", size)
    assert occlusion.unknown == unknown
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    images[1] *= 0.3  # what is done to one is not what is done to the other
    places = everywhere(occlusion, 2)
    compare(occlusion, truth, network, images, places, window, stride, 0.9).check()


@pytest.mark.parametrize("name", CASES)
def test_network(name):
    case, unknown = CASES[name]
    maps_are_true(case, SIZE, unknown)


def test_convnext():
    blocks = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)]
    maps_are_true(ConvNeXt(blocks, num_classes=5, layer_scale=0.5), (32, 40), ("permute",), 9, 9)


def test_vision_transformer():
    maps_are_true(
        VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5), (32, 32), ("reshape",), 9, 8
    )


def test_no_weights_at_all():
    class Plain(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 5, 3).clamp(min=-0.5).flatten(1)

    maps_are_true(Plain(), SIZE, ())


def test_data_decide_how_it_goes_on():
    went = set()

    def looks(m, x):
        h = m.a(x)
        active = bool(h.mean() > m.threshold)
        went.add(active)
        return h.relu() if active else 2 * h.sigmoid()

    case = Case(looks, SIZE, threshold=nn.Parameter(torch.tensor(-0.1)))
    maps_are_true(case, SIZE, ("the network (GuardOnDataDependentSymNode)",))
    assert went == {True, False}
