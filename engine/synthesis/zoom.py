"""A dream of a dream of a dream: each frame from a step closer into the last (Mordvintsev 2015).

    for dreams in dream_zoom(network, images, "conv4", frames=60):
        ...                             # dreams.images, (N, 3, H, W)

    zoom_to_folder(dreamer, image, Path("frames"), frames=60)      # frame-0001.png and so on

Frames are rounded to the 256 levels of a file, so that a sequence goes on from a file as it would
have from what was in memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store.atomic import publish, temporary_beside
from fc7.engine.synthesis.dream import (
    Dreamer,
    DreamOptions,
    Dreams,
    objectives_of,
    seeds_of,
)
from fc7.engine.synthesis.objectives import Objective
from fc7.engine.synthesis.octaves import closer
from fc7.engine.synthesis.picture_files import encode_picture, read_picture, rounded

ZOOM = 1.05
_NOTE = "zoom.json"
_MILLISECONDS = 80


def dream_zoom(
    network: Network,
    images: Tensor,
    objective: str | Objective | Sequence[Objective],
    frames: int,
    zoom: float = ZOOM,
    options: DreamOptions | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Dreams]:
    """Yield dreams one after the other, each from a step closer into the last.

    Args:
        network: as for `dream_images`; likewise images, objective, options and seeds.
        images: the first frame is dreamt from.
        objective: of every frame.
        frames: how many.
        zoom: by how much the middle of one is enlarged for the next.
        options: of every frame.
        seeds: one a row.

    Raises:
        OptionError: frames or zoom is out of range; else as `dream_images`.
    """
    dreamer = Dreamer(network, objectives_of(objective, len(images)), options)
    check_zoom(frames, zoom)
    return _zoomed(dreamer, images, seeds_of(seeds, len(images), dreamer.options), frames, zoom)


def check_zoom(frames: int, zoom: float) -> None:
    """Raise OptionError where one of them is out of range."""
    if frames < 1:
        raise OptionError(f"frames is {frames}; it is 1 or more")
    if not 1 <= zoom < float("inf"):
        raise OptionError(f"zoom is {zoom}; it is 1 or more, such as {ZOOM}")


def zoom_to_folder(
    dreamer: Dreamer,
    image: Tensor,
    folder: Path,
    frames: int,
    zoom: float = ZOOM,
    asked: Mapping[str, Any] | None = None,
    report: Callable[[int], None] | None = None,
) -> Path:
    """Write frames as PNG files, and all of them as an animation; go on with what is there.

    Args:
        dreamer: of one row.
        image: (3, H, W), float in [0, 1].
        folder: made if it is not there; its own is in a folder that is.
        frames: how many there shall be; more than there were are added.
        zoom: see `dream_zoom`.
        asked: what distinguishes this sequence from another, as JSON.
        report: called with the number of frames that there are.

    Returns:
        The animation, `zoom.webp`; `zoom.gif` where PIL cannot write the other.

    Raises:
        OptionError: frames or zoom is out of range, or the folder holds another sequence.
    """
    check_zoom(frames, zoom)
    dreamer.octaves((image.shape[1], image.shape[2]))
    _claim(folder, {**(asked or {}), "zoom": zoom})
    names = [folder / f"frame-{number:04d}.png" for number in range(1, frames + 1)]
    done = next((at for at, name in enumerate(names) if not name.exists()), frames)
    if done < frames:
        start = image if done == 0 else read_picture(names[done - 1])
        left, seeds = frames - done, [dreamer.options.seed]
        for dreams in _zoomed(dreamer, start[None], seeds, left, zoom, done):
            _write(names[done], encode_picture(dreams.images[0]))
            done += 1
            if report:
                report(done)
    animation = folder / f"zoom.{'webp' if features.check('webp') else 'gif'}"
    _animate(names, animation)
    return animation


def _zoomed(
    dreamer: Dreamer,
    images: Tensor,
    seeds: Sequence[int],
    frames: int,
    zoom: float,
    done: int = 0,
) -> Iterator[Dreams]:
    """Yield frames; of those after the first that `done` counts, images are the last."""
    for frame in range(done, done + frames):
        if frame > 0:
            images = closer(images, zoom)
        dreams = dreamer(images, seeds, frame)
        images = rounded(dreams.images)
        yield Dreams(images, dreams.before, dreams.after)


def _claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Note what a folder's frames are; refuse one whose frames are others."""
    folder.mkdir(exist_ok=True)
    note, text = folder / _NOTE, json.dumps(asked, indent=1, sort_keys=True, default=str)
    if not note.exists():
        if any(folder.glob("frame-*.png")):
            raise OptionError(f"{folder} holds frames of something else; choose another --out")
        _write(note, text.encode())
    elif note.read_text() != text:
        raise OptionError(f"{folder} holds frames made otherwise, see {note}; choose another --out")


def _animate(frames: Sequence[Path], path: Path) -> None:
    def opened() -> Iterator[Image.Image]:
        for name in frames:
            with Image.open(name) as picture:
                yield Image.fromarray(np.asarray(picture))

    pictures = opened()
    temporary = temporary_beside(path).with_suffix(path.suffix)
    try:
        next(pictures).save(
            temporary,
            save_all=True,
            append_images=pictures,
            duration=_MILLISECONDS,
            loop=0,
            quality=85,
        )
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(content)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
