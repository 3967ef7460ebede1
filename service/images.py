"""Bytes of an image file -> RGB pixels, within limits that the header is held against before anything is decoded.

Pillow reads every header but the plainest of JPEG, and is the reference: the decoders that are faster give its pixels
to the last bit. libjpeg-turbo decodes the usual JPEG (in about three fifths of Pillow's time), OpenCV the plain PNG
and WebP (nine tenths, of large WebP a half) and BMP (a half or less). Pillow decodes all else, and whatever the
others find fault with, so that it alone judges what is broken. Its own guard against decompression bombs is a
warning, and an error only at twice its size; it is switched off here, because `ImageLimits` draws the line. OpenCV's
complaints are switched off too: what is wrong with an image stands in the answer. Those of libpng cannot be, so that
what its checksums condemn is kept from it.

What becomes of the less usual images: EXIF orientation 1-8 is applied; transparency is laid over black, which is also
what a crop shows outside of the frame; 16-bit grey keeps its upper 8 bits; an animation gives its first frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import cv2
import numpy as np
import PIL.Image
import simplejpeg

from model_zoo import geometry
from service import parts
from service.errors import ImageTooLarge, InvalidImage, ServiceError
from service.types import Floats, Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

REDUCTIONS = (8, 4, 2)
"""By how much a JPEG can be reduced while it is decoded. libjpeg-turbo knows more, but is slower at those."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT: dict[int, tuple[Callable[[Image], Image], tuple[bool, bool]]] = {
    2: (lambda pixels: cv2.flip(pixels, 1), (True, False)),
    3: (lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180), (True, True)),
    4: (lambda pixels: cv2.flip(pixels, 0), (False, True)),
    5: (cv2.transpose, (False, False)),
    6: (lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE), (True, False)),
    7: (lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180), (True, True)),
    8: (lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE), (False, True)),
}
"""EXIF orientation -> what makes the image upright (Exif 2.3, tag 274), and whether x and y then run backwards."""

_PNG_CHUNKS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"tIME")
)
"""What leaves the pixels of a PNG as they are; others hold transparency, frames of an animation or an orientation."""

_PNG_TEXTS = 100

_WEBP_CANVAS = slice(24, 30)
"""Where an extended WebP file has its size (WebP Container Specification, "Extended File Format")."""

_JFIF = b"\xff\xd8\xff\xe0"
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_JPEG_PROGRESSIVE = 0xC2
_JPEG_SCAN = 0xDA
_JPEG_SEGMENTS = 64
"""Most segments of a plain JPEG's header; the usual one has about 10."""
_JPEG_HARMLESS = frozenset((0xE0, 0xDB, 0xC4, 0xDD, 0xFE))
"""Markers of a JPEG (ITU-T T.81, table B.1): frames that are not lossless or arithmetic; the scan, where the header
ends; and APP0 (JFIF), tables, restart interval and comment."""

_PILLOW_OUT_OF_MEMORY = "out of memory"
"""So begins what Pillow's own decoders say then."""

PIL.Image.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


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


@dataclass(frozen=True, eq=False, slots=True)
class MeteredLimits(ImageLimits):
    """Limits of one image that somebody pays for."""

    meter: Callable[[int], None]
    """Told once how many pixels the image has, as soon as that is known; may refuse it by an error."""
    told: list[int] = field(default_factory=list)

    def check_size(self, width: int, height: int) -> None:
        """As in `ImageLimits`; and raise what the meter raises."""
        ImageLimits.check_size(self, width, height)
        if not self.told:  # a second look at the header, by another decoder, is free
            self.told.append(width * height)
            self.meter(width * height)


