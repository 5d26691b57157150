"""How fast a GPU makes exact occlusion maps, beside full inference by hand in batches.

VGG16, ten images of 224 pixels, window 16, stride 8, in fp32 with and without TF32 and in bf16,
both sides in the same precision. Full inference covers a sample of the places of one image, for
each place costs it the same, with BatchNorm folded and its memory channels last, in the fastest of
three batches. Nothing is reported of a precision unless ours agrees with it.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fc7.bench.occlusion_contestants import Box, drops_by_hand, exact_drops
from fc7.bench.timing import wall_clock
from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.grid import places
from fc7.engine.models import Network, load_model

BAR = 3.0
"""Times as fast as full inference, at equal precision."""
# The largest difference to full inference in float64, as a share of the largest effect, beside
# which full inference in the same precision may be off by as much.
_ALLOWED = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 5e-2}
_BATCHES = (64, 128, 256)
_SAMPLE = 512  # places
_CHECKED = 24
_ROUNDS = 3
Save = Callable[[dict[str, Any]], None]


def occlusion(device: str, quick: bool, seconds: float, save: Save) -> dict[str, Any]:
    """Measure every precision that there is time for.

    Args:
        device: as torch names it.
        quick: a tiny case that proves the script and measures nothing.
        seconds: to end within, more or less.
        save: called with the results so far.
    """
    end = time.monotonic() + seconds
    model, images = ("alexnet", 2) if quick else ("vgg16", 10)
    stride = 64 if quick else 8
    found: dict[str, Any] = {
        "case": f"{model}-224-16/{stride}, {images} images",
        "bar": BAR,
        "precisions": {},
        "shortened": [],
    }
    longest = 0.0
    for precision in ("fp32",) if quick else _ALLOWED:
        if time.monotonic() + 1.2 * longest > end:
            found["shortened"].append(f"occlusion in {precision}")
            continue
        began = time.monotonic()
        print(f"{found['case']}, {precision}", flush=True)
        found["precisions"][precision] = _measure(model, images, stride, precision, device, quick)
        longest = max(longest, time.monotonic() - began)
        save(found)
    return found


def _measure(
    model: str, images: int, stride: int, precision: str, device: str, quick: bool
) -> dict[str, Any]:
    use_fp32("tf32" if precision == "tf32" else "ieee")
    kind: Any = "bf16" if precision == "bf16" else "fp32"
    network = load_model(model, "random", seed=0, device=device, precision=kind).folded([])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, 224, 224, generator=generator).to(device)
    maker = Occlusion(network, 16, stride, score="logit", size=(224, 224))
    maker.images_together = images
    targets = [0] * images
    if maker.unknown:
        return {"red": f"the network runs in full from {maker.unknown}"}
    drops = maker.maps(pixels, targets).drops  # compiles, and measures which executor to take
    image, boxes = pixels[:1], list(places((224, 224), 16, stride))
    found: dict[str, Any] = {
        "executor": maker.choice(),
        "check": _check(network, image, boxes, drops[0].flatten(), model),
    }
    check = found["check"]
    if not check["error"] <= max(2 * check["full_error"], _ALLOWED[precision]):
        return found | {"red": f"off by {check['error']:.1e} of the effect: {check}"}
    batches = (4,) if quick else _BATCHES
    some = boxes[: 8 if quick else _SAMPLE]

    def by_hand(size: int) -> float:
        return _seconds(lambda: drops_by_hand(network, image, some, size), device)

    by_hand(batches[0])  # not counted: cuDNN loads
    batch = min(batches, key=by_hand)
    taken: dict[str, list[float]] = {"fc7": [], "hand": []}
    for _ in range(1 if quick else _ROUNDS):
        taken["fc7"].append(_seconds(lambda: maker.maps(pixels, targets), device) / images)
        taken["hand"].append(by_hand(batch) * len(boxes) / len(some))
    medians = {who: statistics.median(each) for who, each in taken.items()}
    on_gpu = torch.device(device).type == "cuda"
    return found | {
        "hand_batch": batch,
        "rounds": taken,
        "seconds_a_map": medians,
        "ratio": medians["hand"] / medians["fc7"],
        "planned": maker.plan.full_multiply_adds / maker.plan.multiply_adds,
        "peak_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
    }


def _check(
    network: Network, image: Tensor, boxes: Sequence[Box], drops: Tensor, model: str
) -> dict[str, float]:
    """Return our largest error and full inference's, as shares of the largest effect."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(len(boxes), (_CHECKED,), generator=generator).tolist()
    some = [boxes[number] for number in chosen]
    on_cpu = load_model(model, "random", seed=0, device="cpu").folded([])
    exact = exact_drops(on_cpu, image.cpu(), some)
    largest = float(exact.abs().max())
    mine = drops[chosen].cpu().double()
    full = drops_by_hand(network, image, some, 8).cpu().double()
    return {
        "error": float((mine - exact).abs().max()) / largest,
        "full_error": float((full - exact).abs().max()) / largest,
    }


def use_fp32(allowed: str) -> None:
    """Let products of fp32 be "ieee", or "tf32"."""
    backends: Any = torch.backends  # torch's stubs lack these
    for each in (backends.cudnn.conv, backends.cuda.matmul):
        each.fp32_precision = allowed


def _seconds(call: Callable[[], Any], device: str) -> float:
    start = wall_clock(device)
    call()
    return wall_clock(device) - start
