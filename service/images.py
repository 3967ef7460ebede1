"""Bytes of an image file -> RGB pixels, within limits that the header is held against before anything is decoded.

Pillow decodes. Its own guard against decompression bombs is a warning, and an error only at twice its size; it is
switched off here, because `ImageLimits` draws the line.

What becomes of the less usual images: EXIF orientation 1-8 is applied; transparency is laid over black, which is also
what a crop shows outside of the frame; 16-bit grey keeps its upper 8 bits; an animation gives its first frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from service.errors import ImageTooLarge, InvalidImage
from service.types import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
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
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            flat = _rgb(image)
            return np.asarray(flat if turn is None else flat.transpose(turn))
    except PIL.UnidentifiedImageError:
        raise InvalidImage(f"the image is none of {', '.join(FORMATS)}, or its header is broken") from None
    except ImageTooLarge:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise InvalidImage("the image is truncated or broken") from error


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
