"""What a camera does to light: blur, exposure, colour, noise, coarse pixels and JPEG. Labels stay where they are.

Kernels are symmetric, and coarser or colour-shifted pictures keep their centre, so that the truth about a picture
holds for what comes out of here. Light is linear from the lens to the noise, as in a camera; the curve to 8 bits comes
last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Light = NDArray[np.float32]

JPEG_QUALITY = "jpeg_quality"
"""Key of `Sample.meta` that says how the picture is stored."""


@dataclass(frozen=True)
class Sensor:
    """How one picture, or every frame of one video, is taken. The defaults change nothing."""

    blur_px: float = 0.0
    """Standard deviation of the lens's blur."""
    motion_px: float = 0.0
    """Length of the path that the camera moves during the exposure."""
    motion_turn: float = 0.0
    """Direction of that path, radians."""
    exposure: float = 1.0
    """Factor of the light."""
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of red, green and blue."""
    vignette: float = 0.0
    """Share of the light that the corners lose."""
    aberration_px: float = 0.0
    """How far red is magnified outwards, and blue inwards, at the corners."""
    scale: float = 1.0
    """Side of the sensor's grid over that of the picture; below 1 detail is lost."""
    shot: float = 0.0
    """Noise that grows with the root of the light: standard deviation at full light, 1 being white."""
    read: float = 0.0
    """Noise that does not depend on the light."""
    gamma: float = 1.0
    """Exponent of the curve to 8 bits, relative to the usual one; above 1 darkens the middle."""
    contrast: float = 1.0
    """Spread about the middle grey."""
    sharpened: float = 0.0
    """How much of what a blur of one pixel takes away the camera adds again."""
    grey: bool = False
    """Without colour."""
    jpeg_quality: int = 95
    """Of the file."""

    def meta(self) -> dict[str, Any]:
        """JSON-able, for `Sample.meta`; `encode` reads its part of it there."""
        return {JPEG_QUALITY: self.jpeg_quality, "sensor": _short(asdict(self))}


def draw(rng: np.random.Generator, *, without: frozenset[str] = frozenset()) -> Sensor:
    """Some camera on some day; most effects are absent from most pictures.

    Args:
        rng: of this picture.
        without: fields that keep their default; the others are drawn as ever.
    """

    def sometimes(chance: float, value: float, otherwise: float) -> float:
        return float(value) if rng.random() < chance else otherwise

    warmth, tint = rng.normal(0, 0.08), rng.normal(0, 0.03)
    noise = rng.random() < 0.6
    drawn = Sensor(
        blur_px=sometimes(0.25, rng.gamma(1.5, 0.6), 0.0),
        motion_px=sometimes(0.1, rng.uniform(2, 9), 0.0),
        motion_turn=float(rng.uniform(0, np.pi)),
        exposure=float(np.exp(rng.normal(0, 0.3))),
        balance=(float(np.exp(warmth)), float(np.exp(tint)), float(np.exp(-warmth))),
        vignette=sometimes(0.3, rng.uniform(0.05, 0.5), 0.0),
        aberration_px=sometimes(0.2, rng.uniform(-1.2, 1.2), 0.0),
        scale=sometimes(0.2, rng.uniform(0.3, 0.9), 1.0),
        shot=float(rng.uniform(0.005, 0.07)) if noise else 0.0,
        read=float(rng.uniform(0.001, 0.012)) if noise else 0.0,
        gamma=float(np.exp(rng.normal(0, 0.15))),
        contrast=float(np.exp(rng.normal(0, 0.12))),
        sharpened=sometimes(0.7, rng.uniform(0.2, 1.6), 0.0),
        grey=bool(rng.random() < 0.07),
        jpeg_quality=int(rng.integers(30, 96)),
    )
    return replace(drawn, **{name: getattr(Sensor(), name) for name in without})


