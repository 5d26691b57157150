"""The peer everybody writes: DataLoader, PIL, torchvision's transforms, a forward hook, np.save.

A script of its own that imports nothing of fc7, so that its process costs what it costs:

    python bench/peer_dataloader.py FOLDER WEIGHTS OUT.npy [--workers 2] [--batch 32]

OUT.npy holds fc7 of AlexNet (the linear layer's own output, before its ReLU) in float32, rows in
the order of the sorted file names. It is also the reference that drift is measured against.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms


class Folder(Dataset[Tensor]):
    """The images of a folder, as ImageNet's evaluation preset wants them."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(path for path in folder.iterdir() if path.is_file())
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        tensor: Tensor = self.transform(Image.open(self.files[index]).convert("RGB"))
        return tensor


@torch.inference_mode()
def main() -> None:
    """Extract as a short script would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()

    model = models.alexnet()
    model.load_state_dict(torch.load(arguments.weights))
    model.eval()
    taken: list[Tensor] = []
    # A copy: the ReLU that follows works in place.
    model.classifier[4].register_forward_hook(lambda _, __, output: taken.append(output.clone()))
    loader = DataLoader(Folder(arguments.folder), arguments.batch, num_workers=arguments.workers)
    for images in loader:
        model(images)
    np.save(arguments.out, torch.cat(taken).numpy())


if __name__ == "__main__":
    main()
