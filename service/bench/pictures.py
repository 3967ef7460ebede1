"""Pictures to send: textured, the same on every machine, and of the wanted number of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from service.types import Image

SEED = 20_231
PERSON = "person 192x256"
"""Name of the picture with somebody in it."""
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
    routes: tuple[str, ...] = ("rest", "multipart", "unary", "stream")
    """How it is sent."""

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
    """A person's crop as bare pixels and as a JPEG of 14 KB, a camera's frame as a JPEG of 40 KB, and a crop of 14 KB
    in which somebody is to be seen, for those who follow people."""
    size = (256, 192)
    crop, frame, person = texture(size), texture((480, 640)), figure(size)
    raw, bare = "application/x-raw-rgb; width=192; height=256", ("rest", "unary", "stream")
    return (
        Picture("raw 192x256", crop.tobytes(), raw, size, bare),
        Picture("JPEG 192x256", jpeg_of(crop, 14_000), "image/jpeg", size),
        Picture("JPEG 640x480", jpeg_of(frame, 40_000), "image/jpeg", (480, 640)),
        Picture(PERSON, jpeg_of(person, 14_000), "image/jpeg", size, ("stream", "live", "file")),
    )


def from_file(name: str, data: bytes) -> Picture:
    """Somebody's own JPEG. Raises ValueError where it is none."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    routes = ("rest", "multipart", "unary", "stream", "live", "file")
    return Picture(f"{name} {width}x{height}", data, "image/jpeg", (height, width), routes)


def texture(size: tuple[int, int], seed: int = SEED) -> Image:
    """(H, W, 3) uint8 RGB: noise at several scales."""
    height, width = size
    random = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128.0)
    for grain in _GRAINS:
        noise = random.normal(0, 6 * grain**0.5, (-(-height // grain), -(-width // grain), 3))
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


_SKIN, _HAIR, _SHIRT, _TROUSERS, _SHOES = (
    (205, 160, 130),
    (60, 40, 30),
    (60, 80, 140),
    (50, 50, 60),
    (30, 30, 30),
)
_LIMBS = (
    ((-12, 12), (-16, 57), 9, _TROUSERS),
    ((-16, 57), (-18, 100), 7, _TROUSERS),
    ((12, 12), (16, 57), 9, _TROUSERS),
    ((16, 57), (20, 100), 7, _TROUSERS),
    ((-18, 104), (-26, 108), 5, _SHOES),
    ((20, 104), (28, 108), 5, _SHOES),
    ((-24, -52), (24, -52), 7, _SHIRT),
    ((0, -66), (0, -54), 6, _SKIN),
    ((-28, -50), (-38, -20), 7, _SHIRT),
    ((-38, -20), (-44, 10), 5, _SKIN),
    ((28, -50), (40, -22), 7, _SHIRT),
    ((40, -22), (34, 8), 5, _SKIN),
)
"""From, to and half the width of each, in 1/256 of the picture's height from its middle."""


def figure(
    size: tuple[int, int], *, at: tuple[float, float] = (0.5, 0.5), height: float = 1.0, seed: int = SEED
) -> Image:
    """(H, W, 3) uint8 RGB: somebody who stands in the open, drawn plainly but so that a model of people sees them.

    Args:
        size: (height, width) of the picture.
        at: where the middle of the person is, as shares of width and height.
        height: of the person's surroundings, as a share of the picture's; the person has 0.87 of that.
        seed: of the texture behind.
    """
    picture = cv2.addWeighted(texture(size, seed), 0.5, np.full((*size, 3), 150, np.uint8), 0.5, 0.0)
    scale = size[0] * height / 256
    middle = np.array(at) * size[::-1]

    def place(*points: tuple[float, float]) -> np.ndarray:
        return np.round(middle + np.array(points) * scale).astype(np.int32)

    def thick(width: float) -> int:
        return max(1, round(width * scale))

    torso = place((-26, -56), (26, -56), (18, 14), (-18, 14))
    cv2.fillPoly(picture, [torso], _SHIRT, cv2.LINE_AA)
    for begin, end, radius, colour in _LIMBS:
        ends = place(begin, end).tolist()
        cv2.line(picture, *ends, colour, thick(2 * radius), cv2.LINE_AA)
    for hand in ((-45, 13), (33, 11)):
        cv2.circle(picture, place(hand)[0].tolist(), thick(6), _SKIN, -1, cv2.LINE_AA)
    face, crown = place((0, -84), (0, -92)).tolist()
    cv2.ellipse(picture, face, (thick(14), thick(18)), 0, 0, 360, _SKIN, -1, cv2.LINE_AA)
    cv2.ellipse(picture, crown, (thick(15), thick(13)), 0, 180, 360, _HAIR, -1, cv2.LINE_AA)
    for eye in ((-6, -85), (6, -85)):
        cv2.circle(picture, place(eye)[0].tolist(), thick(1.6), _SHOES, -1, cv2.LINE_AA)
    cv2.line(picture, *place((0, -83), (0, -78)).tolist(), (170, 120, 95), thick(2), cv2.LINE_AA)
    cv2.line(picture, *place((-5, -73), (5, -73)).tolist(), (150, 60, 60), thick(2), cv2.LINE_AA)
    return picture


def jpeg_of(pixels: Image, count: int) -> bytes:
    """The JPEG, chroma halved as in most photographs, whose length is nearest to `count` bytes."""
    files = (simplejpeg.encode_jpeg(pixels, quality, colorsubsampling="420") for quality in _QUALITIES)
    return min(files, key=lambda file: abs(len(file) - count))
