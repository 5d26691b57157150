"""How well images are found again behind each layer of `tiny-cifar10`, and how much of them.

    python -m fc7.bench.inversion --cifar 'cifar10/*.parquet'

Three measures of one distance between features are recorded: as a share of the features' length;
its square, which is the first term of what is minimised; and as a share of the mean distance
between two images' features, as Mahendran and Vedaldi (2015) report it. Pixel errors are shares of
the image's distance to the mean colour.
"""

import argparse
import shlex
import sys
import time

import torch

from fc7.bench.record import record, recorded_cases
from fc7.engine.data import open_source
from fc7.engine.models import load_model
from fc7.engine.synthesis.invert import InvertOptions, invert_images

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
MOST_ERROR = 0.03
_OTHERS, _STRIDE = 100, 401


def main() -> int:
    """Measure and record, a layer at a time; return 1 where a layer's error is above the bar."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.inversion", description=__doc__)
    parser.add_argument("--cifar", required=True, help="CIFAR-10's Parquet files")
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=InvertOptions.evaluations)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, source = load_model("tiny-cifar10", device="cpu"), open_source(arguments.cifar)
    rows = range(0, _OTHERS * _STRIDE, _STRIDE)
    everything = torch.stack(
        [network.transform(source.decode(source.read(row % len(source)))) for row in rows]
    )
    everything = everything.float() / 255
    images = everything[: arguments.images]
    options = InvertOptions(
        evaluations=arguments.evaluations, starts=arguments.starts, batch_rows=arguments.images
    )
    setting = {
        "images": arguments.images,
        "variation": options.variation,
        "colours": options.colours,
    }
    # All layers, for each may have been measured by a process of its own.
    command = ["python", "-m", "fc7.bench.inversion", "--cifar", arguments.cifar]
    for name in ("images", "starts", "evaluations"):
        command += [f"--{name}", str(getattr(arguments, name))]
    above = []
    for layer in arguments.layers.split(","):
        begun = time.process_time()
        found = invert_images(network, images, layer, options)
        seconds = time.process_time() - begun
        with torch.inference_mode():
            features = network.activations(everything, [layer])[layer].flatten(1)
        between = torch.pdist(features).mean()
        of_paper = found.errors * features[: len(images)].norm(dim=1) / between
        case = {
            "starts": arguments.starts,
            "evaluations": arguments.evaluations,
            "error": round(float(found.errors.mean()), 4),
            "error_median": round(float(found.errors.median()), 4),
            "error_largest": round(float(found.errors.max()), 4),
            "squared_error": round(float(found.errors.square().mean()), 5),
            "error_of_distance_between_images": round(float(of_paper.mean()), 4),
            "pixel_error": round(float(found.pixel_errors.mean()), 4),
            "cpu_seconds_per_image": round(seconds / len(images), 2),
        }
        print(layer, case, flush=True)
        results = {**recorded_cases("inversion"), **setting}  # another process may do other layers
        results["cases"][layer] = case
        results["cases"] = {
            name: results["cases"][name] for name in LAYERS if name in results["cases"]
        }
        record("inversion", results, shlex.join(command))
        if case["error"] > MOST_ERROR:
            above.append(layer)
    if above:
        print(f"above {MOST_ERROR:.0%}: {', '.join(above)}")
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