@dataclass(frozen=True, eq=False, slots=True)
class Decoded:
    """A frame, in full or reduced."""

    pixels: Image
    """(H, W, 3) RGB uint8, upright. May be read-only."""
    size: tuple[int, int]
    """(height, width) of the frame in full, upright."""
    to_frame: Floats | None = None
    """(2, 3) to coordinates of the frame from those of `pixels`; None where they are the same."""

    def crop_map(self, matrix: Floats) -> Floats:
        """A (2, 3) map from the frame to a crop, as one from `pixels`."""
        return matrix if self.to_frame is None else geometry.compose(matrix, self.to_frame)


def decode(data: bytes, limits: ImageLimits, coarsest: float = 1.0) -> Decoded:
    """Decode one image file.

    Args:
        data: the file's bytes.
        limits: held against the length and the header before anything is decoded, whatever is decoded then.
        coarsest: how many pixels of the frame, along each axis, one of the answer may stand for at most. Only the
            usual JPEG makes use of it, where the next smaller of REDUCTIONS spares time.

    Raises:
        ImageTooLarge: beyond the limits.
        InvalidImage: none of FORMATS, truncated or broken.
        MemoryError: there is no memory for the pixels.
    """
    limits.check_bytes(len(data))
    if not data:
        raise InvalidImage("the image is empty")
    if _plain_jpeg(data) and (decoded := _decoded_plain_jpeg(data, limits, coarsest)) is not None:
        return decoded
    parts.check(data)
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= _WEBP_CANVAS.stop:
        limits.check_size(*_webp_canvas(data))  # Pillow has memory for all of it before it tells the size
    try:
        with PIL.Image.open(BytesIO(data), formats=FORMATS) as image:
            limits.check_size(*image.size)
            pixels = _opencv(data, image)
            if pixels is not None:
                return Decoded(pixels, pixels.shape[:2])
            factor = _reduction(*image.size, coarsest)
            pixels = _turbo(data, image, factor)
            if pixels is None:
                factor = 1
                image.load()
                pixels = np.asarray(_rgb(image))
            orientation = _orientation(image)  # which a PNG may say behind its pixels
            return _upright(pixels, image.size, factor, orientation)
    except PIL.UnidentifiedImageError:
        raise InvalidImage(f"the image is none of {', '.join(FORMATS)}, or its header is broken") from None
    except (ServiceError, MemoryError):  # too large, or more than its sender may ask for
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        if isinstance(error, OSError) and str(error).startswith(_PILLOW_OUT_OF_MEMORY):
            raise MemoryError(str(error)) from error
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


def _plain_jpeg(data: bytes) -> bool:
    """Whether the header is that of most photographs from the web or from another program: 8 bits of grey or YCbCr in
    JFIF, and nothing (EXIF, XMP, several pictures, Adobe's own colours) that could mean something else by the pixels.

    It takes a tenth of the time that Pillow takes to read a header.
    """
    if not data.startswith(_JFIF):
        return False
    at, components = 2, 0
    for _ in range(_JPEG_SEGMENTS):
        if at + 10 > len(data) or data[at] != 0xFF:
            return False
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in _JPEG_FRAMES:
            if components or data[at + 4] != 8 or (marker == _JPEG_PROGRESSIVE and parts.many_scans(data)):
                return False
            components = data[at + 9]
        elif marker == _JPEG_SCAN:
            return components in (1, 3)
        elif marker not in _JPEG_HARMLESS:
            return False
        at += 2 + length
    return False


def _decoded_plain_jpeg(data: bytes, limits: ImageLimits, coarsest: float) -> Decoded | None:
    """None where libjpeg-turbo finds fault with it. Raises ImageTooLarge, MemoryError."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        limits.check_size(width, height)
        factor = _reduction(width, height, coarsest)
        return _upright(_libjpeg(data, width, height, factor), (width, height), factor, orientation=1)
    except ValueError:
        return None


def _reduction(width: int, height: int, coarsest: float) -> int:
    if max(width, height) < max(REDUCTIONS):  # of such a speck several reductions have the same size
        return 1
    return next((factor for factor in REDUCTIONS if factor <= coarsest), 1)


def _turbo(data: bytes, image: PIL.Image.Image, factor: int) -> Image | None:
    """The pixels of a JPEG in colour or grey without a fault; None for anything else.

    Args:
        data: the file's bytes.
        image: the same, its header read and held against the limits.
        factor: 1, or one of REDUCTIONS.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != image.size:  # the limits were held against another header
            return None
        return _libjpeg(data, width, height, factor)
    except ValueError:
        return None


