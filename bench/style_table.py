"""The README's rows of styles and textures."""

from collections.abc import Mapping
from typing import Any

from fc7.bench.synthesis_table import Results, Row


def style_tiles_rows(results: Results) -> list[Row]:
    """Return the rows of pictures that are painted tile by tile."""
    height, width = results["size"]
    what = f"style, {results['model']}, one picture of {width} x {height}, L-BFGS"
    return [
        (
            f"{what}: peak memory",
            f"{results['peak_bytes'] / 2**30:.1f} GiB ({results['tiles']})",
            f"{results['bar'] / 2**30:.0f} GiB",
        ),
        (
            f"style, {results['model']}: gradient in tiles to the whole image's, float64",
            f"{results['gradients_apart']['float64']:.0e} of the largest",
            "1e-06",
        ),
    ]


def style_rows(results: Results) -> list[Row]:
    """Return the rows of style transfer: where it ends beside torch's, and what eight cost."""
    rows, bars = [], results["bars"]
    for name, facts in results["cases"].items():
        what = f"style transfer, {name}, {results['side']} pixels"
        loss, quick = next(iter(facts["of_torchs_better"].values())), facts["speed"]
        ours = quick["seconds_an_evaluation"]["together"]
        rows += [
            (
                f"{what}, loss after {results['evaluations']} evaluations, to torch's L-BFGS",
                f"{loss:.3f} x",
                f"{bars['loss']:g} x at most",
            ),
            (
                f"{what}, CPU-seconds of eight at once, to one by one",
                f"{quick['ratio']:.2f} x ({ours:.3f} CPU-s an evaluation)",
                f"{bars['cpu_seconds']:g} x at most",
            ),
        ]
    return rows


def stylize_rows(results: Results) -> list[Row]:
    """Return the rows of fast style: normalisations compared, and one pass to a descent."""
    norms, one = results["norms"], results["one_pass"]
    pairs = [
        (seed["instance"]["unseen"], seed["batch"]["unseen"]) for seed in norms["seeds"].values()
    ]
    lower = sum(instance < batch for instance, batch in pairs)
    instance, batch = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    what = f"fast style, unseen images after {norms['steps']} steps"
    whole = f"fast style, one pass of a network of {one['steps']} steps"
    to = f"to {one['evaluations']} evaluations of a descent"
    return [
        (
            f"{what}: seeds in which instance normalisation has the lower loss than batch",
            f"{lower} of {len(pairs)} (mean {instance:.3f} and {batch:.3f})",
            f"{len(pairs)} of {len(pairs)}",
        ),
        (f"{whole}, {to}: loss of unseen images", f"{one['loss_ratio']:.2f} x", "3 x at most"),
        (
            f"{whole}, {to}: CPU-seconds an image",
            f"{one['speed_ratio']:.0f} x ({one['network_cpu_seconds']:.4f} CPU-s an image)",
            "100 x",
        ),
    ]


def texture_rows(results: Results) -> list[Row]:
    """Return the rows of textures: what is left of the noise's loss, by network."""
    rows = []
    alike: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for case in results["cases"].values():
        alike.setdefault((case["model"], case["side"], case["evaluations"]), []).append(case)
    for (network, side, evaluations), cases in alike.items():
        what = f"textures by {network}, {len(cases)} patches of {side} pixels to {2 * side}"
        what += f", {evaluations} evaluations an octave"
        left = max(case["left"] for case in cases)
        rows.append((f"{what}, Gram loss to the noise's, the worst", f"{left:.1e}", "1e-3 at most"))
        if tiles := [case for case in cases if "left_tileable" in case]:
            left = max(case["left_tileable"] for case in tiles)
            seam = max(case["seam_tileable"] for case in tiles)
            rows += [
                (f"{what}: likewise of tiles", f"{left:.1e}", ""),
                (f"{what}: seam of tiles to inside, the worst", f"{seam:.2f} x", ""),
            ]
    return rows
