"""Lists of pixels against windows in bands, and against full inference in float64."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from truth import Truth, compare, corners_and, enliven, everywhere, network_of

from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.incremental import Base, Choice, fastest, lists
from fc7.engine.attribution.occlusion.incremental.choice import seconds_of
from fc7.engine.attribution.occlusion.incremental.executor import Executor
from fc7.engine.attribution.occlusion.incremental.lists import ListExecutor, fused
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing import trace
from fc7.engine.models import Network, load_model

# name, weights, side of the images, window, stride
NETWORKS = (
    ("tiny-shapes", None, 64, 16, 12),
    ("alexnet", "random", 79, 20, 31),
    ("vgg11", "random", 33, 16, 17),
    ("resnet18", "random", 65, 16, 24),
    ("squeezenet1_1", "random", 63, 16, 23),
    ("googlenet", "random", 64, 16, 25),
)


def loaded(name: str, weights: str | None, side: int) -> Network:
    """Untrained networks hardly see what is covered, so theirs are drawn anew."""
    if weights is None:
        return load_model(name, device="cpu")
    network = load_model(name, weights, seed=1, device="cpu")
    enliven(network.model, (side, side))
    return network


def drawn(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def by_lists(occlusion: Occlusion) -> Occlusion:
    occlusion._sweep._choice = Choice(ListExecutor(occlusion.plan), {})
    return occlusion


@torch.inference_mode()
def changes(
    executor: Executor | ListExecutor, images: Tensor, fill: Tensor, bands: range
) -> list[Tensor]:
    return list(executor.run(Base(executor.plan, images), fill, bands))


@pytest.mark.parametrize(("name", "weights", "side", "window", "stride"), NETWORKS)
def test_networks(name: str, weights: str | None, side: int, window: int, stride: int) -> None:
    network, images = loaded(name, weights, side), drawn(2, side)
    truth = Truth.of(network)
    occlusion = Occlusion(network, window, stride, 0.1, "logit", (side, side))
    plan, bands = occlusion.plan, range(occlusion.plan.bands)
    # Every class at every place, as windows in bands find it: it rounds as often, elsewhere.
    fill = torch.tensor([0.3, 0.1, 0.7])
    expected = torch.cat(changes(Executor(plan), images, fill, bands), 1)
    found = torch.cat(changes(ListExecutor(plan), images, fill, bands), 1)
    assert found.shape == (2, plan.bands, plan.positions, plan.graph.output.channels)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 3e-5 * expected.abs().max()
    # One class at some places, as full inference in float64 finds it.
    places = corners_and(occlusion, 2, 1)
    by_lists(occlusion)
    compare(occlusion, truth, network, images, places, window, stride, 0.1).check(proves=100)


def test_half_precision() -> None:
    """As near to float32 as windows come, within a factor of two, and far from the effect."""
    images, fill = drawn(2, 64), torch.tensor([0.3, 0.1, 0.7])
    found = []
    for precision, kind in (("fp32", Executor), ("bf16", Executor), ("bf16", ListExecutor)):
        plan = Occlusion(load_model("tiny-shapes", precision=precision, device="cpu"), 16, 12).plan
        found.append(torch.cat(changes(kind(plan), images, fill, range(plan.bands)), 1))
    expected, windows, ours = found
    error = (ours - expected).abs().max()
    assert error <= 2 * (windows - expected).abs().max()
    assert error < 0.05 * expected.abs().max()


class Odd(nn.Module):
    """What the others lack: every kind of operation, and of sums of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=2, dilation=2)
        self.a, self.b, self.c = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.grouped = nn.Conv2d(6, 6, (1, 3), stride=(2, 1), groups=2)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.gate = nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(9, 8, 3, stride=2)
        self.first_head, self.second_head = nn.Linear(8 * 6, 5), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.relu(self.stem(images))
        x = nn.functional.relu(self.a(x) + self.b(x))  # two convolutions: one is fused
        y = self.c(x)
        x = torch.add(y, x, alpha=0.5)
        x = nn.functional.relu(x - self.b(x))  # a convolution alone, but less, not more
        y = self.a(x)
        x = y + y  # the same twice
        x = nn.functional.pad(x, (1, 2, 0, 1), value=0.3)
        x = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = nn.functional.hardswish(self.norm(self.grouped(x) - 0.1))
        x = nn.functional.avg_pool2d(self.depthwise(x), 2, 1, 1)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        x = torch.cat([x[:, 1:4], nn.functional.relu(x)], 1)
        x = self.last(x)
        flat = nn.functional.adaptive_avg_pool2d(x, (2, 3)).flatten(1)
        return self.first_head(flat) + self.second_head(x.mean((2, 3)))


