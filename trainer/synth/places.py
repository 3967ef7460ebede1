"""Made places: (rng, height, width) -> (H, W, 3) RGB uint8, each different for every state of the generator."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float32]
Rng = np.random.Generator

_FIXED = 16
"""cv2 draws in sixteenths of a pixel."""


def gradient(rng: Rng, height: int, width: int) -> Image:
    """A few colours that run into each other: studio backdrops, fog, light on a plain wall."""
    grid = rng.integers(0, 256, (int(rng.integers(1, 4)), int(rng.integers(1, 4)), 3)).astype(np.float32)
    grid = grid * rng.uniform(0.2, 1) + _colour(rng) * rng.uniform(0, 0.6)
    return _resized(grid, height, width, cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def noise(rng: Rng, height: int, width: int) -> Image:
    """Clouds of all sizes between some colours: foliage, rock, rubble, water from afar."""
    field = octaves(rng, height, width, rough=rng.uniform(0.35, 0.8))
    return _painted(field, [_colour(rng) for _ in range(int(rng.integers(2, 6)))])


def outdoors(rng: Rng, height: int, width: int) -> Image:
    """Sky, a skyline of hills, houses or trees, and ground that recedes."""
    horizon = int(height * rng.uniform(0.15, 0.75))
    image = np.empty((height, width, 3), np.uint8)
    top, low = _sky(rng)
    rise = np.linspace(0, 1, max(horizon, 1), dtype=np.float32)[:, None, None]
    clouds = octaves(rng, max(horizon, 1), width, rough=0.55)[..., None] ** 2 * rng.uniform(0, 0.9)
    sky = top + (low - top) * rise
    image[:horizon] = (sky + (245 - sky) * clouds)[:horizon].clip(0, 255)
    image[horizon:] = _ground(rng, height - horizon, width)
    for layer in range(int(rng.integers(0, 3))):
        _skyline(image, rng, horizon, 0.35 - 0.12 * layer)
    if rng.random() < 0.4:
        _posts(image, rng, horizon)
    return image


def wall(rng: Rng, height: int, width: int) -> Image:
    """Bricks, tiles, boards, panels or plaster, with or without the floor before it."""
    image = _tiled(rng, height, width) if rng.random() < 0.8 else noise(rng, height, width)
    if rng.random() < 0.5:
        line = int(height * rng.uniform(0.6, 0.95))
        image[line:] = _ground(rng, height - line, width)
        if rng.random() < 0.5:
            cv2.rectangle(image, (0, line - max(2, height // 40)), (width, line), _rgb(rng), -1)
    for _ in range(int(rng.integers(0, 3))):
        _window(image, rng)
    return image


def field(rng: Rng, height: int, width: int) -> Image:
    """Grass, a court, ice or sand with painted lines, seen from any side; stands behind it at times."""
    base = [(60, 120, 50), (40, 90, 120), (170, 90, 60), (215, 225, 235), (200, 175, 130), (120, 80, 50)]
    plane_px = 2 * max(height, width)
    colour = np.array(base[rng.integers(len(base))], np.float32) + rng.normal(0, 18, 3)
    small = max(height, width)
    grain = octaves(rng, small, small, rough=0.9) - 0.5
    plane = (colour + grain[..., None] * rng.uniform(10, 90)).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.5:  # mown or laid in strips
        strips = (np.arange(small) // max(4, int(rng.integers(small // 16, small // 4)))) % 2
        plane = cv2.convertScaleAbs(plane * (1 - rng.uniform(0.05, 0.2) * strips)[:, None, None])
    plane = cv2.resize(plane, (plane_px, plane_px), interpolation=cv2.INTER_LINEAR)
    paint, thick = _paint(rng), max(1, int(plane_px * rng.uniform(0.004, 0.015)))
    for _ in range(int(rng.integers(1, 7))):
        a, b = (tuple(int(v) for v in rng.integers(0, plane_px, 2)) for _ in range(2))
        shape = rng.integers(3)
        if shape == 0:
            cv2.line(
                plane, a, (a[0], b[1]) if rng.random() < 0.5 else (b[0], a[1]), paint, thick, cv2.LINE_AA
            )
        elif shape == 1:
            cv2.rectangle(plane, a, b, paint, thick)
        else:
            cv2.circle(plane, a, int(rng.uniform(0.05, 0.3) * plane_px), paint, thick, cv2.LINE_AA)
    return _receding(plane, rng, height, width)


def crowd(rng: Rng, height: int, width: int) -> Image:
    """Rows of blurred heads and clothes, larger towards the bottom: spectators behind an athlete."""
    full, (height, width) = (
        (width, height),
        (height // 2, width // 2),
    )  # blurred: half the resolution is enough
    image = gradient(rng, height, width)
    y = height * rng.uniform(0.05, 0.4)
    while y < height * 1.1:
        head = height * rng.uniform(0.025, 0.05) * (0.6 + 1.6 * y / height)
        x = -head * rng.uniform(0, 2)
        while x < width + head:
            cloth, skin = _rgb(rng), _skin(rng)
            _ellipse(image, (x, y + 2.4 * head), (1.5 * head, 2 * head), cloth)
            _ellipse(image, (x, y), (0.7 * head, head), skin)
            _ellipse(image, (x, y - 0.45 * head), (0.72 * head, 0.6 * head), _hair(rng))
            x += head * rng.uniform(2.2, 4.5)
        y += head * rng.uniform(2, 3.5)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.003, 0.02)) * width)
    return cv2.resize(image, full, interpolation=cv2.INTER_LINEAR)


def room(rng: Rng, height: int, width: int) -> Image:
    """The inside of a box: three walls, ceiling and floor, with windows, doors and furniture."""
    image = np.full((height, width, 3), _rgb(rng), np.uint8)
    left, right = np.sort(rng.uniform(-0.1, 1.1, 2)) * width
    right = max(right, left + 0.3 * width)
    top, floor = height * rng.uniform(-0.1, 0.35), height * rng.uniform(0.5, 0.95)
    outer = [(-0.6, -0.6), (1.6, -0.6), (1.6, 1.6), (-0.6, 1.6)]
    corners = np.array(outer) * (width, height)
    inner = np.array([(left, top), (right, top), (right, floor), (left, floor)])
    paint = _colour(rng)
    for side in range(4):
        nxt = (side + 1) % 4
        quad = np.array([corners[side], corners[nxt], inner[nxt], inner[side]])
        shade = paint * rng.uniform(0.5, 1.1) if side != 2 else _colour(rng)
        if side == 2 and rng.random() < 0.6:
            _warped(image, _tiled(rng, 128, 128), quad)
        else:
            _polygon(image, quad, shade)
    _polygon(image, inner, paint * rng.uniform(0.7, 1.2))
    for _ in range(int(rng.integers(0, 4))):
        _window(image, rng)
    for _ in range(int(rng.integers(0, 6))):
        _furniture(image, rng, floor)
    grain = octaves(rng, height, width, rough=0.6)[..., None] - 0.5
    return (image + grain * rng.uniform(0, 40)).clip(0, 255).astype(np.uint8)


def stripes(rng: Rng, height: int, width: int) -> Image:
    """A repeated pattern, straight or bent: blinds, fences, carpets, fabric."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    bend = octaves(rng, height, width, rough=0.3) * rng.uniform(0, 0.4) * width * (rng.random() < 0.5)
    period = width * np.exp(rng.uniform(np.log(0.015), np.log(0.3)))
    along = (x * np.cos(turn) + y * np.sin(turn) + bend) / period
    value = along % 1
    if rng.random() < 0.3:
        across = ((y * np.cos(turn) - x * np.sin(turn)) / (period * rng.uniform(0.5, 2))) % 1
        value = ((value > 0.5) ^ (across > 0.5)).astype(np.float32)
    elif rng.random() < 0.5:
        value = (value > rng.uniform(0.2, 0.8)).astype(np.float32)
    return _painted(value, [_colour(rng) for _ in range(int(rng.integers(2, 5)))])