def _libjpeg(data: bytes, width: int, height: int, factor: int) -> Image:
    """The pixels of a JPEG of this size, reduced by 1 or one of REDUCTIONS. Raises ValueError for any fault of it."""
    if factor == 1:
        return simplejpeg.decode_jpeg(data)
    return simplejpeg.decode_jpeg(
        data, min_height=geometry.reduced(height, factor), min_width=geometry.reduced(width, factor)
    )


def _opencv(data: bytes, image: PIL.Image.Image) -> Image | None:
    """The pixels of a PNG, WebP or BMP of the plainest kind, which has no orientation; None for anything else."""
    plain = _PLAIN.get(image.format)
    if plain is None or image.mode not in ("RGB", "L") or not plain(data, *image.size):
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # of memory too, or beyond its own limits: Pillow says what it is
        return None
    if pixels is None or pixels.shape != (image.height, image.width, 3):
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _plain_png(data: bytes, width: int, height: int) -> bool:
    """8 bits of grey or colour, not interlaced, intact to its end, and without any chunk that matters else.

    None but pixels and texts may be there twice: libpng would complain of each on stderr.
    """
    if data[16:24] != struct.pack(">II", width, height) or data[24:29] not in (
        b"\x08\0\0\0\0",
        b"\x08\x02\0\0\0",
    ):
        return False
    at, end, name, view = 8, len(data), b"", memoryview(data)
    seen: set[bytes] = set()
    texts = 0
    while at + 12 <= end and name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        texts += name == b"tEXt"
        if (name in seen and name not in (b"IDAT", b"tEXt")) or texts > _PNG_TEXTS:
            return False
        seen.add(name)
        if name not in _PNG_CHUNKS and not (name == b"tEXt" and data[at + 8 : at + 11] != b"Raw"):
            return False
        checksum = struct.pack(">I", zlib.crc32(view[at + 4 : at + 8 + length]))
        at += 12 + length
        if data[at - 4 : at] != checksum:
            return False
    return at == end and name == b"IEND"


def _plain_webp(data: bytes, width: int, height: int) -> bool:
    """One frame in the simple file format: no animation, no EXIF."""
    return data[12:16] in (b"VP8 ", b"VP8L")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """(width, height) of an extended WebP file."""
    sides = data[_WEBP_CANVAS]
    return 1 + int.from_bytes(sides[:3], "little"), 1 + int.from_bytes(sides[3:], "little")


def _plain_bmp(data: bytes, width: int, height: int) -> bool:
    """24 bits, not compressed, bottom row first, and no row is missing."""
    if len(data) < 54:
        return False
    offset, header, *size, _, bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    row = (3 * width + 3) // 4 * 4
    return (header, *size, bits, packing) == (40, width, height, 24, 0) and offset + row * height <= len(data)


_PLAIN = {"PNG": _plain_png, "WEBP": _plain_webp, "BMP": _plain_bmp}


def _upright(pixels: Image, stored_size: tuple[int, int], factor: int, orientation: int) -> Decoded:
    """Turn pixels as EXIF says.

    Args:
        pixels: as stored.
        stored_size: (width, height) of the file in full.
        factor: by which the pixels are reduced.
        orientation: of EXIF.
    """
    turn, backwards = _UPRIGHT.get(orientation, (None, (False, False)))
    width, height = stored_size
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    to_frame = None if factor == 1 else geometry.from_reduced(size, factor, backwards)
    return Decoded(pixels if turn is None else turn(pixels), size, to_frame)


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
