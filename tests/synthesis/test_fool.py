"""Attacks against the papers' algorithms, written out for one image in float64, and their promises.

The references know nothing of ours: a copy of the bare network in float64, autograd's own
gradients of log p, a Python loop.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fc7.engine.data.shapes import ShapesSource
from fc7.engine.data.transform import Transform
from fc7.engine.errors import OptionError, QuestionError
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.attack_options import METHODS, AttackOptions
from fc7.engine.synthesis.fool import Fooled, fool_images
from fc7.engine.synthesis.goals import Goals
from fc7.engine.synthesis.keyed import keys_of_rows
from fc7.engine.synthesis.randomness import Purpose, uniform

ROWS, TOGETHER = 7, 3


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def images() -> Tensor:
    source = ShapesSource(ROWS, 987654)
    return torch.stack([source.decode(source.read(row)) for row in range(ROWS)]).float() / 255


def fool(
    network: Network,
    images: Tensor,
    targets: Any = "random",
    options: AttackOptions | None = None,
    batch_rows: int = TOGETHER,
) -> Fooled:
    """A smaller batch than the default takes less to fill."""
    return fool_images(network, images, targets, options, batch_rows)


class Reference:
    """The network in float64, one image at a time."""

    def __init__(self, network: Network) -> None:
        self._model = copy.deepcopy(network.model).double()
        self._mean = torch.tensor(network.mean, dtype=torch.float64)[:, None, None]
        self._std = torch.tensor(network.std, dtype=torch.float64)[:, None, None]

    def logits(self, image: Tensor) -> Tensor:
        found: Tensor = self._model(((image - self._mean) / self._std)[None])[0]
        return found

    def gradient(self, image: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits and the gradient of a score of theirs."""
        pixels = image.clone().requires_grad_()
        logits = self.logits(pixels)
        (found,) = torch.autograd.grad(score(logits), pixels)
        return logits.detach(), found


def is_fooled(logits: Tensor, goal: int, untargeted: bool) -> bool:
    others = torch.cat([logits[:goal], logits[goal + 1 :]])
    lead = float(logits[goal] - others.max())
    return (-lead if untargeted else lead) > 1e-3


def margin_ascent(
    truth: Reference, image: Tensor, goal: int, untargeted: bool, steps: int
) -> tuple[Tensor, int]:
    """The image once it fools, and how often the network was asked."""
    x, m = image.double(), torch.zeros_like(image, dtype=torch.float64)

    def soft_margin(logits: Tensor) -> Tensor:
        others = torch.cat([logits[:goal], logits[goal + 1 :]])
        lead = logits[goal] - 0.5 * (others / 0.5).exp().sum().log()
        return -lead if untargeted else lead

    for step in range(steps):
        logits, g = truth.gradient(x, soft_margin)
        if is_fooled(logits, goal, untargeted):
            return x, step + 1
        m = 0.5 * m + g / g.norm()
        x = (x + 0.05 * m / m.norm()).clamp(0, 1)
    return x, steps


def ddn(
    truth: Reference, image: Tensor, goal: int, untargeted: bool, steps: int
) -> tuple[Tensor, int]:
    """Algorithm 1 of Rony et al. (2019), with the step sizes of their section 4."""
    x, sign = image.double(), -1 if untargeted else 1
    delta, norm, best = torch.zeros_like(x), 1.0, None
    widest = float(torch.maximum(x, 1 - x).norm())
    for k in range(steps):
        logits, g = truth.gradient(x + delta, lambda z: sign * z.log_softmax(0)[goal])
        fooled = is_fooled(logits, goal, untargeted)
        if fooled and (best is None or delta.norm() < best.norm()):
            best = delta.clone()
        norm = min(norm * (0.95 if fooled else 1.05), widest)
        delta = delta + (0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2) * g / g.norm()
        delta = (x + delta * norm / delta.norm()).clamp(0, 1) - x
    assert best is not None
    return x + best, steps


