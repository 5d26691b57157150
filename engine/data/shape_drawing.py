"""The pictures of the data set `shapes:N:SEED`, drawn from numbers, with every answer known.

A picture shows one object (disc, square, triangle or cross) with one texture (plain, stripes,
checker or dots) before a background with clutter: 16 classes in 4 superclasses. Colours, place,
size and rotation are random; the object's true mask comes with the picture.

A row is a pure function of the seed and the row's number: it does not depend on what was drawn
before, on the length of the data set or on the machine. Two things see to that. The random
numbers are the raw output of Philox (Salmon et al., 2011), keyed by (seed, row), whose stream
numpy keeps from one version to the next. And the drawing uses only operations that IEEE 754
rounds in one way (+, -, *, /, sqrt, comparisons): no sines, which differ between processors.
"""

import numpy as np
import numpy.typing as npt

SIDE = 64
OBJECTS = ("disc", "square", "triangle", "cross")
TEXTURES = ("plain", "stripes", "checker", "dots")
LABELS = tuple(f"{shape}-{texture}" for shape in OBJECTS for texture in TEXTURES)

# Part of a data set's digest: whoever changes the pictures raises it, so that no old run goes on
# with them.
DRAWING = 1
# The side, in pixels, of a square of the object's area: 6 to 20 % of the picture.
_SMALLEST, _LARGEST = 15.7, 28.6
_CAPSULES = 7
_NOISE_LEVELS = 32
# Rows stay below 2**63, so the stream keyed by the largest number is free for the labels.
_LABEL_KEY = 2**64 - 1

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# The centres of the pixels along one side, in pixels from the top left corner.
_CENTRES = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)

# The convex hull of each object in its own frame, (corners, 2), for a square of area 1 to scale:
# what decides how near to the border its centre may come. The disc's is its bounding square,
# which never turns.
_DISC_RADIUS = 0.5641895835477563  # pi r^2 = 1
_TRIANGLE_INRADIUS = 0.4386913376508308  # 3 sqrt(3) r^2 = 1
_CROSS_LENGTH = 0.625  # from the centre to the end of an arm; half the arm's width is 0.4 of it
_CROSS_WIDTH = 0.25
_HULLS: tuple[Float64, ...] = (
    _DISC_RADIUS * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float64),
    0.5 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float64),
    _TRIANGLE_INRADIUS * np.array([[0, 2], [np.sqrt(3), -1], [-np.sqrt(3), -1]], np.float64),
    np.array(
        [
            (sx * a, sy * b)
            for a, b in ((_CROSS_LENGTH, _CROSS_WIDTH), (_CROSS_WIDTH, _CROSS_LENGTH))
            for sx in (1, -1)
            for sy in (1, -1)
        ],
        np.float64,
    ),
)


def labels_of(seed: int, start: int, stop: int) -> npt.NDArray[np.int32]:
    """Return the labels of rows start to stop, int32 (stop - start,), each 0 to 15.

    Sixteen rows from a multiple of sixteen hold every label once, in an order of their own.
    """
    first, last = start // 16, -(-stop // 16)
    # Philox makes four numbers a count, so four counts make the sixteen of a block.
    bits = np.random.Philox(key=_philox_key(seed, _LABEL_KEY), counter=4 * first)
    raw = bits.random_raw(16 * max(0, last - first)).reshape(-1, 16)
    order = raw.argsort(axis=1, kind="stable").astype(np.int32).ravel()
    return order[start - 16 * first : stop - 16 * first]


