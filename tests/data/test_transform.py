from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from fc7.engine.data import Transform, decode_image
from fc7.engine.errors import BadImage

SIZES = [(1, 1), (3, 200), (224, 224), (256, 256), (255, 257), (375, 500), (501, 333), (900, 301)]
PRESETS = [
    (256, 224, "bilinear"),
    (232, 224, "bilinear"),
    (235, 224, "bicubic"),
    (64, 64, "nearest"),
    (30, 41, "bilinear"),  # a crop larger than the short side: padding
]


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize", "crop", "interpolation"), PRESETS)
@pytest.mark.parametrize("channels_last", [True, False])
def test_same_as_torchvisions_preset_with_pil(
    size: tuple[int, int], resize: int, crop: int, interpolation: str, channels_last: bool
) -> None:
    picture_ = picture(*size)
    image = tensor(picture_) if channels_last else tensor(picture_).contiguous()
    preset = ImageClassification(
        crop_size=crop,
        resize_size=resize,
        interpolation=InterpolationMode(interpolation),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    ours = Transform(resize, crop, interpolation)(image)
    assert ours.dtype == torch.uint8
    assert tuple(ours.shape) == (3, crop, crop)
    # PIL's nearest takes other pixels than torch's; there the preset's own tensors are compared.
    # It hands out uint8 / 255 in float32, from which the integer comes back exactly.
    expected = preset(image if interpolation == "nearest" else picture_).mul(255).round().int()
    difference = (ours.int() - expected).abs()
    # One pixel of displacement would make tens of levels in this picture. Bilinear rounds twice,
    # after each axis. Bicubic also clips twice what overshoots, which shows at a few edges.
    levels = {"nearest": 0, "bilinear": 1, "bicubic": 2}[interpolation]
    assert (difference > levels).float().mean() <= (0.002 if interpolation == "bicubic" else 0)
    assert difference.float().mean() < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_exact_size_and_no_change(size: tuple[int, int]) -> None:
    image = tensor(picture(*size))
    assert tuple(Transform((50, 70), None)(image).shape) == (3, 50, 70)
    assert torch.equal(Transform(None, None)(image), image)
    transform = Transform((50, 70), (40, 30))
    assert tuple(transform(image).shape) == (3, *transform.output_size(*size))


def test_a_small_crop_does_not_hold_a_large_image() -> None:
    crop = Transform(None, 8)(tensor(picture(200, 300)))
    assert crop.untyped_storage().nbytes() <= 2 * crop.numel()


def test_a_sliver_is_too_large() -> None:
    sliver = torch.zeros(3, 1, 60_000, dtype=torch.uint8)
    with pytest.raises(BadImage, match="256 x 15360000") as caught:
        Transform(256, 224)(sliver)
    assert caught.value.status == "too-large"
    assert tuple(Transform((256, 256), 224)(sliver).shape) == (3, 224, 224)


@pytest.mark.parametrize("size", [(375, 500), (501, 333), (64, 150), (20, 30)])
@pytest.mark.parametrize(
    "transform", [Transform(64, 56), Transform((48, 80), 40), Transform(24, 60)]
)
def test_to_original_finds_what_the_transform_moved(
    size: tuple[int, int], transform: Transform
) -> None:
    """Light one block of the original, transform, box what is lit, and carry the box back."""
    height, width = size
    top, left = height * 0.45, width * 0.48
    bottom, right = height * 0.55, width * 0.56
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 255
    lit = (transform(image)[0] >= 128).nonzero()
    box = (*lit.min(0).values.tolist(), *(lit.max(0).values + 1).tolist())
    found = transform.to_original((box[0], box[1], box[2], box[3]), height, width)
    # A transformed pixel is lit or not, so each edge is right to within about one of them.
    resized = transform._resized(height, width)
    for edge, expected in zip(found[0::2], (int(top), int(bottom) + 1), strict=True):
        assert abs(edge - expected) <= max(1.0, height / resized[0])
    for edge, expected in zip(found[1::2], (int(left), int(right) + 1), strict=True):
        assert abs(edge - expected) <= max(1.0, width / resized[1])


def test_to_original_by_hand() -> None:
    # 375 x 500 -> 256 x 341 -> columns 58 (58.5 to even) to 282, rows 16 to 240.
    box = Transform(256, 224).to_original((0, 0, 224, 224), 375, 500)
    expected = (16 * 375 / 256, 58 * 500 / 341, 240 * 375 / 256, 282 * 500 / 341)
    assert box == pytest.approx(expected, abs=1e-9)
    # Padding is outside the image: the whole of a padded crop is the whole image.
    assert Transform(None, 50).to_original((0, 0, 50, 50), 20, 30) == (0, 0, 20, 30)
    assert Transform(None, 50).to_original((0, 0, 10, 10), 20, 30) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "transform",
    [Transform(256, 224), Transform((5, 6), None, "nearest", False), Transform(None, (3, 4))],
)
def test_there_and_back_through_json(transform: Transform) -> None:
    import json

    assert Transform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": 0, "crop": 1}, "resize is 0"),
        ({"resize": 8, "crop": (1, 2, 3)}, "crop is"),
        ({"resize": 8, "crop": -1}, "crop is -1"),
        ({"resize": 8, "crop": 8, "interpolation": "cubic"}, "bilinear, bicubic, nearest"),
    ],
)
def test_wrong_arguments(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transform(**fields)


def test_real_photographs(request: pytest.FixtureRequest) -> None:
    folder = request.config.getoption("--images")
    if folder is None:
        pytest.skip("needs real photographs: pass --images FOLDER")
    files = sorted(Path(folder).rglob("*.[jJ][pP]*[gG]"))[::10][:50]
    assert files
    preset = ImageClassification(crop_size=224, resize_size=256, mean=(0.0,) * 3, std=(1.0,) * 3)
    means = []
    for file in files:
        expected = preset(Image.open(file).convert("RGB")).mul(255).round().int()
        image = decode_image(file.read_bytes())
        if tuple(image.shape[1:]) != Image.open(file).size[::-1]:
            continue  # turned upright, which the preset does not do
        difference = (Transform(256, 224)(image).int() - expected).abs()
        assert difference.max() <= 2
        means.append(difference.float().mean().item())
    assert np.mean(means) < 0.01
