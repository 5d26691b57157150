"""Every benchmark that the data at hand allows: `python -m fc7.bench --images FOLDER`.

Results go to `bench/results/`, one JSON file a benchmark; `python -m fc7.bench.table` puts them
into the README.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fc7.bench import peers


@dataclass(frozen=True)
class Benchmark:
    """One benchmark as a command.

    Attributes:
        name: as `--only` takes it.
        command: after the interpreter.
        without: what is missing for it here; empty where it can run.
    """

    name: str
    command: Sequence[str]
    without: str = ""


def plan(images: Path | None, cifar: str | None, rounds: int | None) -> list[Benchmark]:
    """Return every benchmark, with the reason for each that cannot run."""
    turns = ("--rounds", str(rounds)) if rounds else ()
    no_cifar = "" if cifar else "it needs --cifar GLOB, CIFAR-10's training images as Parquet files"
    no_captum = "" if _has("captum") else "it needs captum: pip install captum"
    no_foolbox = "" if _has("foolbox") else "it needs foolbox: pip install foolbox"
    no_images = "" if images else "it needs --images FOLDER, a flat folder of JPEGs"
    no_opencv = "" if _has("cv2") else "it needs OpenCV: pip install fc7[segment]"
    without_faiss = "" if _has("faiss") else "it needs faiss: pip install fc7[cpu]"
    return [
        Benchmark("startup", ("-m", "fc7.bench.startup")),
        Benchmark(
            "extract",
            ("-m", "fc7.bench.extract", "--images", str(images), *turns),
            no_images,
        ),
        Benchmark(
            "memory",
            ("-m", "fc7.bench.memory", *(("--cifar", cifar) if cifar else ())),
        ),
        Benchmark("indexing", ("-m", "fc7.bench.indexing"), without_faiss),
        Benchmark("umap_cold", ("-m", "fc7.bench.umap_cold")),
        Benchmark("agreement", ("-m", "fc7.bench.agreement", "--cifar", str(cifar)), no_cifar),
        Benchmark("kernels", ("-m", "fc7.bench.kernels", *turns)),
        Benchmark("occlusion", ("-m", "fc7.bench.occlusion"), no_captum),
        Benchmark("attribution", ("-m", "fc7.bench.attribution"), no_captum),
        Benchmark("attribution_quality", ("-m", "fc7.bench.attribution_quality")),
        Benchmark("fool", ("-m", "fc7.bench.fool"), no_foolbox),
        Benchmark("facets", ("-m", "fc7.bench.facets")),
        Benchmark("lbfgs", ("-m", "fc7.bench.lbfgs")),
        Benchmark("inversion", ("-m", "fc7.bench.inversion", "--cifar", str(cifar)), no_cifar),
        Benchmark(
            "synthesis", ("-m", "fc7.bench.synthesis", *(("--cifar", cifar) if cifar else ()))
        ),
        Benchmark("style_tiles", ("-m", "fc7.bench.style_tiles")),
        Benchmark("texture", ("-m", "fc7.bench.texture")),
        Benchmark("style", ("-m", "fc7.bench.style", *turns)),
        Benchmark("stylize", ("-m", "fc7.bench.stylize", *(("--cifar", cifar) if cifar else ()))),
        Benchmark("segmentation", ("-m", "fc7.bench.segmentation"), no_opencv),
        Benchmark(
            "pruning",
            ("-m", "fc7.bench.pruning", *(("--cifar", cifar) if cifar else ())),
            "" if _has("torch_pruning") else "it needs torch-pruning: pip install torch-pruning",
        ),
    ]


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def main(argv: list[str] | None = None) -> int:
    """Run them one after another; return 1 when any failed."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench", description=__doc__)
    parser.add_argument("--images", type=Path, help="a flat folder of JPEGs, such as ImageNet's")
    parser.add_argument("--cifar", metavar="GLOB", help="CIFAR-10 as Parquet files")
    parser.add_argument("--rounds", type=int, help="turns that the contestants take")
    parser.add_argument("--only", metavar="NAME", help="one benchmark alone")
    arguments = parser.parse_args(argv)
    every = plan(arguments.images, arguments.cifar, arguments.rounds)
    chosen = [one for one in every if arguments.only in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in every)
        parser.error(f"no benchmark {arguments.only!r}; there are {names}")
    failed, left_out = [], [one for one in chosen if one.without]
    for one in chosen:
        if one.without:
            continue
        print(f"== {one.name}", flush=True)
        if subprocess.run([sys.executable, *one.command]).returncode:
            failed.append(one.name)
    print("==")
    for one in left_out:
        print(f"went without {one.name}: {one.without}")
    if "extract" in {one.name for one in chosen} and not peers.thingsvision_python():
        print("extract went without thingsvision: python -m fc7.bench.peers makes its environment")
    if not os.environ.get("CUDA_VISIBLE_DEVICES") and not Path("/dev/nvidiactl").exists():
        print("nothing was measured on a GPU: there is none")
    for name in failed:
        print(f"{name} FAILED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