def test_every_kind_of_operation() -> None:
    size, window, stride = (27, 31), 7, 9
    network = network_of(enliven(Odd(), size), size)
    truth = Truth.of(network)
    occlusion = by_lists(Occlusion(network, window, stride, 0.1, "logit", size))
    kinds = {type(op) for op in occlusion.plan.graph.ops}
    assert kinds >= {o.Binary, o.Pad, o.AvgPool, o.AdaptiveAvgPool, o.Cat, o.Channels, o.Pointwise}
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    places = everywhere(occlusion, 2)
    compare(occlusion, truth, network, images, places, window, stride, 0.1).check(proves=100)


def test_convolutions_take_what_follows_alone() -> None:
    graph = trace(network_of(enliven(Odd(), (27, 31)), (27, 31)).folded([]), (27, 31))
    steps = fused(graph)
    made = [step.op for step in steps]
    # Each reads only what was made before, and the last makes the logits.
    for number, step in enumerate(steps):
        assert set(step.inputs) <= {graph.input, *made[:number]}
    assert made[-1] is graph.output
    convolutions = {step.conv for step in steps} - {None}
    assert convolutions == {op for op in graph.ops if isinstance(op, o.Conv)}
    assert sum(step.adds for step in steps) == 1
    endings = [(step.adds, step.relu is not None) for step in steps if step.conv]
    assert endings.count((True, True)) == 1
    assert endings.count((False, True)) == 1  # the stem


def test_a_residual_network_is_convolutions() -> None:
    network = loaded("resnet18", "random", 64)
    steps = fused(trace(network.folded([]), (64, 64)))
    assert sum(step.conv is not None for step in steps) == 20
    assert sum(step.adds for step in steps) == 8
    assert sum(step.relu is not None for step in steps) == 17
    others = {type(step.op) for step in steps if not step.conv}
    assert others <= {o.Scale, o.MaxPool, o.Mean, o.Reshape, o.Linear}


@pytest.fixture(scope="module")
def plan_of_resnet() -> tuple[Occlusion, Tensor]:
    occlusion = Occlusion(loaded("resnet18", "random", 49), 9, 11, size=(49, 49))
    return occlusion, drawn(3, 49)