def render(seed: int, row: int) -> tuple[npt.NDArray[np.uint8], int, Mask]:
    """Draw one row.

    Args:
        seed: of the data set, 0 to 2**64 - 1.
        row: its number, 0 to 2**63 - 1.

    Returns:
        The image, uint8 (3, 64, 64) RGB; its label, 0 to 15, an index into `LABELS` (object
        label // 4, texture label % 4); and the object's mask, bool (64, 64), which covers 5 to
        25 % of the image and never leaves it.
    """
    label = int(labels_of(seed, row, row + 1)[0])
    draws = _Draws(seed, row)
    ground = draws.uniform(2, 3)
    ink = _farthest(draws.uniform(4, 3), ground)
    other_ink = _farthest(draws.uniform(4, 3), np.vstack([ground, ink]))

    image = _background(draws, ground)
    side = draws.between(_SMALLEST, _LARGEST)
    x, y = _place(draws, _HULLS[label // 4] * side, turns=label // 4 != 0)
    distance = _outline(label // 4, x, y, side)
    texture = _texture(draws, label % 4, x, y, side)
    difference = (other_ink - ink).astype(np.float32)[:, None, None]
    painted = ink.astype(np.float32)[:, None, None] + texture * difference
    # Half a pixel on either side of the outline is a blend, as if light were collected there.
    image += np.clip(np.float32(0.5) - distance, 0, 1) * (painted - image)

    image *= np.float32(256 - _NOISE_LEVELS)
    image += draws.bytes(image.size).reshape(image.shape) % _NOISE_LEVELS
    return image.astype(np.uint8), label, distance <= 0


class _Draws:
    """The random numbers of one row, dealt out in order."""

    def __init__(self, seed: int, row: int) -> None:
        self._bits = np.random.Philox(key=_philox_key(seed, row))

    def uniform(self, *shape: int) -> Float64:
        """Return numbers in [0, 1) in an array of that shape."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def between(self, low: float, high: float) -> float:
        """Return one number in [low, high)."""
        return low + (high - low) * float(self.uniform(1)[0])

    def directions(self, count: int) -> Float64:
        """Return unit vectors (cos, sin), (count, 2), all round the circle.

        The tangent of half the angle gives both without a sine. Drawn evenly it favours no
        direction by more than a factor of two.
        """
        t, quarter = self.uniform(2, count)
        half = 2 * t - 1
        vectors = np.stack([1 - half * half, 2 * half], 1) / (1 + half * half)[:, None]
        vectors[quarter < 0.5] *= -1
        return np.asarray(vectors, np.float64)

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """Return random bytes; `count` is a multiple of eight."""
        return self._bits.random_raw(count // 8).astype("<u8").view(np.uint8)


def _philox_key(seed: int, row: int) -> npt.NDArray[np.uint64]:
    return np.array([seed, row], np.uint64)


def _farthest(candidates: Float64, others: Float64) -> Float64:
    """Of the colours (K, 3) return the one, (3,), farthest from the nearest of the others."""
    squared = ((candidates[:, None] - others) ** 2).sum(2)
    return np.asarray(candidates[squared.min(1).argmax()], np.float64)


def _background(draws: _Draws, ground: Float64) -> Float32:
    """Return a blend of two colours (2, 3) with clutter before it: float32 (3, SIDE, SIDE)."""
    # The blend runs the way the direction points and reaches both colours near the border.
    middle = np.full(2, SIDE / 2, np.float32)
    along, _ = _frame(middle, draws.directions(1)[0] / SIDE)
    first, second = ground.astype(np.float32)[:, :, None, None]
    image: Float32 = first + np.clip(along + np.float32(0.5), 0, 1) * (second - first)

    # Blobs and strokes are one thing: what lies within a radius of a segment, short or long.
    colours = draws.uniform(_CAPSULES, 3).astype(np.float32)[:, :, None, None]
    centres, sizes = draws.uniform(2, _CAPSULES, 2).astype(np.float32)
    centres *= SIDE
    half_lengths, radii = 14 * sizes[:, 0] ** 2, 1 + 2.5 * sizes[:, 1]
    along, across = _frame(centres.T[:, :, None, None], draws.directions(_CAPSULES).T)
    beyond = np.maximum(np.abs(along) - half_lengths[:, None, None], 0)
    distance = np.sqrt(beyond * beyond + across * across) - radii[:, None, None]
    alpha = np.clip(np.float32(0.5) - distance, 0, 1)
    # Each is painted within its own bounds only, which is most of the time that drawing takes.
    reach = (half_lengths + radii + 1)[:, None]
    starts = np.maximum(centres - reach, 0).astype(int).tolist()
    stops = (np.maximum(centres + reach, 0).astype(int) + 1).tolist()
    for number, ((left, top), (right, bottom)) in enumerate(zip(starts, stops, strict=True)):
        part = image[:, top:bottom, left:right]
        part += alpha[number, top:bottom, left:right] * (colours[number] - part)
    return image


def _frame(centre: Float32, direction: Float64) -> tuple[Float32, Float32]:
    """Return every pixel's place in a frame of that centre and x axis: (SIDE, SIDE) each.

    Both arguments are pairs (x and y; cosine and sine), and each of the pair may be an array
    (K,) for K frames at once; the centre's then have the shape (K, 1, 1).
    """
    cosine, sine = np.reshape(direction, (2, *np.shape(centre)[1:])).astype(np.float32)
    x, y = _CENTRES - centre[0], _CENTRES[:, None] - centre[1]
    return x * cosine + y * sine, y * cosine - x * sine


def _place(draws: _Draws, hull: Float64, turns: bool) -> tuple[Float32, Float32]:
    """Return every pixel's x and y in the frame of an object turned and moved at random.

    Any place that keeps the object's corners, (corners, 2) in pixels, within the picture may be
    drawn. Places far from the middle are likelier, or the middle would be a good guess.
    """
    cosine, sine = draws.directions(1)[0]
    if not turns:
        cosine, sine = 1.0, 0.0
    corners = hull @ np.array([[cosine, sine], [-sine, cosine]])
    away = 2 * draws.uniform(2) - 1
    spread = 0.5 + 0.5 * np.sign(away) * np.sqrt(np.abs(away))
    low, high = -corners.min(0), SIDE - corners.max(0)
    centre = (low + (high - low) * spread).astype(np.float32)
    return _frame(centre, np.array([cosine, sine]))


def _outline(shape: int, x: Float32, y: Float32, side: float) -> Float32:
    """Return the distance to an object's outline in pixels, negative within.

    The object has the area of a square of that side. Outside of a corner the distance is the one
    to the edges' lines, which is less than the true one.
    """
    if shape == 0:
        return np.sqrt(x * x + y * y) - np.float32(_DISC_RADIUS * side)
    if shape == 2:
        slanted = np.abs(x) * np.float32(0.8660254) + y * np.float32(0.5)
        return np.maximum(slanted, -y) - np.float32(_TRIANGLE_INRADIUS * side)
    x, y = np.abs(x), np.abs(y)
    if shape == 1:
        return np.maximum(x, y) - np.float32(side / 2)
    longer, shorter = np.maximum(x, y), np.minimum(x, y)
    return np.maximum(
        longer - np.float32(_CROSS_LENGTH * side), shorter - np.float32(_CROSS_WIDTH * side)
    )


def _texture(draws: _Draws, texture: int, x: Float32, y: Float32, side: float) -> Float32:
    """Return the share of the second colour, 0 to 1, at every pixel: (SIDE, SIDE).

    The texture's frame is turned against the object's, and shifted. Its period follows the
    object's size, so that about three of them fit across.
    """
    period = np.float32(max(5.0, side * draws.between(0.28, 0.38)))
    cosine, sine = draws.directions(1)[0].astype(np.float32)
    shift_x, shift_y = draws.uniform(2).astype(np.float32)
    if texture == 0:
        return np.zeros_like(x)
    cosine, sine = cosine / period, sine / period
    across, along = x * cosine + y * sine + shift_x, y * cosine - x * sine + shift_y
    # 0 in the middle of a cell, 1/2 at its edges.
    across, along = (np.abs(p - np.floor(p) - np.float32(0.5)) for p in (across, along))
    quarter, half = np.float32(0.25), np.float32(0.5)
    if texture == 1:
        value = (across - quarter) * period + half
    elif texture == 2:
        sharp = [np.clip((p - quarter) * period * 2, -1, 1) for p in (across, along)]
        value = half + half * sharp[0] * sharp[1]
    else:
        radius = np.sqrt(across * across + along * along)
        value = (np.float32(0.33) - radius) * period + half
    return np.asarray(np.clip(value, 0, 1), np.float32)