def apply(image: Image, sensor: Sensor, rng: np.random.Generator) -> Image:
    """Take a picture of a picture.

    Args:
        image: (H, W, 3) RGB, ideal. Never written to.
        sensor: how.
        rng: of the noise; a video's frames share the sensor, not the noise.

    Returns:
        (H, W, 3) RGB. What `jpeg_quality` says is left to `encode`.
    """
    height, width = image.shape[:2]
    light: Light = cv2.LUT(image, _linear())
    if sensor.blur_px > 0.2:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur_px, borderType=cv2.BORDER_REFLECT_101)
    if sensor.motion_px > 1:
        kernel = motion_kernel(sensor.motion_px, sensor.motion_turn)
        light = cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    if sensor.aberration_px:
        light = _aberration(light, sensor.aberration_px)
    if sensor.scale < 1:
        grid = max(1, round(width * sensor.scale)), max(1, round(height * sensor.scale))
        light = cv2.resize(light, grid, interpolation=cv2.INTER_AREA)
    light = cv2.multiply(light, (*(sensor.exposure * each for each in sensor.balance), 0.0))
    if sensor.vignette:
        light *= _vignette(light.shape[0], light.shape[1], sensor.vignette)[..., None]
    if sensor.shot or sensor.read:
        light += _noise(light.shape, rng) * np.sqrt(light * sensor.shot**2 + sensor.read**2)
    seen = _developed(light, sensor)
    if sensor.sharpened:
        soft = cv2.GaussianBlur(seen, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT_101)
        seen = cv2.addWeighted(seen, 1 + sensor.sharpened, soft, -sensor.sharpened, 0)
    if sensor.scale < 1:
        seen = cv2.resize(seen, (width, height), interpolation=cv2.INTER_LINEAR)
    return seen


def encode(image: Image, meta: Mapping[str, Any]) -> bytes:
    """The JPEG of a picture, of the quality that its `meta` asks for; colour at half the resolution below 90."""
    quality = int(meta.get(JPEG_QUALITY, 95))
    sampling = "420" if quality < 90 else "444"
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", sampling)


def motion_kernel(length_px: float, turn: float) -> NDArray[np.float32]:
    """(n, n) weights, n odd: a straight path through the middle, symmetric about it, with the sum 1."""
    half = int(np.ceil(length_px / 2)) + 1
    count = 8 * half
    steps = ((np.arange(count) + 0.5) / count - 0.5) * length_px
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float64)
    x, y = steps * np.cos(turn) + half, steps * np.sin(turn) + half
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - right - (x - left)) * np.abs(1 - down - (y - top))
        inside = (left + right < len(kernel)) & (top + down < len(kernel))
        np.add.at(kernel, (top[inside] + down, left[inside] + right), share[inside])
    kernel = kernel + kernel[::-1, ::-1]
    return (kernel / kernel.sum()).astype(np.float32)


def _developed(light: Light, sensor: Sensor) -> Image:
    """Light to 8 bits: clipped where it is too bright, then by the curve."""
    seen = cv2.convertScaleAbs(cv2.sqrt(np.maximum(light, 0, out=light)), alpha=255)  # rounds, stops at 255
    if sensor.gamma != 1 or sensor.contrast != 1:
        tone = (np.arange(256) / 255) ** sensor.gamma
        tone = (tone - 0.5) * sensor.contrast + 0.5
        seen = cv2.LUT(seen, (tone.clip(0, 1) * 255).round().astype(np.uint8)[None])
    if sensor.grey:
        seen = cv2.cvtColor(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return seen


def _aberration(light: Light, shift_px: float) -> Light:
    height, width = light.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    channels = list(cv2.split(light))
    for channel, sign in ((0, 1), (2, -1)):
        factor = 1 + sign * shift_px / max(np.hypot(*middle), 1)
        matrix = np.array([[factor, 0, middle[0] * (1 - factor)], [0, factor, middle[1] * (1 - factor)]])
        channels[channel] = cv2.warpAffine(
            channels[channel],
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    return cv2.merge(channels)


@cache
def _linear() -> Light:
    """(1, 256) from 8 bits to light; the square is near enough to sRGB's curve, and its root is fast."""
    return ((np.arange(256, dtype=np.float32) / 255) ** 2)[None]


@cache
def _noise_bank() -> Light:
    """Normal numbers to cut noise from: drawing new ones for every pixel costs more than all else here."""
    return np.random.default_rng(0).standard_normal(1 << 22, np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Light:
    count = int(np.prod(shape))
    bank = _noise_bank()
    if count > len(bank) // 2:
        return rng.standard_normal(shape, np.float32)
    start = int(rng.integers(0, len(bank) - count))
    return bank[start : start + count].reshape(shape) * np.float32(rng.choice([-1, 1]))


def _vignette(height: int, width: int, loss: float) -> Light:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    return 1 - np.float32(loss) * (x * x + y * y) / 2


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    """Only what differs from the default, with as many digits as matter."""
    default = asdict(Sensor())
    return {
        name: np.round(value, 4).tolist() if isinstance(value, float | tuple) else value
        for name, value in fields.items()
        if value != default[name] and name != JPEG_QUALITY
    }
