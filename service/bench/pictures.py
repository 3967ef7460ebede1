"""Pictures to send: textured, the same on every machine, and of the wanted number of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from service.types import Image

SEED = 20_231
_GRAINS = (64, 16, 4, 1)
"""Sizes of the texture's grains in pixels, from the coarsest; photographs have detail at every scale too."""
_QUALITIES = range(20, 100)


@dataclass(frozen=True)
class Picture:
    """One picture as it is sent."""

    name: str
    data: bytes
    media: str
    size: tuple[int, int]
    """(height, width)."""

    @property
    def encoded(self) -> bool:
        """Whether it is a file; else bare pixels."""
        return self.media.startswith("image/")

    @property
    def boxes(self) -> str:
        """One person that fills the picture, in the form of the REST service."""
        height, width = self.size
        return f"[[0,0,{width},{height}]]"


def standard() -> tuple[Picture, ...]:
    """A person's crop as bare pixels and as a JPEG of 14 KB, and a camera's frame as a JPEG of 40 KB."""
    crop, frame = texture((256, 192)), texture((480, 640))
    return (
        Picture("raw 192x256", crop.tobytes(), "application/x-raw-rgb; width=192; height=256", (256, 192)),
        Picture("JPEG 192x256", jpeg_of(crop, 14_000), "image/jpeg", (256, 192)),
        Picture("JPEG 640x480", jpeg_of(frame, 40_000), "image/jpeg", (480, 640)),
    )


def from_file(name: str, data: bytes) -> Picture:
    """Somebody's own JPEG. Raises ValueError where it is none."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    return Picture(f"{name} {width}x{height}", data, "image/jpeg", (height, width))


def texture(size: tuple[int, int]) -> Image:
    """(H, W, 3) uint8 RGB: noise at several scales."""
    height, width = size
    random = np.random.default_rng(SEED)
    picture = np.full((height, width, 3), 128.0)
    for grain in _GRAINS:
        noise = random.normal(0, 6 * grain**0.5, (-(-height // grain), -(-width // grain), 3))
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def jpeg_of(pixels: Image, count: int) -> bytes:
    """The JPEG, chroma halved as in most photographs, whose length is nearest to `count` bytes."""
    files = (simplejpeg.encode_jpeg(pixels, quality, colorsubsampling="420") for quality in _QUALITIES)
    return min(files, key=lambda file: abs(len(file) - count))
