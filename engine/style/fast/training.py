"""Training a transformer network: down the perceptual loss of what it makes of images.

    min over weights of  mean over images x of  L(f(x); content of x, style) + v V(f(x))

Johnson, Alahi and Fei-Fei (2016), section 3, with Adam. L is that of `Perceptual`, V as in
`fc7.engine.style.picture`. With several styles, each image of a batch has one, in turn (Dumoulin,
Shlens and Kudlur, 2017). The learning rate falls to 0 along half a cosine; the paper keeps it.

Every number drawn is a function of the seed and of where it is used: the order of rows of (seed,
epoch), what is cut out of an image of (seed, its place in that order). So training that was stopped
and goes on from a checkpoint ends in the same weights, on a CPU to the bit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fc7.engine.data.batches import as_floats
from fc7.engine.data.reader import Row, read_rows
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.bare import seeded
from fc7.engine.models.sizes import Sizes
from fc7.engine.store import Checkpoints
from fc7.engine.store.fingerprint import software
from fc7.engine.store.training import train
from fc7.engine.style.fast.crops import random_crop, shares_of_places, shrunk
from fc7.engine.style.fast.options import TrainStylizerOptions
from fc7.engine.style.fast.paintings import Painting
from fc7.engine.style.fast.stylizer import Stylizer, save_stylizer
from fc7.engine.style.fast.transformer import Transformer
from fc7.engine.style.grams import Grams, joined
from fc7.engine.style.layers import style_layers
from fc7.engine.style.perceptual import Perceptual
from fc7.engine.style.picture import VARIATION
from fc7.engine.synthesis.penalties import TotalVariation

TECHNIQUE = "stylizer"
RESULT = "network.safetensors"
_LOOKAHEAD_BATCHES = 2
_VARIATION = TotalVariation(2.0)


@dataclass
class TrainStylizer:
    """A stage that trains a network for some styles.

    The result is `network.safetensors`, which `load_stylizer` takes, and `losses.npy`, (steps,
    terms) float32: the means of a batch, in the order of `terms`, NaN where no image could be used.

    Args:
        network: by whose layers style and content are judged, on the device that computes.
        source: the images.
        paintings: one a style.
        options: how.
        name: the job's name in the run: `stylizer`, or `stylizer-2` and so on.

    Attributes:
        judge: how far images are from content and style, each term with its weight.
        terms: of the losses: "total", then each of them without its weight.
        asked: what distinguishes this network from others trained on the same images, as JSON.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, there is no image, or crops are too small for the
            layers.
    """

    network: Network
    source: Source
    paintings: Sequence[Painting]
    options: TrainStylizerOptions
    name: str = TECHNIQUE
    judge: Perceptual = field(init=False)
    terms: tuple[str, ...] = field(init=False)
    asked: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        options.check()
        options.architecture(len(self.paintings)).check()
        if not len(self.source):
            raise OptionError(f"{self.source.spec} has no image to train on")
        layers = style_layers(self.network, options.style_layers, options.content_layers)
        sizes = Sizes(self.network, [*layers.style, *layers.content])
        sizes.check((options.crop, options.crop), "a crop")
        for painting in self.paintings:
            sizes.check((painting.image.shape[1], painting.image.shape[2]), "an image of a style")
        self.judge = Perceptual(
            self.network,
            {name: options.style_weight * share for name, share in layers.style.items()},
            {name: options.content_weight * share for name, share in layers.content.items()},
            size=(options.crop, options.crop),
        )
        self.terms = ("total", *self.judge.terms, VARIATION)
        judge = self.network.describe()
        self.asked = {
            "loss": {name: judge[name] for name in ("digest", "precision", "mean", "std")},
            # Images beyond it are left out, and others take their places in the batches.
            "max_pixels": getattr(self.source, "max_pixels", None),
            # Lists, for their order is that of the weights' rows and of the losses' columns.
            "styles": [[painting.name, painting.digest] for painting in self.paintings],
            "layers": {
                "style": [[name, share] for name, share in layers.style.items()],
                "content": [[name, share] for name, share in layers.content.items()],
            },
            **options.asked,
        }

    def fingerprint(self) -> Mapping[str, Any]:
        """The network that judges, the images, and how."""
        judge = self.network.describe()
        return {
            "judge": judge,
            "data": self.source.digest(),
            "options": {**self.asked, "device": self.network.device.type},
            "software": software(),
        }

    def resume(self, folder: Path, checkpoints: Checkpoints) -> Mapping[str, Any]:
        """Train from the newest checkpoint on, and write the network.

        Raises:
            OptionError: the loss is not a number, or not one image can be used.
            OSError: the disk is full; the newest checkpoint is kept.
        """
        options, device = self.options, self.network.device
        with seeded(options.seed):
            model = Transformer(options.architecture(len(self.paintings)))
        model = model.to(device).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
        losses = torch.full((options.steps, len(self.terms)), torch.nan)
        grams = [self.judge.grams(one.image[None].to(device)) for one in self.paintings]
        seconds = train(
            self.name,
            model,
            optimizer,
            losses,
            self._batches,
            partial(self._step, model, optimizer, grams),
            checkpoints,
            options.checkpoint_seconds,
            options.batch_rows,
            options.report,
        )
        found = losses[~losses[:, 0].isnan(), 0]
        if not len(found):
            raise OptionError(f"no image of {self.source.spec} can be used; look at the files")
        made = {"data": self.source.spec, "judge": self.network.name, **self.asked}
        styles = {painting.name: painting.picture for painting in self.paintings}
        save_stylizer(Stylizer(model.eval(), styles, made), folder / RESULT)
        np.save(folder / "losses.npy", losses.numpy())
        return {
            "styles": list(styles),
            "files": [painting.file for painting in self.paintings],
            "steps": options.steps,
            "terms": list(self.terms),
            "first_loss": float(found[0]),
            "last_loss": float(found[-1]),
            "seconds": round(seconds, 3),
        }

    def _step(
        self,
        model: Transformer,
        optimizer: torch.optim.Adam,
        grams: Sequence[Grams],
        step: int,
        batch: tuple[Tensor, Sequence[int]],
    ) -> Tensor | float:
        """Take one step down the mean loss of a batch, and return its terms; NaN of no image."""
        images, places = batch
        if not places:
            return math.nan
        cosine = (1 + math.cos(math.pi * step / self.options.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = self.options.learning_rate * cosine
        shares = shares_of_places(places, len(grams)).to(images.device)
        targets = self.judge.targets(images, joined([grams[n % len(grams)] for n in places]))
        made = model(images, shares)
        found = self.judge(made.detach(), targets)
        variation = _VARIATION(made) / math.prod(made.shape[2:])
        weight = self.options.variation
        total = (found.total + weight * variation.detach()).mean()
        if not torch.isfinite(total):
            raise OptionError(
                f"the loss of step {step + 1} is not a number; start with a learning rate below "
                f"{self.options.learning_rate:g}"
            )
        optimizer.zero_grad()
        # The judge has gone all the way back to the pixels; from there to the weights.
        through = (made * found.gradients).sum() + weight * variation.sum()
        (through / len(places)).backward()
        optimizer.step()
        means = [total, *(each.mean() for each in found.losses.values()), variation.detach().mean()]
        return torch.stack(means).cpu()

    def _batches(self, start: int) -> Iterator[tuple[Tensor, list[int]]]:
        """Yield images, (B, 3, crop, crop) in [0, 1], of each step from `start` on.

        And each one's place in the order of all steps. Where a file is bad, B is smaller.
        """
        options, size = self.options, self.options.batch_rows
        places = range(start * size, options.steps * size)
        stream = read_rows(
            self.source,
            self._order(places),
            lambda image: shrunk(image, options.crop),
            options.threads,
            _LOOKAHEAD_BATCHES * size,
        )
        batch: list[tuple[int, Row]] = []
        for place, row in zip(places, stream, strict=True):
            batch.append((place, row))
            if len(batch) < size:
                continue
            good = [(at, one.image) for at, one in batch if one.image is not None]
            crops = [random_crop(image, options.crop, (options.seed, at)) for at, image in good]
            floats = as_floats(crops, self.network.device).div_(255) if good else torch.empty(0)
            yield floats.contiguous(), [at for at, _ in good]
            batch = []

    def _order(self, places: range) -> Iterator[int]:
        """Yield the row of each place: one order of all rows after the other."""
        count, epoch = len(self.source), -1
        for place in places:
            if place // count != epoch:
                epoch = place // count
                order = np.random.default_rng([self.options.seed, epoch]).permutation(count)
            yield int(order[place % count])
