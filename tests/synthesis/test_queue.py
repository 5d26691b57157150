"""The ascent queue: objectives rise, and a row is the same to the bit wherever it is computed."""

import copy
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.adam import Adam, Ascent
from fc7.engine.synthesis.gradient_operations import UnitMean
from fc7.engine.synthesis.image_operations import Blur, Clamp, ZeroSmallNorm
from fc7.engine.synthesis.objectives import Objective, channel, class_logit
from fc7.engine.synthesis.parametrisation import Fourier, Pixels, SigmoidPixels
from fc7.engine.synthesis.penalties import L2, TotalVariation
from fc7.engine.synthesis.pixels import GREY
from fc7.engine.synthesis.presets import PRESETS, recipe
from fc7.engine.synthesis.queue import WARM_UP, AscentQueue, Made, Task
from fc7.engine.synthesis.recipe import Recipe
from fc7.engine.synthesis.redirected import Redirected
from fc7.engine.synthesis.transforms import Jitter


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


FULL = Recipe(
    steps=6,
    parametrisation=SigmoidPixels(decorrelated=True),
    optimiser=Adam(0.1),
    penalties=((1e-4, TotalVariation()), (1e-4, L2(GREY))),
    transforms=(Jitter(3), Jitter(1)),
)
PIXELS = Recipe(
    steps=6,
    parametrisation=Pixels(GREY),
    optimiser=Ascent(0.02),
    on_gradients=(UnitMean(),),
    on_images=(Blur(0.5, 4), ZeroSmallNorm(20, GREY), Clamp()),
)


def made(queue: AscentQueue, tasks: Iterable[Task]) -> dict[int, Made]:
    return {each.row: each for group in queue(tasks) for each in group}


def tasks_of(rows: Iterable[int]) -> list[Task]:
    return [Task(row, class_logit(row % 16), 100 + row) for row in rows]


@pytest.mark.parametrize("how", [FULL, PIXELS], ids=["latents", "pixels"])
def test_a_row_is_bit_identical_in_any_company(how: Recipe, network: Network) -> None:
    """Seven rows through four slots, shuffled, and each alone: starts are random, steps too."""
    queue = AscentQueue(network, class_logit(0), how, batch=4)
    whole = made(queue, tasks_of(range(7)))
    assert sorted(whole) == list(range(7))
    shuffled = made(queue, tasks_of([5, 2, 6, 0, 3, 1, 4]))
    alone = made(AscentQueue(network, class_logit(0), how, batch=4), tasks_of([5]))
    for row, one in whole.items():
        assert torch.equal(shuffled[row].image, one.image)
        assert torch.equal(shuffled[row].curve, one.curve)
    assert torch.equal(alone[5].image, whole[5].image)
    assert not torch.equal(whole[0].image, whole[1].image)


def test_a_row_that_leaves_early_changes_nothing_for_the_others(network: Network) -> None:
    """Rows that reach what is asked leave their slots to others in the middle of their ascent."""
    tasks = tasks_of(range(9))
    slow = made(AscentQueue(network, class_logit(0), FULL, batch=3), tasks)
    scores = sorted(float(one.curve.max()) for one in slow.values())
    quick = Recipe(**{**vars(FULL), "until": scores[4]})
    found = made(AscentQueue(network, class_logit(0), quick, batch=3), tasks)
    assert {one.status for one in found.values()} == {"reached", "done"}
    for row, one in found.items():
        assert torch.equal(one.curve, slow[row].curve[: len(one.curve)])
        if one.status == "reached":
            assert float(one.curve[-1]) >= scores[4]
            assert bool((one.curve[:-1] < scores[4]).all())
        else:
            assert torch.equal(one.image, slow[row].image)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_raise_the_objective(preset: str, network: Network) -> None:
    how = recipe(preset, network, steps=40)
    found = made(AscentQueue(network, class_logit(0), how, 4), tasks_of(range(4)))
    for one in found.values():
        assert one.status == "done"
        assert one.image.shape == (3, 64, 64)
        assert 0 <= float(one.image.min()) <= float(one.image.max()) <= 1
        assert float(one.curve[-8:].mean()) > float(one.curve[:4].mean())


def test_one_row_is_a_plain_loop_s(network: Network) -> None:
    """The queue against Adam as torch has it, and autograd, on one image, in float64."""
    model = copy.deepcopy(network.model).double()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    how = Recipe(steps=5, parametrisation=Fourier(), optimiser=Adam(0.05))
    start = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(4))
    task = Task(0, class_logit(3), 9, start)
    found = made(AscentQueue(network, class_logit(3), how, 2), [task])[0]
    mean, std = (
        torch.tensor(each, dtype=torch.float64)[:, None, None]
        for each in (network.mean, network.std)
    )
    latent = Fourier().latent(start[None].double()).requires_grad_()
    adam = torch.optim.Adam([latent], lr=0.05, maximize=True)
    curve = []
    for _ in range(5):
        adam.zero_grad()
        score = model((Fourier().images(latent) - mean) / std)[0, 3]
        curve.append(score.item())
        score.backward()
        adam.step()
    np.testing.assert_allclose(found.curve.numpy(), curve, rtol=1e-3, atol=1e-3)
    # Adam divides by the gradient's own size, so that where it is nearly zero rounding decides.
    apart = (found.image - Fourier().images(latent)[0]).abs()
    assert float(apart.mean()) < 1e-3


