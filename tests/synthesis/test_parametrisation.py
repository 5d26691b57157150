"""Images of latents, and latents of images, against sums of cosines in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from company import SIZES, array, gradients, images, keys, same_in_any_company, taken, with_gradient
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.parametrisation import Fourier, Parametrisation, Pixels, SigmoidPixels

ALL: list[Parametrisation] = [
    Pixels(), SigmoidPixels(), SigmoidPixels(decorrelated=True), Fourier(),
    Fourier(decay=1.5, decorrelated=False),
]  # fmt: skip
PUBLISHED = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def coloured(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = PUBLISHED / max(np.linalg.norm(PUBLISHED[:, n]) for n in range(3))
    return np.einsum("rc,nchw->nrhw", matrix, channels)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def lucid(latent: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Return Lucid's image before colours and sigmoid: its formulas on a whole, complex spectrum.

    At each pair of frequencies f, -f, the real part of Lucid's number is the mean of ours by
    root 2, and its imaginary part half of their difference.
    """
    height, width = latent.shape[2:]
    negative = latent[:, :, -np.arange(height)][..., -np.arange(width)]
    spectrum = np.sqrt(2) * ((latent + negative) / 2 + 1j * (negative - latent) / 2)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    frequency = np.sqrt(down**2 + across**2)
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width)) ** decay
    found = np.zeros_like(spectrum)
    for row in range(height):
        for column in range(width):
            wave = np.exp(
                2j * np.pi * (row * np.arange(height)[:, None] / height
                              + column * np.arange(width) / width)
            )  # fmt: skip
            found += (scale * spectrum)[:, :, row, column, None, None] * wave
    assert np.abs(found.imag).max() < 1e-9 * np.abs(found.real).max()
    return found.real / (height * width) / 4


@pytest.mark.parametrize("size", SIZES[:-1])
@pytest.mark.parametrize(("decay", "decorrelated"), [(1.0, True), (0.0, True), (1.7, False)])
def test_fourier_is_lucids_formula(size: tuple[int, int], decay: float, decorrelated: bool) -> None:
    latent = gradients(2, size)
    signal = lucid(array(latent), decay)
    expected = sigmoid(coloured(signal) if decorrelated else signal)
    found = Fourier(decay, decorrelated).images(latent)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_fourier_is_torchs_inverse_of_half_a_spectrum(size: tuple[int, int]) -> None:
    """As Lucid computes it: irfft2 of half a spectrum, of one frequency strictly inside."""
    height, width = size
    row, column = 2, 1
    latent = torch.zeros(1, 3, height, width, dtype=torch.float64)
    latent[:, :, row, column], latent[:, :, -row, -column] = 0.7, -0.2
    spectrum = np.zeros((height, width // 2 + 1), dtype=complex)
    spectrum[row, column] = np.sqrt(2) * (0.25 - 0.45j)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(size))
    expected = np.fft.irfft2(spectrum * scale, size) / 4
    found = Fourier(decorrelated=False).images(latent).logit()
    np.testing.assert_allclose(found[0, 1].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_and_sigmoid_pixels_are_their_formulas(size: tuple[int, int]) -> None:
    latent = gradients(3, size)
    assert torch.equal(Pixels().images(latent), latent)
    for found, expected in (
        (SigmoidPixels().images(latent), sigmoid(array(latent))),
        (SigmoidPixels(decorrelated=True).images(latent), sigmoid(coloured(array(latent)))),
    ):
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-7, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parametrisation", ALL, ids=repr)
def test_latents_bring_their_images_back(
    parametrisation: Parametrisation, size: tuple[int, int]
) -> None:
    x = images(3, size).clamp(0.004, 0.996)
    latent = parametrisation.latent(x)
    assert latent.shape == x.shape
    assert latent.dtype == torch.float32
    # A latent's rounding, relative 6e-8, comes back times its scale: logits reach 5.5.
    assert torch.allclose(parametrisation.images(latent), x, rtol=0, atol=3e-6)
    exact = parametrisation.latent(x.double())
    assert torch.allclose(parametrisation.images(exact), x.double(), rtol=0, atol=1e-13)


def test_black_and_white_come_back_to_a_quarter_of_a_level() -> None:
    x = images(2, (5, 4)).round()
    for parametrisation in ALL:
        back = parametrisation.images(parametrisation.latent(x))
        assert float((back - x).abs().max()) < 1 / 1020
        assert back.isfinite().all()
    assert Pixels().latent(x) is not x


@pytest.mark.parametrize("parametrisation", ALL, ids=repr)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 2)])
def test_gradients_are_those_of_the_formula(
    parametrisation: Parametrisation, size: tuple[int, int]
) -> None:
    latent = gradients(2, size).double().requires_grad_()
    assert torch.autograd.gradcheck(parametrisation.images, latent)
    assert torch.autograd.gradgradcheck(parametrisation.images, latent)


