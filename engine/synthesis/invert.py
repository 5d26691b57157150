"""Inversion: an image that a layer answers to as it does to another, of which only that is known.

    x* = argmin  |F(x) - f|^2 / |f|^2  +  a A(x)  +  v V(x)
    A(x) = sum |x - c|^6 / (H W B^6)                 how far colours are from the mean
    V(x) = sum (dx^2 + dy^2) / (H W (B / 10)^2)      how much neighbours differ

(Mahendran and Vedaldi, 2015, "Understanding deep image representations by inverting them",
equation 2; the scales are their section 3's: both penalties are about 1 where colours fill the
range of B = 1/2 on either side of grey, and where neighbours differ by a tenth of that.)

Where this departs from the paper: images come from latents through a spectrum and a sigmoid
(`Fourier`), so that pixels stay in [0, 1] without a clamp, which breaks L-BFGS; the descent is
L-BFGS, each row with its own curvature, and not gradient descent with momentum; at first ReLUs leak
(`Leaky`), which keeps images out of the dead ends that shut ReLUs make; and later starts begin anew
only where the features of the best image do not fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.synthesis.descent import Descend, Descended, by_adam, by_lbfgs
from fc7.engine.synthesis.feature_problem import FeatureProblem, relative_distance

OPTIMISERS: dict[str, Descend] = {"lbfgs": by_lbfgs, "adam": by_adam}

# Of colours that a search begins again from: near 0 and 1 a sigmoid is flat.
_LEAST = 0.02
# By how much ReLUs leak, and the share of the evaluations that is spent on each.
_PHASES = ((0.2, 1 / 6), (0.1, 1 / 6), (0.03, 1 / 6), (0.0, 1 / 2))


@dataclass(frozen=True)
class InvertOptions:
    """How images are found again.

    Attributes:
        evaluations: passes through the network and back, of each image and search.
        starts: searches for each image. The first begins from noise, each later one from the best
            so far, with noise where its features do not fit yet; the best end is kept.
        variation: v, the weight of the differences between neighbours.
        colours: a, the weight of the distance to the mean colour.
        optimiser: "lbfgs" or "adam".
        seed: of the starts.
        batch_rows: images that descend together.
    """

    evaluations: int = 120
    starts: int = 3
    variation: float = 1e-5
    colours: float = 1e-6
    optimiser: str = "lbfgs"
    seed: int = 0
    batch_rows: int = 16

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        least = len(_PHASES)
        if self.evaluations < least or self.starts < 1 or self.batch_rows < 1:
            raise OptionError(
                f"evaluations is {self.evaluations}, starts {self.starts}, batch_rows "
                f"{self.batch_rows}; at least {least}, 1 and 1 will do"
            )
        if not (0 <= self.variation < torch.inf and 0 <= self.colours < torch.inf):
            raise OptionError(
                f"variation is {self.variation} and colours {self.colours}; each is 0 or more"
            )
        if self.optimiser not in OPTIMISERS:
            raise OptionError(f"no optimiser {self.optimiser!r}; there are {', '.join(OPTIMISERS)}")


@dataclass(frozen=True)
class Inversions:
    """What N images were found to be.

    Attributes:
        images: (N, 3, H, W) float32 in [0, 1].
        errors: (N,) float32, |F(x) - f| / |f|: the root of the first term of what is minimised.
        pixel_errors: (N,) float32, |x - x0| / |x0 - c|, c the network's mean colour; NaN where the
            images looked for are not known.
        losses: (N,) float32, what was minimised.
        evaluations: (N,) int64, of the best start.
        curves: (N, E) float32, of it: the least loss after each evaluation, first of the leaking
            networks and then of the true one; NaN after the last.
    """

    images: Tensor
    errors: Tensor
    pixel_errors: Tensor
    losses: Tensor
    evaluations: Tensor
    curves: Tensor


def invert_images(
    network: Network,
    images: Tensor,
    layer: str,
    options: InvertOptions | None = None,
    start: Tensor | None = None,
) -> Inversions:
    """Find images again from what a layer returns of them.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], of any one size that the network takes.
        layer: a canonical name or module path.
        options: how.
        start: (N, 3, H, W), images in [0, 1] to begin from instead of noise.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, the images are of a size that the network does not
            take, or there is something else than numbers in [0, 1] in them or in the start.
        QuestionError: nothing flows back to the pixels, or the layer's answer is not finite.
    """
    _check("images", images)
    size = images.shape[2], images.shape[3]
    return Inverter(network, layer, options, size, len(images))(images, start)


class Inverter:
    """A network cut off behind a layer, ready for inversions.

    Args:
        network: the network.
        layer: a canonical name or module path.
        options: how.
        size: height and width of the images in pixels; the network's own if None.
        count: how many images there are; as many as one likes if None.

    Attributes:
        problem: what is minimised.
        together: images that descend at once, at most `count`: a row depends on that, and not on
            which others are among them.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        layer: str,
        options: InvertOptions | None = None,
        size: tuple[int, int] | None = None,
        count: int | None = None,
    ) -> None:
        self._options = options or InvertOptions()
        self._options.check()
        self._network = network
        self._size = size or network.input_size
        most = self._options.batch_rows
        most = most if count is None else max(1, min(most, count))
        self.together = images_a_pass(network, most, self._size)
        self.problem = FeatureProblem(
            network,
            layer,
            self._size,
            self.together,
            [slope for slope, _ in _PHASES],
            self._options.variation,
            self._options.colours,
        )

    def __call__(self, images: Tensor, start: Tensor | None = None) -> Inversions:
        """Find images (N, 3, H, W), N at least 1, again; see `invert_images`."""
        _check("images", images)
        if start is not None:
            _check("start", start)
            if start.shape != images.shape:
                raise OptionError(
                    f"start has the shape {tuple(start.shape)}, the images {tuple(images.shape)}"
                )
        found = []
        for rows in self._batches(len(images)):
            wanted = images[rows].to(self._network.device)
            begun = None if start is None else start[rows]
            features = self.problem.features(wanted)
            found.append(self._judged(self._descend(features, begun), features, wanted))
        return _joined(found, len(images))

    def describe(self) -> dict[str, Any]:
        """Return all that what is found depends on but the images and the network, as JSON."""
        options = self._options
        return {
            "evaluations": options.evaluations,
            "starts": options.starts,
            "variation": options.variation,
            "colours": options.colours,
            "optimiser": options.optimiser,
            "seed": options.seed,
            "leaks": [list(phase) for phase in _PHASES],
        }

    def judged(self, found: Inversions, as_kept: Tensor, images: Tensor) -> Inversions:
        """Return what was found with the errors of other images, (N, 3, H, W), in their place."""
        values = []
        for rows in self._batches(len(images)):
            mine, wanted = (each[rows].to(self._network.device) for each in (as_kept, images))
            of_features = relative_distance(
                self.problem.features(mine), self.problem.features(wanted)
            )
            values.append(torch.stack([of_features, self._pixel_errors(mine, wanted)]))
        errors, pixel_errors = torch.cat(values, 1)[:, : len(images)]
        return replace(found, images=as_kept, errors=errors, pixel_errors=pixel_errors)

    def _batches(self, count: int) -> Iterator[Tensor]:
        """Yield places of images, always as many together; where none are left, the last again."""
        for start in range(0, count, self.together):
            yield torch.arange(start, start + self.together).clamp(max=count - 1)

    def _descend(self, features: Tensor, start: Tensor | None) -> tuple[Tensor, Descended]:
        """Return images and how they were found: of each row the best of its starts."""
        best: tuple[Tensor, Descended] | None = None
        for number in range(self._options.starts if start is None else 1):
            latents = self._start(features, number, best[0] if best else None, start)
            found = self._search(features, latents, self._phases(number, start is None))
            images = self.problem.parametrisation.images(found.latents).detach()
            best = (images, found) if best is None else _better(best, (images, found))
        assert best is not None
        return best

    def _start(
        self, features: Tensor, number: int, best: Tensor | None, start: Tensor | None
    ) -> Tensor:
        """Return latents that a search starts from; `best` are the images of the one before.

        What is wrong at one place of a layer's maps is often a dead end for that place alone: only
        there the best image gives way to noise.
        """
        way = self.problem.parametrisation
        if start is not None:
            return way.latent(start.to(features.device, torch.float32))
        noise = self.problem.noise(len(features), self._options.seed, number)
        if best is None:
            return noise
        share = self.problem.misfits(best, features)
        return way.latent((best + share * (way.images(noise) - best)).clamp(_LEAST, 1 - _LEAST))

    def _search(
        self, features: Tensor, latents: Tensor, phases: list[tuple[float, int]]
    ) -> Descended:
        """Descend as the leaks are shut."""
        descend, curves = OPTIMISERS[self._options.optimiser], []
        used = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        for slope, count in phases:
            found = descend(self.problem.function(features, slope), latents, count)
            latents, used = found.latents, used + found.evaluations
            curves.append(found.curve)
        whole = _padded(torch.cat(curves), self._options.evaluations)
        return Descended(latents, found.losses, used, whole)

    def _phases(self, number: int, leak: bool) -> list[tuple[float, int]]:
        """Return how ReLUs leak and for how many evaluations, all of them in the end."""
        total = self._options.evaluations
        if not leak:
            return [(0.0, total)]
        phases = _PHASES if number == 0 else _PHASES[1:]
        counts = [max(1, int(total * share)) for _, share in phases[:-1]]
        slopes = [slope for slope, _ in phases]
        return list(zip(slopes, [*counts, total - sum(counts)], strict=True))

    def _judged(
        self, ended: tuple[Tensor, Descended], features: Tensor, wanted: Tensor
    ) -> Inversions:
        images, descent = ended
        return Inversions(
            images,
            relative_distance(self.problem.features(images), features),
            self._pixel_errors(images, wanted),
            descent.losses,
            descent.evaluations,
            descent.curve.T,
        )

    def _pixel_errors(self, found: Tensor, wanted: Tensor) -> Tensor:
        mean = torch.tensor(self._network.mean, device=wanted.device)[:, None, None]
        return relative_distance((found - mean).flatten(1), (wanted - mean).flatten(1))