def pgd(
    truth: Reference, image: Tensor, goal: int, untargeted: bool, steps: int, row: int = 0
) -> tuple[Tensor, int]:
    """Madry et al. (2018), equation of section 2.1, from a random start in the box."""
    x, sign, epsilon = image.double(), -1 if untargeted else 1, 0.03
    keys = keys_of_rows(5, [row], [0])
    start = uniform(keys, Purpose.START, (3, 64, 64))[0].double()
    y = (x + epsilon * (2 * start - 1)).clamp(0, 1)
    for step in range(steps):
        logits, g = truth.gradient(y, lambda z: sign * z.log_softmax(0)[goal])
        if is_fooled(logits, goal, untargeted):
            return y, step + 1
        y = y + 0.0075 * g.sign()
        y = torch.minimum(torch.maximum(y, x - epsilon), x + epsilon).clamp(0, 1)
    return y, steps


def fgsm(
    truth: Reference, image: Tensor, goal: int, untargeted: bool, steps: int
) -> tuple[Tensor, int]:
    """Goodfellow et al. (2015), section 4."""
    x, sign = image.double(), -1 if untargeted else 1
    _, g = truth.gradient(x, lambda z: sign * z.log_softmax(0)[goal])
    return (x + 0.03 * g.sign()).clamp(0, 1), 1


REFERENCES = {"margin": margin_ascent, "ddn": ddn, "pgd": pgd, "fgsm": fgsm}