@pytest.mark.parametrize("parametrisation", ALL, ids=repr)
@pytest.mark.parametrize("size", [(7, 5), (37, 53)])
def test_a_row_is_the_same_in_any_company(
    parametrisation: Parametrisation, size: tuple[int, int]
) -> None:
    latent, x, all_keys = gradients(6, size), images(6, size), keys(6)
    calls: list[Callable[[list[int]], Tensor]] = [
        lambda rows: with_gradient(parametrisation.images, latent[rows]),
        lambda rows: parametrisation.latent(x[rows]),
        lambda rows: parametrisation.noise(taken(all_keys, rows), size),
    ]
    for call in calls:
        same_in_any_company(call, 6)


@pytest.mark.parametrize("parametrisation", ALL, ids=repr)
def test_noise_is_small_and_of_its_own_seed(parametrisation: Parametrisation) -> None:
    drawn = parametrisation.noise(keys(4), (33, 40))
    assert drawn.shape == (4, 3, 33, 40)
    assert drawn.dtype == torch.float32
    assert len(drawn.flatten(1).unique(dim=0)) == 4
    middle = 0.5 if isinstance(parametrisation, Pixels) else 0.0
    # 15,840 numbers of deviation 0.01.
    assert abs(float(drawn.mean()) - middle) < 4 * 0.01 / 15840**0.5
    assert abs(float(drawn.std()) - 0.01) < 4 * 0.01 / (2 * 15840) ** 0.5
    x = parametrisation.images(drawn)
    assert float(x.min()) > 0
    assert float(x.max()) < 1


def test_noise_of_pixels_stays_in_the_range() -> None:
    drawn = Pixels((0.0, 1.0, 0.5), deviation=1.0).noise(keys(3), (9, 9))
    assert float(drawn.min()) == 0
    assert float(drawn.max()) == 1


@pytest.mark.parametrize("parametrisation", ALL, ids=repr)
def test_no_rows_and_inference_mode(parametrisation: Parametrisation) -> None:
    assert parametrisation.images(torch.zeros(0, 3, 6, 7)).shape == (0, 3, 6, 7)
    assert parametrisation.latent(torch.zeros(0, 3, 6, 7)).shape == (0, 3, 6, 7)
    # A size that no test has used, so that what is kept is made here.
    with torch.inference_mode():
        parametrisation.images(torch.zeros(1, 3, 11, 3))
    latent = torch.zeros(1, 3, 11, 3, requires_grad=True)
    parametrisation.images(latent).sum().backward()
    assert latent.grad is not None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Pixels(colour=(0.5, 0.5, 2.0)), "three numbers of 0 to 1"),
        (lambda: Pixels(deviation=-1.0), "deviation is -1.0"),
        (lambda: SigmoidPixels(deviation=float("nan")), "deviation is nan"),
        (lambda: SigmoidPixels(margin=0.0), "margin is 0.0"),
        (lambda: Fourier(decay=-0.5), "decay is -0.5"),
        (lambda: Fourier(margin=0.5), "margin is 0.5"),
    ],
)
def test_options_out_of_range(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        make()
