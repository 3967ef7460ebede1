"""Files of very many parts are refused at once; what encoders write is not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import parts
from service.errors import InvalidImage
from service.images import ImageLimits, decode

LIMITS = ImageLimits(20 * 1024 * 1024, 40_000_000, 16_384)
PIXELS = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)


def encoded(form: str, **options: object) -> bytes:
    held = BytesIO()
    PIL.Image.fromarray(PIXELS).save(held, form, **options)
    return held.getvalue()


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


JPEG, PNG, GIF = encoded("JPEG"), encoded("PNG"), encoded("GIF")
PROGRESSIVE = encoded("JPEG", progressive=True)
APP0_ENDS = 20  # SOI and the segment of JFIF
IHDR_ENDS = 33
GIF_HEAD_ENDS = 13 + (3 << (GIF[10] & 7) + 1)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]


def in_jpeg(part: bytes, count: int) -> bytes:
    return JPEG[:APP0_ENDS] + part * count + JPEG[APP0_ENDS:]


def in_png(part: bytes, count: int) -> bytes:
    return PNG[:IHDR_ENDS] + part * count + PNG[IHDR_ENDS:]


def in_gif(part: bytes, count: int) -> bytes:
    return GIF[:GIF_HEAD_ENDS] + part * count + GIF[GIF_HEAD_ENDS:]


MANY: dict[str, Callable[[int], bytes]] = {
    "comments": lambda count: in_jpeg(b"\xff\xfe\x00\x02", count),
    "EXIF": lambda count: in_jpeg(b"\xff\xe1\x00\x02", count),
    "Photoshop": lambda count: in_jpeg(b"\xff\xed\x00\x02", count),
    "tables": lambda count: in_jpeg(JPEG[APP0_ENDS : APP0_ENDS + 69], count),
    "filling": lambda count: in_jpeg(b"\xff", count),
    "garbage": lambda count: in_jpeg(b"x", count),
    "restarts": lambda count: in_jpeg(b"\xff\xd0", count),
    "scans": lambda count: PROGRESSIVE[:-2] + LAST_SCAN * count + PROGRESSIVE[-2:],
    "known chunks": lambda count: in_png(chunk(b"tIME"), count),
    "unknown chunks": lambda count: in_png(chunk(b"abCd"), count),
    "texts": lambda count: in_png(chunk(b"tEXt", b"a\0b"), count),
    "chunks at the end": lambda count: PNG[:-12] + chunk(b"abCd") * count + PNG[-12:],
    "empty pixels": lambda count: in_png(chunk(b"IDAT"), count),
    "GIF comments": lambda count: in_gif(b"!\xfe\x01a\x00", count),
    "one GIF comment": lambda count: in_gif(b"!\xfe" + b"\x01a" * count + b"\0", 1),
    "GIF garbage": lambda count: in_gif(b"x", count),
}


@pytest.mark.parametrize("kind", MANY)
def test_files_of_many_parts_are_refused_in_words(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidImage, match=r"more than [0-9]+ (segments|scans|chunks|blocks)"):
        decode(MANY[kind](300_000 if kind != "tables" and kind != "scans" else 2_000), LIMITS)
    assert not capfd.readouterr().err  # nor is a line written for each


@pytest.mark.parametrize(
    "kind", sorted(set(MANY) - {"empty pixels", "GIF garbage", "garbage", "restarts", "GIF comments"})
)
def test_some_parts_are_fine(kind: str) -> None:
    assert decode(MANY[kind](20), LIMITS).size == PIXELS.shape[:2]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("profile", [0, 1_000_000])
def test_what_encoders_write_passes(form: str, profile: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "x" * 10_000
    options: dict[str, object] = (
        {} if form in ("BMP", "GIF") else {"icc_profile": bytes(profile), "exif": exif}
    )
    for more in ({}, {"progressive": True, "restart_marker_blocks": 1} if form == "JPEG" else {}):
        parts.check(encoded(form, **options, **more))


def test_a_png_of_small_chunks_of_pixels_passes() -> None:
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
    pieces = b"".join(chunk(b"IDAT", data[at : at + 256]) for at in range(0, len(data), 256))
    whole = PNG[:IHDR_ENDS] + pieces + chunk(b"IEND")
    assert np.array_equal(decode(whole, LIMITS).pixels, PIXELS)


@given(
    st.sampled_from((JPEG, PNG, GIF, PROGRESSIVE)),
    st.integers(0, 2000),
    st.binary(max_size=40),
    st.integers(0, 40),
)
def test_whatever_a_file_holds_it_is_looked_through(data: bytes, at: int, put: bytes, cut: int) -> None:
    """No other error, and an end."""
    try:
        parts.check(data[:at] + put + data[at + cut :])
    except InvalidImage:
        return
