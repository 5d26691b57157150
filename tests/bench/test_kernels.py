"""The kernels' benchmark refuses wrong kernels, and puts what it measures into JSON and README."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fc7.bench import kernel_cases as registry
from fc7.bench import kernel_peers as peers
from fc7.bench import kernels, record, table
from fc7.bench.__main__ import plan
from fc7.bench.kernel_cases import Case
from fc7.bench.kernel_checks import WrongAnswerError, error, poisoned, require_within_twice
from fc7.bench.kernel_report import kernel_rows
from fc7.bench.kernels import Drawn, check, measure_kernels, result_name, row, select
from fc7.bench.roofline import Roofline, Work

CPU = torch.device("cpu")


def tiny() -> dict[str, Case]:
    """One small case of each kernel, without the peer that takes seconds to compile."""
    every = [
        registry.gram_case((3, 5, 7, 6), "fp32", "nhwc"),
        registry.gram_loss_case((3, 5, 7, 6), "fp32"),
        next(registry.guided_relu_cases(2**18, "fp32")),
        registry.occlude_case(20, 6, 4, "bf16", "nhwc"),
        registry.spatial_max_case((2, 33, 40, 40), "fp32", "nchw"),
        registry.merge_topk_case(12, 3, 20),
    ]
    plain = {}
    for case in every:
        others = {who: bind for who, bind in case.peers.items() if who != registry.COMPILED}
        saved = {who: count for who, count in case.saved.items() if who in ("fc7", *others)}
        plain[case.kernel] = replace(case, peers=others, saved=saved, quick=True)
    return plain


def drawn(case: Case, seed: int = 0) -> Any:
    return case.draw(torch.Generator().manual_seed(seed))


def instead(function: Callable[..., Any]) -> registry.Bind:
    return lambda *inputs: lambda: function(*inputs)


def one_element_off(features: Tensor) -> Tensor:
    gram = peers.bmm(features)
    gram = (gram + gram.mT) / 2
    gram[-1, -1, -1] += 1e-3
    return gram


def asymmetric(features: Tensor) -> Tensor:
    gram = peers.bmm(features)
    gram[0, 0, 1] = torch.nextafter(gram[0, 1, 0], torch.tensor(9.0))
    return gram


def unscaled_gradient(features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    losses, gradient = peers.value_and_gradient(peers.bmm_loss, features, target)
    return losses, 2 * gradient


def passing_at_zero(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return x.clamp_min(0), torch.where(x >= 0, gradient.clamp_min(0), 0)


def last_place(activations: Tensor) -> tuple[Tensor, Tensor]:
    values, from_behind = activations.flatten(2).flip(2).max(2)
    return values, (activations[0, 0].numel() - 1 - from_behind).int()


def one_row_more(images: Tensor, boxes: Tensor, fill: float) -> Tensor:
    return peers.where_last(images, boxes + torch.tensor([0, 0, 1, 0], dtype=boxes.dtype), fill)


def larger_ids_first(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    values, ids, new_values, new_ids = inputs
    found, negative = peers.cat_two_sorts(values, -ids, new_values, -new_ids)
    return found, -negative


WRONG = {
    "gram": [one_element_off, asymmetric, lambda f: peers.bmm(f)[:, :, :-1]],
    "gram_loss": [unscaled_gradient, lambda f, t: (torch.empty(3), torch.empty_like(f))],
    "guided_relu": [passing_at_zero, lambda x, g: (x.clamp_min(0), torch.where(x > 0, g, 0))],
    "occlude": [one_row_more, lambda *inputs: peers.where(*inputs).contiguous()],
    "spatial_max": [last_place, lambda a: (a.amax((2, 3)), torch.zeros(a.shape[:2]).int())],
    "merge_topk": [larger_ids_first, lambda v, i, *_: (v, i)],
}


@pytest.mark.parametrize("kernel", registry.KERNELS)
def test_our_kernels_pass_their_checks(kernel: str) -> None:
    case = tiny()[kernel]
    for seed in range(3):
        assert 0 <= check(case, drawn(case, seed), seed) < 1e-5


@pytest.mark.parametrize(
    ("kernel", "wrong"),
    [
        pytest.param(kernel, wrong, id=f"{kernel}-{number}")
        for kernel, ways in WRONG.items()
        for number, wrong in enumerate(ways)
    ],
)
def test_a_wrong_kernel_does_not_pass(kernel: str, wrong: Callable[..., Any]) -> None:
    case = replace(tiny()[kernel], ours=instead(wrong))
    with pytest.raises(WrongAnswerError):
        check(case, drawn(case), 0)


@pytest.mark.parametrize("kernel", registry.KERNELS)
def test_a_kernel_that_writes_nothing_does_not_pass(kernel: str) -> None:
    case = tiny()[kernel]

    def unwritten(*inputs: Any) -> Any:
        answer = case.ours(*inputs)()
        if isinstance(answer, tuple):
            return tuple(torch.empty_like(tensor) for tensor in answer)
        return torch.empty_like(answer)

    with pytest.raises(WrongAnswerError):
        check(replace(case, ours=instead(unwritten)), drawn(case), 0)


def test_memory_is_poisoned_only_within() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty(2, dtype=torch.int32).tolist() == [2**31 - 1] * 2
    assert torch.are_deterministic_algorithms_enabled() == before


def test_a_nan_is_an_error_however_wrong_the_peer_is() -> None:
    reference = torch.tensor([1.0, 2.0])
    assert error(torch.tensor([1.0, 1.5]), reference) == 0.25
    with pytest.raises(WrongAnswerError, match="nan"):
        require_within_twice(torch.tensor([1.0, torch.nan]), torch.zeros(2), reference, "it")
    with pytest.raises(WrongAnswerError, match=r"error 0\.25, but torch's own allows"):
        require_within_twice(torch.tensor([1.0, 1.5]), torch.tensor([1.0, 1.8]), reference, "it")


def test_nothing_is_reported_of_a_kernel_with_one_red_case() -> None:
    case = tiny()["gram"]
    wrong = replace(case, name="gram-wrong", ours=instead(one_element_off))
    strongest = tiny()["spatial_max"]
    found = measure_kernels(CPU, quick=True, rounds=1, chosen=[case, wrong, strongest])
    assert not found["passed"]
    assert list(found["kernels"]["gram"]) == ["red"]
    assert "allows" in found["kernels"]["gram"]["red"]["gram-wrong"]
    assert found["kernels"]["spatial_max"]["cases"][strongest.name]["ms"] > 0
    kernels.show(found)


def test_a_red_run_ends_with_1_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    wrong = replace(tiny()["occlude"], ours=instead(one_row_more))
    monkeypatch.setattr(kernels, "cases", lambda device: [wrong])
    assert kernels.main(["--device", "cpu", "--rounds", "1"]) == 1
    assert "occlude is RED" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_green_run_writes_json_that_the_readme_can_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(kernels, "cases", lambda device: list(tiny().values()))
    roofline = Roofline(1e10, {"fp32": 1e11})
    monkeypatch.setattr(kernels, "measure_roofline", lambda *arguments: roofline)
    assert kernels.main(["--device", "cpu", "--rounds", "2"]) == 0
    facts = json.loads((tmp_path / "kernels.json").read_text())
    assert facts["command"] == "python -m fc7.bench.kernels --rounds 2"
    assert {"torch", "python"} <= set(facts["versions"])
    results = facts["results"]
    assert list(results["kernels"]) == list(registry.KERNELS)
    assert results["threads"] == 2
    for kernel in results["kernels"].values():
        for case in kernel["cases"].values():
            assert case["ms"] == pytest.approx(case["floor_ms"] / case["share_of_floor"])
            assert case["gb_per_s"] == pytest.approx(case["bytes"] / case["ms"] / 1e6)
            assert case["peers"]
            assert case["rounds"] == 2
    text = table.table(tmp_path)
    for kernel in registry.KERNELS:
        assert f"`{kernel}`" in text
    # A part of the cases would put holes into the record.
    (tmp_path / "kernels.json").unlink()
    assert kernels.main(["--device", "cpu", "--rounds", "1", "--only", "merge_topk"]) == 0
    assert not list(tmp_path.iterdir())


def test_a_peer_that_cannot_run_is_left_out_with_the_reason() -> None:
    def fails(*inputs: Any) -> Callable[[], Any]:
        raise RuntimeError("no C++ compiler\nand more")

    case = tiny()["spatial_max"]
    case = replace(case, peers={**case.peers, "torch.compile": fails})
    found = measure_kernels(CPU, quick=True, rounds=1, chosen=[case])
    facts = found["kernels"]["spatial_max"]["cases"][case.name]
    assert found["passed"]
    assert facts["without"] == {"torch.compile": "RuntimeError: no C++ compiler"}
    assert list(facts["peers"]) == ["flatten(2).max(2)"]


def test_no_case_is_begun_after_the_limit() -> None:
    chosen = list(tiny().values())
    found = measure_kernels(CPU, quick=True, rounds=1, limit_seconds=0.0, chosen=chosen)
    assert found["left_out"] == [case.name for case in chosen]
    assert found["kernels"] == {}


def test_a_row_is_arithmetic() -> None:
    case = replace(
        tiny()["guided_relu"],
        work=Work(bytes=8 * 10**6, operations=10**6),
        bars={"clamp": 1.75},
        floor_bar=0.4,
        saved_bar=0.25,
    )
    seconds = {"fc7": [0.004, 0.002, 0.003], "clamp": [0.004, 0.004, 0.006]}
    roofline = Roofline(8e9, {"fp32": 1e12})
    found = row(case, roofline, seconds, {"fc7": {}, "clamp": {}}, {"fc7": 3, "clamp": 10})
    assert found["ms"] == pytest.approx(3)
    assert found["iqr_ms"] == pytest.approx(1)
    assert found["floor_ms"] == pytest.approx(1)
    assert found["share_of_floor"] == pytest.approx(1 / 3)
    assert not found["floor_met"]
    assert found["gb_per_s"] == pytest.approx(8 / 3)
    assert found["tflop_per_s"] == pytest.approx(1 / 3000)
    # Round by round 1, 2 and 2 times; the medians alone would say 4 / 3.
    assert found["peers"]["clamp"]["ratio"] == pytest.approx(2)
    assert found["peers"]["clamp"]["met"]
    assert found["saved_share"] == pytest.approx(0.3)
    assert not found["saved_met"]


def test_every_set_of_inputs_is_another() -> None:
    case = tiny()["gram"]
    one, other = Drawn(CPU, 1).sets(case)[:2]
    assert not torch.equal(one[0], other[0])
    again = Drawn(CPU, 1)
    assert torch.equal(again.sets(case)[0][0], one[0])
    assert again.sets(case) is again.sets(case)
    assert not torch.equal(Drawn(CPU).sets(case)[0][0], one[0])


def test_the_cases_are_those_that_were_asked_for() -> None:
    on_cpu = list(registry.cases(CPU))
    names = [case.name for case in on_cpu]
    assert len(set(names)) == len(names)
    for channels, side in ((64, 224), (128, 112), (256, 56), (512, 28)):
        for n in (1, 8, 32):
            (case,) = select(on_cpu, f"gram-{channels}x{side}-n{n}-fp32-nchw", False)
            assert case.bars["torch.bmm"] == (1.2 if (channels, n) == (512, 8) else 1.0)
    for case in select(on_cpu, "guided_relu", False):
        assert case.bars == ({"clamp": 0.7} if "-both-" in case.name else {})
        assert case.saved_bar == (0.25 if "-both-" in case.name else None)
    assert all(
        case.bars["flatten(2).max(2)"] == 1.0 for case in select(on_cpu, "spatial_max", False)
    )
    assert {case.kernel for case in select(on_cpu, None, True)} == set(registry.KERNELS)
    assert {case.kernel for case in select(on_cpu, "gram", False)} == {"gram"}
    with pytest.raises(ValueError, match="no case 'convolve'; kernels are gram, gram_loss"):
        select(on_cpu, "convolve", False)
    on_gpu = list(registry.cases(torch.device("cuda")))
    assert len({case.name for case in on_gpu}) == len(on_gpu)
    by_name = {case.name: case for case in on_gpu}
    assert by_name["gram-128x112-n1-tf32-nhwc"].bars == {"torch.bmm": 1.5}
    assert by_name["gram-512x28-n1-bf16-nchw"].bars == {}
    assert by_name["gram-256x56-n32-bf16-nchw"].bars == {"torch.bmm": 1.05}
    assert by_name["gram-256x56-n32-bf16-nchw"].floor_bar == 0.6
    assert by_name["gram-512x28-n8-tf32-nchw"].bars == {"torch.bmm": 1.15}
    relu = by_name["guided_relu-guided-backward-1024MiB-bf16"]
    assert relu.bars == {"clamp": 2.2, "torch.compile": 1.12}
    assert by_name["guided_relu-guided-both-1024MiB-bf16"].saved_bar == 1 / 16
    assert by_name["spatial_max-64x256-n128-bf16-nchw"].floor_bar == 0.75
    assert 4.0 in by_name["occlude-729x3x224-bf16-nchw"].bars.values()


def facts_of(ratios: dict[str, float], bar: float | None = None, **more: Any) -> dict[str, Any]:
    found = {}
    for peer, ratio in ratios.items():
        found[peer] = {"ratio": ratio} | ({"bar": bar, "met": ratio >= bar} if bar else {})
    return {"precision": "fp32", "peers": found, **more}


def test_the_readme_shows_the_worst_case_of_each_kernel() -> None:
    results = {
        "device": "cpu",
        "kernels": {
            "gram": {
                "cases": {
                    "gram-64x224-n1-fp32-nchw": facts_of({"torch.bmm": 1.1}, 1.0),
                    "gram-512x28-n8-fp32-nchw": facts_of({"torch.bmm": 1.15}, 1.2),
                }
            },
            "guided_relu": {
                "cases": {
                    "guided_relu-guided-both-16MiB-fp32": facts_of(
                        {"clamp": 0.9}, 0.7, saved_share=0.25, saved_bar=0.25
                    ),
                    "guided_relu-guided-both-1024MiB-fp32": facts_of(
                        {"clamp": 0.8}, 0.7, saved_share=0.03125, saved_bar=0.25
                    ),
                }
            },
            "spatial_max": {"red": {"spatial_max-a": "it was wrong"}},
        },
    }
    assert kernel_rows(results) == [
        # 1.15 of a bar of 1.2 is worse than 1.1 of a bar of 1.0
        ("`gram`, to torch.bmm (worst of 2 cases: 512x28-n8-fp32-nchw)", "1.15 x", "1.2 x"),
        ("`gram`, 512 x 28 x 28, batch 8, fp32, to torch.bmm", "1.15 x", "1.2 x"),
        (
            "`guided_relu`, forward + backward, to clamp + threshold_backward"
            " (worst of 2 cases: guided-both-1024MiB-fp32)",
            "0.80 x",
            "0.7 x",
        ),
        (
            "`guided_relu`, fp32, bytes saved for the backward pass, to activations",
            "0.25 x",
            "0.25 x at most",
        ),
    ]


def test_a_gpus_results_stand_beside_a_cpus(tmp_path: Path) -> None:
    def on_gpu(found: dict[str, Any]) -> dict[str, Any]:
        slow = {"end_to_end": 900.0, "share_of_the_slower": 0.9}
        fast = {"end_to_end": 1000.0, "share_of_the_slower": 0.8}
        precisions = {
            "bf16": {"batches": {"32": slow, "64": fast}},
            "fp32": {"red": "it drifts", "batches": {"32": slow}},
        }
        return {
            "kernels": found,
            "device": {"name": "NVIDIA H200"},
            "extraction": {"photographs": {"count": 9}, "alexnet": {"precisions": precisions}},
        }

    def write(name: str, device: str, ratio: float) -> None:
        cases = {"merge_topk-a": facts_of({"cat + two stable sorts": ratio})}
        results = {"device": device, "kernels": {"merge_topk": {"cases": cases}}}
        facts = {
            "command": "python -m fc7.bench.kernels",
            "machine": {"cpu": "a CPU", "cores": 2, "gpu": None if device == "cpu" else device},
            "versions": {"torch": "2.11.0"},
            "results": results if name.startswith("kernels") else on_gpu(results),
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(facts))

    write("kernels-nvidia-h200", "NVIDIA H200", 9.0)
    write("on_gpu-nvidia-h200", "NVIDIA H200", 8.0)
    write("kernels", "cpu", 2.0)
    text = table.table(tmp_path)
    lines = [line for line in text.split("\n") if "merge_topk" in line]
    assert lines == [
        "| `merge_topk`, to cat + two stable sorts | 2.00 x |  | `kernels` |",
        "| `merge_topk`, to cat + two stable sorts, NVIDIA H200 | 9.00 x |  | `kernels` |",
        "| `merge_topk`, to cat + two stable sorts, NVIDIA H200 | 8.00 x |  | `on_gpu` |",
    ]
    assert (
        "| alexnet from JPEGs, bf16, to the slower of decoding and forward pass, NVIDIA H200 "
        "| 80% (1000 images/s) |  | `on_gpu` |"
    ) in text
    assert "fp32" not in text
    assert "a CPU, 2 cores, NVIDIA H200, torch 2.11.0" in text
    assert text.count("python -m fc7.bench.kernels") == 1


def test_the_file_is_named_after_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert result_name(CPU) == "kernels"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB (PCIe)")
    assert result_name(torch.device("cuda")) == "kernels-nvidia-h100-80gb-pcie"


def test_the_kernels_are_among_all_benchmarks_and_none_is_listed_twice() -> None:
    names = [one.name for one in plan(None, None, None)]
    assert "kernels" in names
    assert len(set(names)) == len(names)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernel", registry.KERNELS)
def test_a_tiny_case_is_measured_on_a_gpu(kernel: str) -> None:
    device = torch.device("cuda")
    found = measure_kernels(device, quick=True, rounds=2, chosen=[tiny()[kernel]])
    assert found["passed"], found
    (case,) = found["kernels"][kernel]["cases"].values()
    assert case["ms"] > 0
    assert case["eager_ms"] > 0
