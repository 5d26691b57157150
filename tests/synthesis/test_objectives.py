"""Objectives and their gradients against autograd in float64, each row by its own terms."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fc7.engine.errors import LayerError, OptionError, QuestionError
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.objectives import (
    Batch,
    Objective,
    activation_norm,
    any_class,
    channel,
    class_logit,
    direction,
    feature_match,
    log_probability,
    margin,
    neuron,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


def images(count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def vector(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(
    network: Network, pixels: Tensor, layer: str | None, formula: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The score of one image in float64, ReLUs out of place, and its gradient."""
    model = copy.deepcopy(network.model).double()
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    if layer is not None:
        path = network.layer(layer).path
        model.get_submodule(path).register_forward_hook(lambda _m, _a, out: seen.append(out))
    mean, std = (
        torch.tensor(each, dtype=torch.float64)[:, None, None]
        for each in (network.mean, network.std)
    )
    x = pixels.double()[None].requires_grad_()
    logits = model((x - mean) / std)
    score = formula(logits[0] if layer is None else seen[0][0])
    (gradient,) = torch.autograd.grad(score, x)
    return score.detach(), gradient[0]


def evaluate(network: Network, x: Tensor, objectives: list[Objective], **options: Any) -> Any:
    batch = Batch(objectives, network.device)
    return Evaluator(network, batch.layers, **options)(x, batch)


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


