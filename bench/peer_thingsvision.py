"""The peer in the literature: thingsvision 2.7.3 with its own data set, loader and loop.

Muttenthaler and Hebart, "THINGSvision: a Python toolbox for streamlining the extraction of
activations from deep neural networks", Frontiers in Neuroinformatics 15 (2021). Used as its
documentation says, in the environment that `fc7.bench.peers` makes:

    .peers/thingsvision/bin/python bench/peer_thingsvision.py FOLDER WEIGHTS OUT [--batch 32]

OUT/classifier.4/features_*.npy hold fc7 of AlexNet in float32, rows in the order of the sorted
file names; it writes OUT/file_names.txt too.
"""

import argparse

from thingsvision import get_extractor  # type: ignore[import-not-found]
from thingsvision.utils.data import DataLoader, ImageDataset  # type: ignore[import-not-found]


def main() -> None:
    """Extract as the package's documentation shows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("weights")
    parser.add_argument("out")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()

    extractor = get_extractor(
        model_name="alexnet",
        source="torchvision",
        device="cpu",
        pretrained=False,
        model_path=arguments.weights,
    )
    dataset = ImageDataset(
        root=arguments.folder,
        out_path=arguments.out,
        backend=extractor.get_backend(),
        transforms=extractor.get_transformations(),
    )
    batches = DataLoader(
        dataset=dataset, batch_size=arguments.batch, backend=extractor.get_backend()
    )
    extractor.extract_features(
        batches=batches,
        module_name="classifier.4",
        flatten_acts=False,
        output_type="ndarray",
        output_dir=arguments.out,
    )


if __name__ == "__main__":
    main()
