"""Bytes of an image file -> RGB pixels, within limits that the header is held against before anything is decoded.

Pillow reads every header. libjpeg-turbo decodes the usual JPEG, to the same pixels in about three fifths of the time;
Pillow decodes all else, and whatever libjpeg-turbo finds fault with, so that it alone judges what is broken. Other
decoders of PNG and WebP give the same pixels too, but spare no more than a fifth of the time. Pillow's own guard
against decompression bombs is a warning, and an error only at twice its size; it is switched off here, because
`ImageLimits` draws the line.

What becomes of the less usual images: EXIF orientation 1-8 is applied; transparency is laid over black, which is also
what a crop shows outside of the frame; 16-bit grey keeps its upper 8 bits; an animation gives its first frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import PIL.Image
import simplejpeg

from service.errors import ImageTooLarge, InvalidImage
from service.types import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

_EXIF_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[Image], Image]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""EXIF orientation -> what makes the image upright (Exif 2.3, tag 274)."""

PIL.Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is taken."""

    bytes: int
    pixels: int
    side: int
    """Pixels along one side."""

    def check_bytes(self, count: int) -> None:
        """Raise ImageTooLarge where an encoded image is too long."""
        if count > self.bytes:
            raise ImageTooLarge(
                f"the image is larger than {self.bytes} bytes, the most that this service takes"
            )

    def check_size(self, width: int, height: int) -> None:
        """Raise ImageTooLarge where an image has too many pixels."""
        if max(width, height) > self.side or width * height > self.pixels:
            raise ImageTooLarge(
                f"the image has {width} x {height} pixels; this service takes {self.pixels} in all "
                f"and {self.side} along a side"
            )


def decode(data: bytes, limits: ImageLimits) -> Image:
    """Decode one image file.

    Args:
        data: the file's bytes.
        limits: held against the length and the header before anything is decoded.

    Returns:
        (H, W, 3) RGB uint8, upright. May be read-only.

    Raises:
        ImageTooLarge: beyond the limits.
        InvalidImage: none of FORMATS, truncated or broken.
    """
    limits.check_bytes(len(data))
    if not data:
        raise InvalidImage("the image is empty")
    try:
        with PIL.Image.open(BytesIO(data), formats=FORMATS) as image:
            limits.check_size(*image.size)
            pixels = _turbo(data, image)
            if pixels is None:
                image.load()
                pixels = np.asarray(_rgb(image))
            turn = _UPRIGHT.get(_orientation(image))  # which a PNG may say behind its pixels
            return pixels if turn is None else turn(pixels)
    except PIL.UnidentifiedImageError:
        raise InvalidImage(f"the image is none of {', '.join(FORMATS)}, or its header is broken") from None
    except ImageTooLarge:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise InvalidImage("the image is truncated or broken") from error


def bare(data: bytes, size: tuple[int, int], limits: ImageLimits) -> Image:
    """Pixels that were sent as they are.

    Args:
        data: rows from the top, 3 bytes RGB for each pixel, nothing between them.
        size: (height, width) as the client says.
        limits: as in `decode`.

    Returns:
        (H, W, 3) RGB uint8 over the same memory, read-only.

    Raises:
        ImageTooLarge: beyond the limits.
        InvalidImage: there are no pixels, or not as many as the size says.
    """
    height, width = size
    limits.check_bytes(len(data))
    limits.check_size(width, height)
    if min(size) < 1 or len(data) != height * width * 3:
        raise InvalidImage(f"{len(data)} bytes are not {width} x {height} bare pixels of 3 bytes")
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _turbo(data: bytes, image: PIL.Image.Image) -> Image | None:
    """The pixels of a JPEG in colour or grey without a fault; None for anything else.

    Args:
        data: the file's bytes.
        image: the same, its header read and held against the limits.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != image.size:  # the limits were held against another header
            return None
        return simplejpeg.decode_jpeg(data)
    except ValueError:
        return None


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # as above; a broken EXIF block does not make the picture useless
        return 1


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")