FORMULAS: dict[str, tuple[str | None, Callable[..., Objective], Callable[..., Any]]] = {
    "channel": ("conv3", lambda u: channel("conv3", u), lambda u: lambda a: a[u].mean()),
    "of a vector": ("fc7", lambda u: channel("fc7", u), lambda u: lambda a: a[u]),
    "neuron": ("conv4", lambda u: neuron("conv4", u, 1, 2), lambda u: lambda a: a[u, 1, 2]),
    "middle": (
        "conv2",
        lambda u: neuron("conv2", u),
        lambda u: lambda a: a[u, a.shape[1] // 2, a.shape[2] // 2],
    ),
    "class": (None, class_logit, lambda u: lambda z: z[u]),
    "margin": (
        None,
        margin,
        lambda u: lambda z: z[u] - torch.cat([z[:u], z[u + 1 :]]).max(),
    ),
    "probability": (None, log_probability, lambda u: lambda z: z.log_softmax(0)[u]),
    "any of classes": (
        None,
        lambda u: any_class([u, *range(u + 3, u + 6)][: 1 + u % 4]),
        lambda u: lambda z: z[[u, *range(u + 3, u + 6)][: 1 + u % 4]].exp().sum().log(),
    ),
    "norm": ("conv5", lambda _: activation_norm("conv5"), lambda _: lambda a: (a * a).sum() / 2),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_row_is_scored_by_its_own(name: str, network: Network) -> None:
    layer, objective, formula = FORMULAS[name]
    x, units = images(3), [1, 7, 4]
    found = evaluate(network, x, [objective(unit) for unit in units])
    for row, unit in enumerate(units):
        score, gradient = exact(network, x[row], layer, formula(unit))
        assert abs(found.scores[row] - score) < 1e-4 * max(1, abs(score))
        assert apart(found.gradients[row], gradient) < 1e-4


def test_a_direction_is_a_product_and_a_match_a_distance(network: Network) -> None:
    x = images(2)
    channels, height, width = network.layer("conv3").shape
    vectors = vector(2, channels, seed=1)
    found = evaluate(network, x, [direction("conv3", each) for each in vectors])
    features = vector(2, channels, height, width, seed=2)
    matched = evaluate(network, x, [feature_match("conv3", each) for each in features])
    for row in range(2):
        wanted, target = vectors[row].double(), features[row].double()
        score, gradient = exact(
            network, x[row], "conv3", lambda a, v=wanted: (a * v[:, None, None]).sum(0).mean()
        )
        assert apart(found.gradients[row], gradient) < 1e-4
        assert found.scores[row] == pytest.approx(float(score), rel=1e-4)
        score, gradient = exact(
            network, x[row], "conv3", lambda a, f=target: -((a - f) ** 2).sum() / (f**2).sum()
        )
        assert apart(matched.gradients[row], gradient) < 1e-4
        assert matched.scores[row] == pytest.approx(float(score), rel=1e-4)


def test_objectives_add_up_as_values(network: Network) -> None:
    """Also over two layers and the logits, whose ReLUs in place write over what was tapped."""
    x = images(3)
    parts = [channel("conv3", 5), channel("conv5", 2), class_logit(7)]
    weights = (0.2, -1.5, 0.8)
    joined = 0.2 * parts[0] - parts[1] * 1.5 + 0.8 * parts[2]
    found = evaluate(network, x, [joined] * 3, keep=[None, "conv3"])
    alone = [evaluate(network, x, [part] * 3) for part in parts]
    scores = sum(w * each.scores for w, each in zip(weights, alone, strict=True))
    gradients = sum(w * each.gradients for w, each in zip(weights, alone, strict=True))
    torch.testing.assert_close(found.scores, scores, rtol=1e-4, atol=1e-5)
    assert apart(found.gradients, gradients.double()) < 1e-4
    torch.testing.assert_close(found.outputs[None], network(x), rtol=1e-4, atol=1e-4)
    conv3 = network.activations(x, ["conv3"])["conv3"]
    torch.testing.assert_close(found.outputs["conv3"], conv3, rtol=1e-4, atol=1e-4)
    assert set(found.outputs) == {None, "conv3"}
    outputs = Evaluator(network, [None, "conv3"], together=2).outputs(x)
    torch.testing.assert_close(outputs["conv3"], conv3, rtol=1e-4, atol=1e-4)


def test_the_pass_ends_where_the_objective_looks(network: Network) -> None:
    """What lies behind the deepest layer does not run: breaking it changes nothing."""
    x, broken = images(2), copy.deepcopy(network)
    with torch.no_grad():
        broken.model.get_submodule(network.layer("conv4").path).weight.fill_(torch.nan)
    asked = [channel("conv2", 1) + channel("conv3", 2)] * 2
    assert torch.equal(evaluate(network, x, asked).gradients, evaluate(broken, x, asked).gradients)


def test_a_row_is_bit_identical_anywhere_in_any_company(network: Network) -> None:
    """In a batch of the same size; three go together, so that places differ between passes too."""
    x, units = images(6), [0, 3, 5, 7, 11, 15]
    whole = evaluate(network, x, [class_logit(unit) for unit in units], together=3)
    order = [4, 2, 0, 5, 3, 1]
    shuffled = evaluate(network, x[order], [class_logit(units[row]) for row in order], together=3)
    assert torch.equal(shuffled.gradients, whole.gradients[order])
    assert torch.equal(shuffled.scores, whole.scores[order])
    others = torch.full_like(x, torch.nan)
    others[2] = x[4]
    among = evaluate(network, others, [class_logit(units[4])] * 6, together=3)
    assert torch.equal(among.gradients[2], whole.gradients[4])


def test_a_union_of_classes_has_the_sum_of_their_probabilities(network: Network) -> None:
    """Four unions of four classes, as if the network had been asked for four classes."""
    x, unions = images(2), [range(first, first + 4) for first in (0, 4, 8, 12)]
    probabilities = network(x).double().softmax(1).reshape(2, 4, 4).sum(2)
    logits = torch.stack(
        [evaluate(network, x, [any_class(union)] * 2).scores for union in unions], 1
    )
    torch.testing.assert_close(logits.double().softmax(1), probabilities, rtol=1e-5, atol=1e-7)
    one = evaluate(network, x, [any_class([5])] * 2)
    plain = evaluate(network, x, [class_logit(5)] * 2)
    assert torch.equal(one.scores, plain.scores)
    assert torch.equal(one.gradients, plain.gradients)


def test_another_size_than_the_network_s_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2))
    pooled = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    from fc7.engine.data.transform import Transform

    transform = Transform(resize=(16, 16), crop=None)
    network = Network(pooled, "small", weights="random", transform=transform, device="cpu")
    x = images(2, (21, 34))
    found = evaluate(network, x, [channel("0.2", 1), channel("0.2", 4)], size=(21, 34))
    score, gradient = exact(network, x[1], "0.2", lambda a: a[4].mean())
    assert apart(found.gradients[1], gradient) < 1e-5
    assert found.scores[1] == pytest.approx(float(score), rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "error", "says"),
    [
        (channel("conv9", 0), LayerError, "conv9"),
        (channel("conv3", 4096), OptionError, "name one from 0 to"),
        (neuron("conv3", 0, 99, 0), OptionError, "row 99"),
        (neuron("fc7", 0), OptionError, "no rows and columns"),
        (class_logit(16), OptionError, "classes of tiny-shapes"),
        (class_logit(-1), OptionError, "name one from 0 to 15"),
        (any_class([3, 16]), OptionError, "unit 16 is none of the 16 classes"),
        (any_class([]), OptionError, "make no union"),
        (any_class([3, 3]), OptionError, "each once"),
        (direction("conv3", torch.zeros(2)), OptionError, "needs features"),
        (feature_match("fc7", torch.zeros(2)), OptionError, "needs features"),
    ],
)
def test_what_is_not_there(
    objective: Objective, error: type[Exception], says: str, network: Network
) -> None:
    with pytest.raises(error, match=says) as caught:
        objective.check(network)
    assert "\n" not in str(caught.value)
    assert channel("conv3", 0).check(network).layers == ("conv3",)


def test_rows_of_one_batch_ask_alike() -> None:
    with pytest.raises(ValueError, match="same kinds"):
        Batch([channel("conv3", 0), channel("conv4", 0)], CPU)


def test_a_network_that_lets_nothing_back(network: Network) -> None:
    with pytest.raises(QuestionError, match="no gradient flows back"):
        Evaluator(network, ["conv1"])(images(1), lambda _outputs, _rows: torch.zeros(1))
