"""Every way of writing a network: traced, it is carried through to the end, and its maps are true.

Each case is the spelling of something that has a rule.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from truth import Case, Truth, compare, enliven, everywhere, network_of

from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.tracing import trace

SIZE = (14, 15)
KNOWN: dict[str, Case] = {}


def known(**layers):
    def note(forward):
        KNOWN[forward.__name__] = Case(forward, SIZE, **layers)
        return forward

    return note


# In place: what is written to is read by others, before or after.


@known()
def inplace_functions(m, x):
    h = F.hardswish(m.a(x), inplace=True)
    h = F.relu6(m.b(h).sigmoid_().mul_(8), inplace=True)
    return F.silu(F.leaky_relu_(m.b(h), 0.2), inplace=True).pow_(2)


@known()
def inplace_methods(m, x):
    h = m.a(x)
    h *= 2
    h += 1
    h.div_(3).sub_(0.1).clamp_(-1, 2).neg_().abs_()
    return m.b(h).relu_()


@known()
def relu_on_a_copy(m, x):
    h = m.a(x)
    y = h.clone()
    return y + F.relu_(h) * 2


@known()
def scaled_in_place_by_a_vector(m, x):
    h = m.a(x)
    h *= m.b(h).mean((2, 3)).sigmoid().view(len(x), 8, 1, 1)
    return m.b(h)


@known()
def residual_in_place(m, x):
    h = m.a(x)
    y = m.b(h.relu())
    y += h
    y -= h.tanh()
    return y.sub_(h, alpha=0.2).relu_()


@known()
def dropout_is_the_tensor_itself(m, x):
    h = m.a(x)
    y = nn.Dropout2d().eval()(F.dropout(h, 0.5, False))
    y.relu_()
    return h + y


@known()
def written_through_a_detached_tensor(m, x):
    h = m.a(x)
    h.detach().relu_()
    return h


@known()
def pieces_of_what_is_written_to_later(m, x):
    h = m.a(x)
    u, v = h.chunk(2, 1)
    h.relu_()
    return torch.cat([u, v * 2], 1)


@known()
def copy_or_view(m, x):
    # Channels last, so that it is a copy; were it a view, the sum would be another.
    h = m.a(x)
    y = h.contiguous()
    y.relu_()
    return h + y


@known()
def result_into_a_given_tensor(m, x):
    h = m.a(x)
    z = h * 1
    torch.mul(h, 2, out=z)
    return z.relu() + h


@known()
def pooled_to_its_own_size(m, x):
    h = m.a(x)
    y = F.adaptive_avg_pool2d(h, SIZE)
    h.relu_()
    return h + y


# Differences that several read.


@known(g=nn.Linear(8, 6))
def two_heads_on_one_map(m, x):
    h = m.a(x)
    return torch.cat([m.g(m.b(h.relu()).mean((2, 3))), h.flatten(1)], 1)


@known(g=nn.Linear(8, 6), c=nn.Conv2d(8, 8, 1))
def two_heads_on_one_vector(m, x):
    h = F.adaptive_avg_pool2d(m.a(x), 1)
    return torch.cat([m.g(m.c(h.relu()).flatten(1)), h.flatten(1)], 1)


@known()
def split_into_one_piece(m, x):
    h = m.a(x)
    (y,) = h.split(8, 1)
    (z,) = h.chunk(1, 1)
    return m.b(y.relu()) + h + z.tanh()


@known(c=nn.Conv2d(3, 1, 3, padding=1), d=nn.Conv2d(1, 4, 3, padding=1))
def the_only_channel(m, x):
    h = m.c(x)
    return torch.cat([m.d(h[:, 0].unsqueeze(1).relu()), h], 1)


@known(c=nn.Conv2d(3, 1, 14, padding=7), g=nn.Linear(4, 6), d=nn.Conv2d(1, 4, 3))
def one_channel_flattened(m, x):
    h = F.max_pool2d(m.c(x), 5, 4)
    return torch.cat([h.flatten(1).relu(), m.g(m.d(h).mean((2, 3)))], 1)


@known(n=nn.BatchNorm1d(8 * 3 * 3))
def vectors_before_the_last_layer(m, x):
    h = F.max_pool2d(m.a(x), 4).flatten(1)
    return torch.cat([m.n(h), h.relu(), h], 1)


@known()
def shared_module(m, x):
    return m.b(m.b(m.a(x)).relu() + m.a(x))


@known()
def the_same_twice(m, x):
    h = m.a(x).relu()
    h = torch.cat([h, m.b(h), h], 1)
    return h + h * h - h / (1 + h * h)


@known(g=nn.Linear(3 * 14 * 15, 4))
def images_read_again(m, x):
    y = torch.cat([x, m.a(x), x], 1).relu()
    return torch.cat([y.mean((2, 3)), m.g(x.flatten(1)), F.avg_pool2d(x, 5).flatten(1)], 1)


# Arithmetic, constants and shapes.


@known(c=nn.Parameter(torch.linspace(0.5, 2, 8)))
def constants_before_and_behind(m, x):
    h, by_channel = m.a(x), m.c[:, None, None]
    y = (1 - h).relu() + (2.0 - h.sigmoid() * 3) + torch.rsub(h, 1.5, alpha=2)
    y = y + torch.add(h, by_channel, alpha=3) + torch.sub(by_channel, h, alpha=3).relu()
    return y * by_channel / (by_channel + 1)


@known()
def cast_to_float64_and_back(m, x):
    return m.a(x).double().relu().to(x.dtype)


@known(p=nn.PReLU(8), q=nn.PReLU())
def parametric_relus(m, x):
    h = m.a(x)
    vector = m.p(h.mean((2, 3)))
    return torch.cat([m.p(h).mean((2, 3)), m.q(h).mean((2, 3)), vector, m.q(vector)], 1)


@known()
def channels_shuffled(m, x):
    h = m.a(x)
    n, _, height, width = h.shape
    h = h.view(n, 4, 2, height, width).transpose(1, 2).contiguous().view(n, -1, height, width)
    return m.b(h.relu())


@known()
def channels_picked(m, x):
    p, q, r = m.a(x).split([1, 5, 2], 1)
    u = m.a(x).chunk(3, 1)
    one = x[:, 0].unsqueeze(1) * 0.5 + 0.1
    return torch.cat([r.relu(), p, q, u[2], q[:, -3:-1], one, torch.unsqueeze(x[:, 1], 1)], 1)


@known(c=nn.Conv2d(8, 2, 1), d=nn.Conv2d(2, 8, 1))
def squeeze_and_excite(m, x):
    h = m.a(x)
    scale = m.d(m.c(F.adaptive_avg_pool2d(h, 1)).relu()).sigmoid()
    return m.b((scale * h).relu())


@known(c=nn.Conv2d(3, 4, (3, 2), (2, 3)), d=nn.Conv2d(4, 4, (1, 3)), z=nn.ZeroPad2d((0, 1, 2, 3)))
def padded(m, x):
    h = m.c(F.pad(x, (1, 2, 3, 0), value=0.7))
    return m.d(m.z(F.pad(h, (2, 0))).relu_())


@known()
def padded_for_a_maximum(m, x):
    return F.max_pool2d(F.pad(m.a(x), (0, 1, 0, 1), value=-torch.inf), 3, 2)


@known()
def pools(m, x):
    h = m.a(x)
    y = F.avg_pool2d(h, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    y = F.avg_pool2d(y, (2, 3), (3, 2), (1, 1), divisor_override=5)
    z = F.max_pool2d(h, 3, 2, 1, ceil_mode=True)
    z, _ = F.max_pool2d(z, 2, 3, dilation=2, ceil_mode=True, return_indices=True)
    return torch.cat([y.flatten(1), z.flatten(1)], 1)


@known()
def pooled_to_sizes_that_do_not_divide(m, x):
    h = m.a(x)
    parts = [(5, 7), (None, 3), (20, 4), (7, 5)]
    return torch.cat([F.adaptive_avg_pool2d(h, part).relu().flatten(1) for part in parts], 1)


@known(
    c=nn.Conv2d(3, 6, 2, stride=5),
    d=nn.Conv2d(3, 9, 3, groups=3, padding=2, dilation=2),
    e=nn.Conv2d(3, 4, 2, stride=3, dilation=4, padding=3),
    f=nn.Conv2d(3, 4, (5, 3), padding="same", dilation=(1, 2)),
)
def convolutions(m, x):
    return torch.cat([c(x).relu().mean((2, 3)) for c in (m.c, m.d, m.e, m.f)], 1)


@known(c=nn.Conv2d(3, 8, SIZE))
def convolved_to_a_pixel(m, x):
    return m.c(x).squeeze().tanh()


@known()
def without_gradients(m, x):
    with torch.no_grad():
        h = m.a(x)
    return h.relu()


@pytest.mark.parametrize("name", KNOWN)
def test_spelling(name):
    network = network_of(enliven(KNOWN[name], SIZE), SIZE)
    truth = Truth.of(network)
    occlusion = Occlusion(network, 5, 4, 0.9, "logit", SIZE)
    assert occlusion.unknown == ()
    assert not occlusion.plan.in_full
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    compare(occlusion, truth, network, images, everywhere(occlusion, 2), 5, 4, 0.9).check()


def test_newer_settings_of_tf32_do_not_hide_the_operations(set_conv_precision):
    set_conv_precision("ieee")
    cudnn = torch.backends.cudnn
    with pytest.raises(RuntimeError, match="allow_tf32"):
        print(cudnn.allow_tf32)  # what torch.export asks
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 2))
    assert not trace(model.eval(), (9, 9)).unknown
    assert cudnn.conv.fp32_precision == "ieee"