def test_in_parts(
    plan_of_resnet: tuple[Occlusion, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands go together as far as memory allows, and each finds the same alone."""
    plan, images = plan_of_resnet[0].plan, plan_of_resnet[1]
    assert plan.bands == 5
    executor, fill = ListExecutor(plan), torch.tensor([0.5, 0.1, 0.2])
    (whole,) = changes(executor, images, fill, range(5))
    largest = 0.0
    for allowed, lengths in (
        (1, [1, 1, 1, 1, 1]),
        (int(3 * executor.bytes_per_image * 0.99), [3, 2]),
        (3 * executor.bytes_per_image, [5]),
    ):
        monkeypatch.setattr(lists, "_BYTES_TOGETHER", allowed)
        found = changes(executor, images, fill, range(5))
        assert [part.shape[1] for part in found] == lengths
        largest = max(largest, float((torch.cat(found, 1) - whole).abs().max()))
    for bands in (range(5), range(2, 4), range(4, 5), range(3, 3)):
        found = changes(executor, images, fill, bands)
        assert sum(part.shape[1] for part in found) == len(bands)
        if len(bands):
            part = torch.cat(found, 1) - whole[:, bands.start : bands.stop]
            largest = max(largest, float(part.abs().max()))
    assert largest < 3e-5 * float(whole.abs().max())


def test_the_largest_layer_of_an_image(plan_of_resnet: tuple[Occlusion, Tensor]) -> None:
    plan = plan_of_resnet[0].plan
    executor = ListExecutor(plan)
    program = executor._program(range(plan.bands), torch.device("cpu"))
    pixels = len(program.pixels)
    assert pixels == plan.rows[plan.graph.input].total * plan.columns[plan.graph.input].total
    most = max(
        4 * op.channels * plan.rows[op].total * plan.columns[op].total for op in plan.graph.ops
    )
    assert executor.bytes_per_image == most


class Turned(nn.Module):
    """Ends in what has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv(images).flip(3).mean((2, 3)))


def test_what_runs_in_full_is_not_served() -> None:
    plan = Occlusion(network_of(Turned().eval(), (9, 9)), 3, 3, size=(9, 9)).plan
    assert not ListExecutor.serves(plan)
    with pytest.raises(ValueError, match="use Executor"):
        ListExecutor(plan)


def test_a_cpu_takes_windows(plan_of_resnet: tuple[Occlusion, Tensor]) -> None:
    plan, images = plan_of_resnet[0].plan, plan_of_resnet[1]
    taken = fastest(plan, Base(plan, images), torch.zeros(3))
    assert isinstance(taken.executor, Executor)
    assert taken.record == {
        "chosen": "windows",
        "reason": "lists are for a GPU, and the images are on cpu",
    }


def test_both_are_measured() -> None:
    plan = Occlusion(network_of(Odd().eval(), (15, 15)), 7, 8, size=(15, 15)).plan
    both = {"windows": Executor(plan), "lists": ListExecutor(plan)}
    seconds = seconds_of(both, Base(plan, drawn(1, 15)), torch.zeros(3))
    assert set(seconds) == set(both)
    assert min(seconds.values()) > 0


class TooLarge(ListExecutor):
    """What no memory holds."""

    def run(self, base: Base, fill: Tensor, bands: range) -> Iterator[Tensor]:
        raise torch.OutOfMemoryError


def test_what_the_memory_does_not_hold_is_not_taken() -> None:
    plan = Occlusion(network_of(Odd().eval(), (15, 15)), 7, 8, size=(15, 15)).plan
    base = Base(plan, drawn(1, 15))
    seconds = seconds_of({"windows": Executor(plan), "lists": TooLarge(plan)}, base, torch.zeros(3))
    assert seconds["lists"] is None
    assert seconds["windows"] > 0


def test_a_choice_is_made_once() -> None:
    occlusion = Occlusion(network_of(Odd().eval(), (15, 15)), 7, 8, size=(15, 15))
    assert occlusion.choice()["chosen"] == "windows"
    assert occlusion.choice() is occlusion.choice()


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "weights", "side", "window", "stride"), NETWORKS)
def test_on_a_gpu(
    name: str,
    weights: str | None,
    side: int,
    window: int,
    stride: int,
    set_conv_precision: Callable[[str], None],
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    set_conv_precision("ieee")
    images, fill = drawn(2, side), torch.tensor([0.3, 0.1, 0.7])
    network = loaded(name, weights, side)
    plan = Occlusion(network, window, stride, size=(side, side)).plan
    bands = range(plan.bands)
    expected = torch.cat(changes(Executor(plan), images, fill, bands), 1)
    there = Occlusion(network.to("cuda"), window, stride, size=(side, side)).plan
    executor = ListExecutor(there)
    found = torch.cat(changes(executor, images.cuda(), fill.cuda(), bands), 1).cpu()
    assert (found - expected).abs().max() < 3e-5 * expected.abs().max()
    # tf32 keeps 11 bits of each factor, of differences: a share of the effect is lost.
    set_conv_precision("tf32")
    found = torch.cat(changes(executor, images.cuda(), fill.cuda(), bands), 1).cpu()
    assert (found - expected).abs().max() < 2e-2 * expected.abs().max()


@pytest.mark.gpu
def test_a_gpu_takes_the_faster() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    plan = Occlusion(load_model("tiny-shapes", device="cuda"), 16, 16).plan
    taken = fastest(plan, Base(plan, drawn(2, 64).cuda()), torch.zeros(3, device="cuda"))
    seconds = taken.record["seconds"]
    assert taken.record["chosen"] == min(seconds, key=seconds.get)
    kind = {"windows": Executor, "lists": ListExecutor}[taken.record["chosen"]]
    assert isinstance(taken.executor, kind)
    assert taken.record["device"] == torch.cuda.get_device_name()