def small(bias: float) -> Network:
    """conv, ReLU and a channel behind it that only a large bias lets anything reach."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        assert first.bias is not None
        first.bias.fill_(bias)
        first.weight.abs_()
    second = nn.Conv2d(4, 2, 3, padding=1)
    model = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    transform = Transform(resize=(16, 16), crop=None)
    return Network(
        model, "small", weights="random", transform=transform, mean=(0, 0, 0), std=(1, 1, 1),
        device="cpu",
    )  # fmt: skip


def test_a_dead_target_starts_through_shut_relus() -> None:
    """All ReLUs are shut at the grey start; redirected gradients open them, and ascent goes on."""
    network, how = (
        small(-2.0),
        Recipe(20, Pixels(GREY, 0.0), Ascent(0.1), on_gradients=(UnitMean(),)),
    )
    found = made(AscentQueue(network, channel("2", 0), how, 2), [Task(0, channel("2", 0), 0)])[0]
    assert found.status == "done"
    assert float(found.curve[0]) < float(found.curve[-1])


def test_a_target_out_of_reach_is_reported(network: Network) -> None:
    """Nothing in [0, 1] opens these ReLUs: the row ends, and its batch-mates do not."""
    how = Recipe(60, Pixels(GREY), Ascent(0.1), on_gradients=(UnitMean(),), on_images=(Clamp(),))
    lost = made(AscentQueue(small(-50.0), channel("2", 0), how, 2), [Task(0, channel("2", 0), 0)])[
        0
    ]
    assert lost.status == "dead"
    assert len(lost.curve) == WARM_UP + 1


def test_patience_ends_what_gets_no_better(network: Network) -> None:
    how = Recipe(50, Pixels(GREY), Ascent(0.0), patience=3)
    found = made(AscentQueue(network, class_logit(0), how, 2), tasks_of([0]))[0]
    assert found.status == "still"
    assert len(found.curve) == 4


def test_a_row_that_diverges_keeps_its_last_finite_image(network: Network) -> None:
    how = Recipe(6, Pixels(GREY), Ascent(3e38), on_gradients=(UnitMean(),))
    found = made(AscentQueue(network, class_logit(0), how, 2), tasks_of([0, 1]))
    assert {one.status for one in found.values()} == {"diverged"}
    assert all(bool(torch.isfinite(one.image).all()) for one in found.values())


def test_hostile_tasks(network: Network) -> None:
    queue = AscentQueue(network, class_logit(0), FULL, batch=2)
    for start, says in (
        (torch.full((3, 64, 64), torch.nan), "not finite"),
        (torch.zeros(3, 32, 64), "not .3, 64, 64"),
    ):
        with pytest.raises(OptionError, match=says) as caught:
            list(queue([Task(3, class_logit(0), 0, start)]))
        assert "row 3" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="name one from 0 to 15"):
        list(queue([Task(0, class_logit(16), 0)]))
    with pytest.raises(LayerError):
        AscentQueue(network, channel("conv9", 0), FULL)
    with pytest.raises(OptionError, match="batch of 0"):
        AscentQueue(network, class_logit(0), FULL, batch=0)
    with pytest.raises(OptionError, match="no preset"):
        recipe("yosinsky", network)
    assert list(queue([])) == []


def test_redirected_gradients_are_their_definition() -> None:
    x = torch.tensor([-1.0, -1.0, 2.0, 2.0, 0.0, 0.0]).requires_grad_()
    g = torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])
    for inplace in (False, True):
        with Redirected():
            y = nn.functional.relu(x * 1, inplace=inplace)
        assert torch.equal(y.detach(), x.detach().clamp(min=0))
        (gx,) = torch.autograd.grad(y, x, g)
        assert gx.tolist() == [3, 0, 3, -3, 3, 0]


def test_objectives_of_one_queue_may_differ_in_unit_and_weight(network: Network) -> None:
    def asked(row: int) -> Objective:
        return 0.5 * channel("conv4", row) - (row / 10) * channel("conv5", 2)

    queue = AscentQueue(network, asked(0), FULL, batch=3)
    mixed = made(queue, [Task(row, asked(row), row) for row in range(5)])
    for row, one in mixed.items():
        again = made(AscentQueue(network, asked(row), FULL, 3), [Task(row, asked(row), row)])
        assert torch.equal(again[row].image, one.image)


def test_evaluations_are_counted(network: Network) -> None:
    queue = AscentQueue(network, class_logit(0), FULL, batch=4)
    list(queue(tasks_of(range(5))))
    # Grey noise lets nothing through this network: each row takes its first step twice.
    assert queue.evaluations == 5 * (FULL.steps + 1)


def _image(seed: int) -> Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_a_start_is_where_ascent_begins(network: Network) -> None:
    still = Recipe(1, SigmoidPixels(), Ascent(0.0))
    found = made(AscentQueue(network, class_logit(0), still, 2), [
        Task(0, class_logit(0), 0, _image(1)), Task(1, class_logit(0), 0, _image(2)),
    ])  # fmt: skip
    for row in (0, 1):
        apart = (found[row].image - _image(row + 1)).abs().max()
        assert float(apart) <= 2**-10  # what the sigmoid leaves out at either end
        logits = network(found[row].image[None])
        assert float(found[row].curve[0]) == pytest.approx(float(logits[0, 0]), rel=1e-3, abs=1e-3)