def _check(what: str, images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise OptionError(
            f"{what}: expected (N, 3, H, W) of floats, got {tuple(images.shape)} of {images.dtype}"
        )
    if not len(images):
        raise OptionError(f"{what}: there are none; give one or more")
    if not bool(((images >= 0) & (images <= 1)).all()):  # false of NaN
        raise OptionError(f"{what}: NaN, or a number outside of [0, 1]; scale to that range")


def _padded(curve: Tensor, length: int) -> Tensor:
    """Return a curve (E, N) as (length, N), NaN after its end."""
    missing = curve.new_full((length - len(curve), curve.shape[1]), torch.nan)
    return torch.cat([curve, missing])


def _better(
    one: tuple[Tensor, Descended], two: tuple[Tensor, Descended]
) -> tuple[Tensor, Descended]:
    """Return the better of two ends of each row."""
    (images, first), (others, second) = one, two
    wins = second.losses < first.losses
    of_images = wins[:, None, None, None]
    return torch.where(of_images, others, images), Descended(
        torch.where(of_images, second.latents, first.latents),
        torch.where(wins, second.losses, first.losses),
        torch.where(wins, second.evaluations, first.evaluations),
        torch.where(wins, second.curve, first.curve),
    )


def _joined(parts: Sequence[Inversions], count: int) -> Inversions:
    fields = ("images", "errors", "pixel_errors", "losses", "evaluations", "curves")
    whole = (torch.cat([getattr(part, name) for part in parts])[:count] for name in fields)
    return Inversions(*whole)