@pytest.mark.parametrize("target", ["random", "untargeted"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_paper_in_float64(
    network: Network, images: Tensor, method: str, target: str
) -> None:
    """Steps amplify rounding, and a switched ReLU more, so the first few are compared.

    Where a method takes signs, a gradient's smallest entries may change theirs: 1 % of pixels may.
    """
    steps = {"margin": 6, "ddn": 8, "pgd": 2, "fgsm": 1}[method]
    options = AttackOptions(method=method, steps=steps, epsilon=0.03, seed=5)
    found = fool(network, images[:2], target, options, batch_rows=2)
    truth, untargeted = Reference(network), target == "untargeted"
    for row in range(2):
        goal = int(found.goals[row])
        more: dict[str, Any] = {"row": row} if method == "pgd" else {}
        if method == "ddn" and not found.success[row]:
            continue  # the paper returns nothing then
        expected, asked = REFERENCES[method](truth, images[row], goal, untargeted, steps, **more)
        assert int(found.evaluations[row]) == asked
        difference = (found.images[row] - expected).abs()
        if method in ("margin", "ddn"):
            change = float((expected - images[row]).norm())
            assert float(difference.norm()) <= 0.02 * change
        else:
            assert float((difference > 1e-5).double().mean()) <= 0.01


def test_ddn_found_something_to_compare(network: Network, images: Tensor) -> None:
    options = AttackOptions(method="ddn", steps=8)
    assert bool(fool(network, images[:2], "untargeted", options, 2).success.all())


@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_its_batch_mates_or_its_place(
    network: Network, images: Tensor, method: str
) -> None:
    """Bit for bit; random numbers are keyed by row, so the row keeps its number."""
    options = AttackOptions(method=method, steps=1 if method == "fgsm" else 5, seed=3)
    goals = torch.tensor([1, 9, 4, 0, 2, 15, 7])
    whole = fool(network, images, goals, options, batch_rows=3)
    for row in (0, 4, 6):
        company = images.flip(0).roll(row, 0).clone()
        company[row] = images[row]
        others = (goals.flip(0) + 1) % 16
        others[row] = goals[row]
        again = fool(network, company, others, options, batch_rows=3)
        assert torch.equal(again.images[row], whole.images[row])
        assert int(again.evaluations[row]) == int(whole.evaluations[row])
    alone = fool(network, images[:1], goals[:1], options, batch_rows=3)
    assert torch.equal(alone.images[0], whole.images[0])


def checked(network: Network, images: Tensor, found: Fooled, untargeted: bool) -> None:
    """Assert what every result promises, by a plain forward pass."""
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    with torch.no_grad():
        logits, clean = network(found.images), network(images)
    predicted = logits.argmax(1)
    reached = predicted == found.goals
    assert torch.equal(found.success, ~reached if untargeted else reached)
    assert torch.equal(found.predicted, predicted)
    assert torch.equal(found.before.predicted, clean.argmax(1))
    p = logits.softmax(1)
    torch.testing.assert_close(found.probability, p.amax(1), rtol=1e-4, atol=1e-6)
    of_goal = p.gather(1, found.goals[:, None])[:, 0]
    torch.testing.assert_close(found.after.of_goal, of_goal, rtol=1e-4, atol=1e-6)
    change = (found.images - images).flatten(1)
    torch.testing.assert_close(found.l2, change.norm(dim=1))
    torch.testing.assert_close(found.linf, change.abs().amax(1))


@pytest.mark.parametrize("target", ["random", "untargeted", "next", "least-likely"])
def test_what_comes_out_fools_a_plain_forward_pass(
    network: Network, images: Tensor, target: str
) -> None:
    images = images[:3]
    found = fool(network, images, target)
    checked(network, images, found, target == "untargeted")
    assert bool(found.success.all())
    assert float(found.l2.max()) < 5


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@pytest.mark.parametrize("epsilon", [1e-3, 0.02])
def test_no_pixel_leaves_the_box(
    network: Network, images: Tensor, method: str, epsilon: float
) -> None:
    options = AttackOptions(method=method, epsilon=epsilon, steps=None if method == "fgsm" else 4)
    found = fool(network, images, "random", options)
    checked(network, images, found, untargeted=False)
    # x + epsilon is rounded, by half a unit in the last place of 1.
    assert float(found.linf.max()) <= epsilon + 2**-24


def test_ddn_is_smaller_than_margin_ascent(network: Network, images: Tensor) -> None:
    images = images[:3]
    small = fool(network, images, "random", AttackOptions(method="ddn", steps=30))
    large = fool(network, images, "random")
    checked(network, images, small, untargeted=False)
    assert bool(small.success.all())
    assert float(small.l2.median()) < float(large.l2.median())
    assert (small.evaluations == 30).all()
    assert (large.evaluations < 500).all()


def test_an_image_that_says_so_already_is_left_as_it_is(network: Network, images: Tensor) -> None:
    predicted = network(images).argmax(1)
    for method in ("margin", "ddn"):
        options = AttackOptions(method=method, steps=4)
        found = fool(network, images, predicted, options)
        assert torch.equal(found.images, images)
        assert bool(found.success.all())
        assert (found.l2 == 0).all()
    assert (fool(network, images, predicted).evaluations == 1).all()


def test_margin_goes_on_to_a_probability(network: Network, images: Tensor) -> None:
    goals = torch.tensor([3, 9, 4])
    sure = fool(network, images[:3], goals, AttackOptions(probability=0.9))
    quick = fool(network, images[:3], goals)
    assert float(quick.after.of_goal.max()) < 0.9
    assert bool(quick.success.all())
    assert int(sure.success.sum()) >= 2
    assert torch.equal(sure.success, sure.after.of_goal >= 0.9 - 1e-4)
    assert torch.equal(sure.success, sure.evaluations < 500)
    assert (sure.evaluations > quick.evaluations).all()


def test_random_classes_are_never_the_label_or_the_predicted_one(network: Network) -> None:
    logits = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(-1, 16, (4000,), generator=torch.Generator().manual_seed(1)).numpy()
    goals = Goals("random", network, 16, 7, labels)
    found = goals.of(range(4000), logits)
    predicted = logits.argmax(1)
    assert not (found == predicted).any()
    assert not (found == torch.from_numpy(labels)).any()
    counts = torch.bincount(found, minlength=16)
    # 250 each; five standard deviations of a binomial count are 77.
    assert int((counts - 250).abs().max()) < 77
    assert torch.equal(goals.of([3999, 5], logits[[3999, 5]]), found[[3999, 5]])
    other = Goals("random", network, 16, 8, labels).of(range(4000), logits)
    assert not torch.equal(other, found)
    following = Goals("next", network, 16, 0, labels).of(range(4000), logits)
    assert not ((following == predicted) | (following == torch.from_numpy(labels))).any()
    assert set(((following - predicted) % 16).tolist()) == {1, 2}
    least = Goals("least-likely", network, 16).of(range(4000), logits)
    assert torch.equal(least, logits.argmin(1))
    named = Goals("cross-dots", network, 16).of(range(2), logits[:2])
    assert named.tolist() == [15, 15]


def test_random_numbers_are_the_rows_own() -> None:
    whole = keys_of_rows(3, [0, 1, 2], [5, 6, 7])
    alone = keys_of_rows(3, [2], [7])
    assert alone.seeds[0] == whole.seeds[2]
    assert alone.steps[0] == whole.steps[2]
    seeds = {int(keys_of_rows(seed, [row], [0]).seeds[0]) for seed in range(9) for row in range(9)}
    assert len(seeds) == 81


class Stuck(nn.Module):
    """Nothing comes back from where all images are: its ReLUs are shut below 0.7."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((x - 0.7).relu().mean((2, 3)))


def network_of(model: nn.Module, size: tuple[int, int], std: float = 1.0) -> Network:
    transform = Transform(resize=size, crop=size)
    return Network(
        model, "test", weights="own", transform=transform, mean=(0, 0, 0), std=(std,) * 3,
        device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["margin", "ddn"])
def test_without_a_gradient_it_goes_anywhere_and_stays_finite(method: str) -> None:
    torch.manual_seed(0)
    network = network_of(Stuck(), (5, 7))
    images = torch.rand(3, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 0.5
    goals = (network(images).argmax(1) + 1) % 4
    found = fool(network, images, goals, AttackOptions(method=method, steps=9))
    assert bool(found.images.isfinite().all())
    assert float(found.l2.min()) > 0


def test_a_certain_network_is_fooled_all_the_same() -> None:
    """1 - p is 0 in float32 and in float64: the gradient of log p would be."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 3))
    with torch.no_grad():
        model[1].weight.mul_(40000)
    network = network_of(model, (6, 5))
    images = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    assert float(network(images).softmax(1).amax(1).min()) == 1
    for method in ("ddn", "pgd"):
        options = AttackOptions(method=method, epsilon=0.5)
        assert bool(fool(network, images, "untargeted", options).success.all()), method


def test_no_images_no_attacks(network: Network) -> None:
    found = fool(network, torch.rand(0, 3, 64, 64))
    assert found.images.shape == (0, 3, 64, 64)
    assert len(found.success) == len(found.l2) == len(found.evaluations) == 0


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ("17", r"no class 17; tiny-shapes has 0 to 15"),
        ("tench", r"no class 'tench' in tiny-shapes; .*random, least-likely, next, untargeted"),
        ([0, 16], r"no class 16"),
        ([0], r"1 classes for 2 images"),
    ],
)
def test_classes_that_are_not_there(
    network: Network, images: Tensor, targets: Any, says: str
) -> None:
    with pytest.raises(OptionError, match=says) as said:
        fool(network, images[:2], targets)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "magic"}, "margin, ddn, fgsm, pgd"),
        ({"steps": 0}, "steps is 0"),
        ({"method": "fgsm", "steps": 2}, "fgsm takes 1"),
        ({"method": "ddn", "step": 0.1}, "chooses its own step"),
        ({"step": -1.0}, "step is -1"),
        ({"probability": 1.0}, "probability is 1"),
        ({"method": "ddn", "probability": 0.5}, "stops at no probability"),
        ({"method": "pgd", "epsilon": 0.0}, "epsilon is 0"),
        ({"method": "pgd", "epsilon": float("nan")}, "epsilon is nan"),
        ({"gamma": 1.0}, "gamma is 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_out_of_range(
    network: Network, images: Tensor, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        fool(network, images[:1], "random", AttackOptions(**options))


def test_images_that_are_none(network: Network) -> None:
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        fool(network, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="beyond"):
            fool(network, torch.full((1, 3, 64, 64), bad))
    with pytest.raises(OptionError, match="batch_rows is 0"):
        fool(network, torch.rand(1, 3, 64, 64), batch_rows=0)


def test_a_network_without_a_way_back_is_refused() -> None:
    class Detached(Stuck):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    with pytest.raises(QuestionError, match="no gradient flows back"):
        fool(network_of(Detached(), (5, 7)), torch.rand(1, 3, 5, 7))