def shapes(rng: Rng, height: int, width: int) -> Image:
    """Nothing but polygons, ellipses and rods of all colours."""
    image = gradient(rng, height, width)
    clutter(image, rng, count=int(rng.integers(10, 40)))
    return image


def clutter(image: Image, rng: Rng, count: int | None = None) -> None:
    """Paint things over a picture: polygons, ellipses, and rods as long and thin as limbs."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 14)) if count is None else count):
        at = rng.uniform(0, 1, 2) * (width, height)
        size = width * np.exp(rng.uniform(np.log(0.02), np.log(0.4)))
        colour = _colour(rng)
        kind = rng.integers(4)
        if kind == 0:
            _polygon(image, at + rng.normal(0, size / 2, (int(rng.integers(3, 8)), 2)), colour)
        elif kind == 1:
            axes = (size / 2, size / 2 * rng.uniform(0.2, 1))
            _ellipse(image, tuple(at), axes, _of(colour), float(rng.uniform(0, 180)))
        else:
            way = rng.normal(0, size, 2)
            thick = max(1, int(np.hypot(*way) * rng.uniform(0.05, 0.3)))
            ends = [tuple(int(v) for v in at), tuple(int(v) for v in at + way)]
            if kind == 3:
                ends.append(tuple(int(v) for v in at + way + rng.normal(0, size, 2)))
            cv2.polylines(image, [np.array(ends, np.int32)], False, _of(colour), min(thick, 200), cv2.LINE_AA)


def octaves(rng: Rng, height: int, width: int, *, rough: float) -> Field:
    """(H, W) values in 0..1: smooth noise of ever finer grain, each `rough` times as strong as the one before."""
    total, weight, cells = np.zeros((height, width), np.float32), 1.0, int(rng.integers(2, 5))
    while cells < max(height, width) and weight > 0.02:
        rows = max(2, round(cells * height / max(height, width)))
        columns = max(2, round(cells * width / max(height, width)))
        grid = rng.random((rows, columns), np.float32) * np.float32(weight)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        weight, cells = weight * rough, cells * 2
    low, high, _, _ = cv2.minMaxLoc(total)
    return (total - np.float32(low)) / np.float32(max(high - low, 1e-6))


def _painted(values: Field, colours: list[NDArray[np.float64]]) -> Image:
    """Values in 0..1 to colours, in between mixed."""
    at = np.linspace(0, 1, 256) * (len(colours) - 1)
    table = np.stack([np.interp(at, np.arange(len(colours)), column) for column in np.array(colours).T], -1)
    index = cv2.convertScaleAbs(values, alpha=255)
    return cv2.LUT(cv2.cvtColor(index, cv2.COLOR_GRAY2RGB), table.clip(0, 255).astype(np.uint8)[None])


def _tiled(rng: Rng, height: int, width: int) -> Image:
    """Bricks, tiles or boards: cells that differ a little, with joints between them."""
    tall = max(3, int(height * np.exp(rng.uniform(np.log(0.02), np.log(0.3)))))
    wide = max(3, int(tall * rng.choice([1.0, 2.0, 3.0, 0.4, 12.0])))
    rows, columns = height // tall + 2, width // wide + 3
    colour, spread = _colour(rng), rng.uniform(0, 25)
    cells = (colour + rng.normal(0, spread, (rows, columns, 1))).clip(0, 255).astype(np.uint8)
    image = cv2.resize(cells, (columns * wide, rows * tall), interpolation=cv2.INTER_NEAREST)
    joint, paint = max(1, int(min(tall, wide) * rng.uniform(0.02, 0.12))), _rgb(rng)
    for column in range(columns):
        image[:, column * wide : column * wide + joint] = paint
    if rng.random() < 0.6:
        for row in range(1, rows, 2):
            part = image[row * tall : (row + 1) * tall]
            part[:] = np.roll(part, wide // 2, axis=1)
    for row in range(rows):
        image[row * tall : row * tall + joint] = paint
    image = np.ascontiguousarray(image[:height, wide : wide + width])
    grain = octaves(rng, height, width, rough=0.8)
    return cv2.convertScaleAbs(image * (1 + rng.uniform(0, 0.5) * (grain[..., None] - 0.5)))


def _ground(rng: Rng, height: int, width: int) -> Image:
    if height < 2:
        return np.full((height, width, 3), _rgb(rng), np.uint8)
    if rng.random() < 0.4:
        return _receding(_tiled(rng, 256, 256), rng, height, width)
    near = np.linspace(0.6, 1.1, height, dtype=np.float32)[:, None]
    grain = octaves(rng, height, width, rough=rng.uniform(0.5, 0.95))
    return _painted((grain * near).clip(0, 1), [_colour(rng) * 0.8, _colour(rng) * 0.8])


def _receding(plane: Image, rng: Rng, height: int, width: int) -> Image:
    """A plane seen at an angle that fills the picture."""
    side = plane.shape[0]
    far, near = rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.3)
    middle, turn = rng.uniform(0.4, 0.6) * side, rng.uniform(-0.4, 0.4)
    corners = [(-far, -1.0), (far, -1.0), (near, 0.6), (-near, 0.6)]
    cos, sin = np.cos(turn), np.sin(turn)
    source = np.array([(x * cos - y * sin, x * sin + y * cos) for x, y in corners]) * side / 2 + middle
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix = cv2.getPerspectiveTransform(source.astype(np.float32), target)
    return cv2.warpPerspective(plane, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def _skyline(image: Image, rng: Rng, horizon: int, height: float) -> None:
    """Hills or houses on the horizon."""
    tall, wide = image.shape[:2]
    steps = int(rng.integers(4, 24))
    x = np.linspace(0, wide, steps)
    y = horizon - rng.uniform(0, height, steps) * tall
    if rng.random() < 0.5:
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    _polygon(image, np.array([*zip(x, y, strict=True), (wide, horizon), (0, horizon)]), _colour(rng) * 0.8)


def _posts(image: Image, rng: Rng, horizon: int) -> None:
    """Trunks, lamps and fences."""
    tall, wide = image.shape[:2]
    for _ in range(int(rng.integers(1, 8))):
        x, foot = rng.uniform(0, wide), horizon + rng.uniform(0, 0.5) * (tall - horizon)
        thick = max(1, int(wide * rng.uniform(0.005, 0.04)))
        head = foot - tall * rng.uniform(0.2, 0.8)
        cv2.line(image, (int(x), int(foot)), (int(x), int(head)), _rgb(rng), thick, cv2.LINE_AA)
        if rng.random() < 0.5:
            crown = wide * rng.uniform(0.04, 0.15)
            _ellipse(image, (x, head), (crown, crown * rng.uniform(0.7, 1.5)), _of(_colour(rng) * 0.6))


def _window(image: Image, rng: Rng) -> None:
    """A window, a door or a picture on the wall."""
    height, width = image.shape[:2]
    low = rng.uniform(-0.1, 0.9, 2) * (width, height)
    high = low + rng.uniform(0.08, 0.45, 2) * (width, height)
    a, b = (tuple(int(v) for v in corner) for corner in (low, high))
    cv2.rectangle(image, a, b, _rgb(rng), -1)
    cv2.rectangle(image, a, b, _rgb(rng), max(1, int(width * rng.uniform(0.004, 0.02))))
    if rng.random() < 0.5:
        middle = (a[0] + b[0]) // 2
        cv2.line(image, (middle, a[1]), (middle, b[1]), _rgb(rng), max(1, width // 120))


def _furniture(image: Image, rng: Rng, floor: float) -> None:
    """A box on legs: a table, a shelf, a sofa."""
    height, width = image.shape[:2]
    size = rng.uniform(0.08, 0.4, 2) * (width, height)
    x, foot = rng.uniform(-0.1, 1) * width, rng.uniform(floor, height * 1.1)
    legs = size[1] * rng.uniform(0, 0.6)
    colour = _colour(rng)
    body = np.array([(x, foot - size[1]), (x + size[0], foot - size[1])])
    lower = body[::-1] + np.array([0, size[1] - legs])
    for leg in (x + 0.05 * size[0], x + 0.92 * size[0]):
        cv2.line(
            image, (int(leg), int(foot - legs)), (int(leg), int(foot)), _of(colour * 0.7), max(1, width // 80)
        )
    _polygon(image, np.concatenate([body, lower]), colour)
    lid = np.array([(size[0] * 0.15, -size[1] * 0.12)])
    _polygon(image, np.concatenate([body, body[::-1] + lid]), colour * 1.15)


def _warped(image: Image, texture: Image, quad: NDArray[np.float64]) -> None:
    side = texture.shape[0]
    source = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, quad.astype(np.float32))
    size = image.shape[1], image.shape[0]
    cv2.warpPerspective(texture, matrix, size, dst=image, borderMode=cv2.BORDER_TRANSPARENT)


def _polygon(image: Image, points: NDArray[np.float64], colour: NDArray[np.float64]) -> None:
    fixed = (points * _FIXED).round().astype(np.int32)
    cv2.fillPoly(image, [fixed], _of(colour), cv2.LINE_AA, 4)


def _ellipse(
    image: Image, at: tuple[float, float], axes: tuple[float, float], colour: tuple[int, ...], turn: float = 0
) -> None:
    middle, radii = (tuple(round(v * _FIXED) for v in pair) for pair in (at, axes))
    cv2.ellipse(image, middle, radii, turn, 0, 360, colour, -1, cv2.LINE_AA, 4)


def _resized(grid: NDArray[np.float32], height: int, width: int, how: int) -> NDArray[np.float32]:
    return cv2.resize(np.ascontiguousarray(grid), (width, height), interpolation=how)


def _sky(rng: Rng) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    skies = [
        ((70, 120, 190), (190, 210, 230)), ((200, 205, 210), (225, 225, 225)), ((40, 40, 80), (230, 130, 70)),
        ((10, 12, 30), (40, 40, 60)), ((110, 160, 220), (235, 235, 225)),
    ]  # fmt: skip
    top, low = skies[rng.integers(len(skies))]
    shift = rng.normal(0, 15, 3).astype(np.float32)
    return np.array(top, np.float32) + shift, np.array(low, np.float32) + shift


def _colour(rng: Rng) -> NDArray[np.float64]:
    """Any colour; dull ones are as likely as bright ones."""
    grey = rng.uniform(0, 255)
    return (grey + rng.normal(0, 1, 3) * rng.choice([6.0, 25.0, 80.0])).clip(0, 255)


def _of(colour: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(colour, 0, 255))
    return red, green, blue


def _rgb(rng: Rng) -> tuple[int, int, int]:
    return _of(_colour(rng))


def _paint(rng: Rng) -> tuple[int, int, int]:
    return (235, 235, 235) if rng.random() < 0.7 else _rgb(rng)


def _skin(rng: Rng) -> tuple[int, int, int]:
    return _of(np.array([225, 180, 150]) * rng.uniform(0.25, 1.05))


def _hair(rng: Rng) -> tuple[int, int, int]:
    return _of(np.array([90, 65, 45]) * rng.uniform(0.2, 2.4))
