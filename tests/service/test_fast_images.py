"""The fast decoders give Pillow's pixels to the last bit, and leave to Pillow what they should."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from service import images
from service.errors import ImageTooLarge, InvalidImage
from service.images import ImageLimits
from tests import tiny_model

LIMITS = ImageLimits(bytes=10_000_000, pixels=10_000_000, side=10_000)


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise: every coefficient of a JPEG is in use."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, 127 + 127 * np.sin((x + y) / 9)], axis=-1)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def pillow_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_rgb", lambda image: pytest.fail("Pillow decoded"))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    quality=st.integers(5, 100),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_to_the_last_bit(
    height: int, width: int, quality: int, subsampling: int, progressive: bool, mode: str
) -> None:
    options = {"quality": quality, "progressive": progressive}
    if mode == "RGB":
        options["subsampling"] = subsampling
    data = jpeg(noisy(height, width), mode, **options)
    decoded = images.decode(data, LIMITS).pixels
    np.testing.assert_array_equal(decoded, by_pillow(data))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.usefixtures("pillow_stays_away")
def test_the_usual_jpeg_takes_the_fast_way(mode: str) -> None:
    assert images.decode(jpeg(noisy(40, 30), mode), LIMITS).pixels.shape == (40, 30, 3)


def test_a_jpeg_that_holds_rgb_itself() -> None:
    data = jpeg(noisy(40, 30), keep_rgb=True)
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, by_pillow(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_upright_as_pillow_makes_it(form: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = tiny_model.encode(noisy(21, 34), form, exif=exif)
    with PIL.Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, expected)


def test_a_photograph_of_several_frames_gives_its_first() -> None:
    buffer = io.BytesIO()
    first, second = (PIL.Image.fromarray(noisy(40, 30, seed)) for seed in (1, 2))
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(
        images.decode(buffer.getvalue(), LIMITS).pixels, by_pillow(buffer.getvalue())
    )


def test_cmyk_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("decoded as if it were RGB"))
    data = jpeg(noisy(40, 30), "CMYK")
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, by_pillow(data))


def test_a_fault_that_pillow_forgives_is_forgiven() -> None:
    data = jpeg(noisy(64, 64))
    scan = data.index(b"\xff\xda")
    blemished = data[: scan + 100] + b"\xff\xd0" + data[scan + 100 :]  # a restart marker out of place
    with pytest.raises(ValueError, match="Corrupt"):
        simplejpeg.decode_jpeg(blemished)
    np.testing.assert_array_equal(images.decode(blemished, LIMITS).pixels, by_pillow(blemished))


def test_half_a_jpeg_is_no_picture() -> None:
    data = jpeg(noisy(64, 64))
    with pytest.raises(InvalidImage):
        images.decode(data[: len(data) // 2], LIMITS)


def test_the_header_is_judged_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLarge, match="64 x 65 pixels"):
        images.decode(jpeg(noisy(65, 64)), ImageLimits(bytes=10**6, pixels=10**6, side=64))


# ---- PNG, WebP and BMP by OpenCV


def saved(image: np.ndarray | PIL.Image.Image, form: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    whole = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    whole.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Formats of what Pillow had to decode."""
    decoded: list[str] = []
    load = images._rgb
    monkeypatch.setattr(images, "_rgb", lambda image: decoded.append(image.format) or load(image))
    return decoded


@settings(max_examples=120)
@given(
    form=st.sampled_from(["PNG", "WEBP", "BMP"]),
    mode=st.sampled_from(["RGB", "L"]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 9),
    level=st.integers(0, 9),
    quality=st.integers(0, 100),
    lossless=st.booleans(),
)
def test_other_formats_to_the_last_bit(
    form: str, mode: str, height: int, width: int, seed: int, level: int, quality: int, lossless: bool
) -> None:
    options = {
        "PNG": {"compress_level": level},
        "WEBP": {"quality": quality, "lossless": lossless},
        "BMP": {},
    }
    data = saved(noisy(height, width, seed), form, mode, **options[form])
    decoded = images.decode(data, LIMITS)
    np.testing.assert_array_equal(decoded.pixels, by_pillow(data))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.size == (height, width)


@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB"), ("WEBP", "L"), ("BMP", "RGB")]
)
def test_the_plain_file_takes_the_fast_way(form: str, mode: str, opened: list[str]) -> None:
    images.decode(saved(noisy(40, 30), form, mode), LIMITS)
    assert not opened


def png_with(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A PNG with more chunks before or behind its pixels."""
    plain = saved(noisy(40, 30), "PNG")
    more = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    at = plain.index(b"IEND" if behind else b"IDAT") - 4
    return plain[:at] + more + plain[at:]


EXIF_6 = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
XMP_6 = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("chunk", [(b"eXIf", EXIF_6), (b"iTXt", XMP_6)], ids=["EXIF", "XMP"])
def test_an_orientation_before_or_behind_the_pixels(chunk: tuple[bytes, bytes], behind: bool) -> None:
    data = png_with(chunk, behind=behind)
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x0112] == 6
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, np.rot90(by_pillow(data), -1))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"sRGB", b"\0"),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"pHYs", struct.pack(">IIB", 2835, 5000, 1)),
        (b"sBIT", b"\5\6\5"),
        (b"bKGD", b"\0\xff\0\0\0\0"),
        (b"tIME", b"\x07\xe8\1\1\1\1\1"),
        (b"tEXt", b"Software\0a camera"),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
def test_what_a_png_says_of_its_colours_changes_nothing(
    chunk: tuple[bytes, bytes], opened: list[str]
) -> None:
    data = png_with(chunk)
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, by_pillow(data))
    assert not opened


def test_a_colour_profile_changes_nothing(opened: list[str]) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = saved(noisy(40, 30), "PNG", icc_profile=profile)
    assert b"iCCP" in data
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, by_pillow(data))
    assert not opened


def _interlaced() -> bytes:
    """Adam7, one pass after the other; Pillow cannot write it."""
    pixels, packed = noisy(16, 16), b""
    for y, x, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        packed += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::right])
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 1)),
        (b"IDAT", zlib.compress(packed)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


NOT_PLAIN = {
    "PNG in colour with transparency": saved(noisy(40, 30), "PNG", transparency=(1, 2, 3)),
    "PNG in grey with transparency": saved(noisy(40, 30), "PNG", "L", transparency=7),
    "PNG with alpha": saved(noisy(40, 30), "PNG", "RGBA"),
    "PNG with a palette": saved(noisy(40, 30), "PNG", "P"),
    "PNG of one bit": saved(noisy(40, 30), "PNG", "1"),
    "PNG interlaced": _interlaced(),
    "PNG animated": saved(
        noisy(40, 30), "PNG", save_all=True, append_images=[PIL.Image.fromarray(noisy(40, 30, 2))]
    ),
    "PNG with bytes behind its end": saved(noisy(40, 30), "PNG") + b"x",
    "WebP with alpha": saved(np.dstack([noisy(40, 30), noisy(40, 30)[..., 0]]), "WEBP", "RGBA"),
    "WebP animated": saved(
        noisy(40, 30), "WEBP", save_all=True, append_images=[PIL.Image.fromarray(noisy(40, 30, 2))]
    ),
    "WebP with EXIF": saved(noisy(40, 30), "WEBP", exif=b"Exif\0\0" + EXIF_6),
    "BMP in grey": saved(noisy(40, 30), "BMP", "L"),
    "BMP of one bit": saved(noisy(40, 30), "BMP", "1"),
    "BMP with alpha": saved(noisy(40, 30), "BMP", "RGBA"),
    "BMP from the top": (lambda data: data[:22] + struct.pack("<i", -40) + data[26:])(
        saved(noisy(40, 30), "BMP")
    ),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_pillow(kind: str, opened: list[str]) -> None:
    data = NOT_PLAIN[kind]
    decoded = images.decode(data, LIMITS)
    assert opened == [kind.split()[0].upper()]
    if "alpha" not in kind and "transparency" not in kind and "EXIF" not in kind:
        np.testing.assert_array_equal(decoded.pixels, by_pillow(data))


def test_interlaced_rows_come_in_order() -> None:
    np.testing.assert_array_equal(images.decode(_interlaced(), LIMITS).pixels, noisy(16, 16))


def test_beyond_the_limits_of_opencv_pillow_decodes(
    monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("pixels <= CV_IO_MAX_IMAGE_PIXELS")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    data = saved(noisy(40, 30), "PNG")
    np.testing.assert_array_equal(images.decode(data, LIMITS).pixels, by_pillow(data))
    assert opened == ["PNG"]


def test_a_size_that_the_header_did_not_say_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((41, 30, 3), np.uint8))
    assert images.decode(saved(noisy(40, 30), "BMP"), LIMITS).size == (40, 30)
    assert opened == ["BMP"]


PLAIN = {
    "PNG": saved(noisy(12, 10), "PNG"),
    "PNG in grey": saved(noisy(12, 10), "PNG", "L"),
    "WebP": saved(noisy(12, 10), "WEBP"),
    "WebP without loss": saved(noisy(12, 10), "WEBP", lossless=True),
    "BMP": saved(noisy(12, 10), "BMP"),
}


def judged_by_pillow(data: bytes) -> np.ndarray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return by_pillow(data)
        except Exception:
            return None


def judged_by_us(data: bytes) -> np.ndarray | None:
    try:
        return images.decode(data, LIMITS).pixels
    except InvalidImage:
        return None


@pytest.mark.filterwarnings("ignore")
def test_damage_writes_nothing_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """The decoders in C know the way to stderr by themselves."""
    for data in PLAIN.values():
        for place in range(0, len(data), 3):
            judged_by_us(data[:place])
            with contextlib.suppress(ImageTooLarge):
                judged_by_us(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.filterwarnings("ignore")
def test_cut_anywhere_it_is_what_pillow_says(kind: str) -> None:
    data = PLAIN[kind]
    for length in range(len(data)):
        expected, got = judged_by_pillow(data[:length]), judged_by_us(data[:length])
        assert (expected is None) == (got is None), length
        if got is not None:
            np.testing.assert_array_equal(got, expected)


@settings(max_examples=400)
@given(
    kind=st.sampled_from(["PNG", "PNG in grey", "BMP"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
@pytest.mark.filterwarnings("ignore")
def test_a_byte_changed_it_is_what_pillow_says(kind: str, place: float, value: int) -> None:
    data = bytearray(PLAIN[kind])
    data[int(place * len(data))] = value
    try:
        expected, got = judged_by_pillow(bytes(data)), judged_by_us(bytes(data))
    except ImageTooLarge:
        return
    if got is not None and expected is not None and got.shape == expected.shape:
        np.testing.assert_array_equal(got, expected)
    else:
        assert (expected is None) == (got is None)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"by hand"}], ids=str)
def test_the_plainest_jpeg_needs_no_pillow(
    mode: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    PIL.Image.effect_noise((90, 70), 80).convert(mode).save(buffer, "JPEG", **options)
    expected = np.asarray(PIL.Image.open(buffer).convert("RGB"))
    monkeypatch.setattr(PIL.Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    np.testing.assert_array_equal(images.decode(buffer.getvalue(), LIMITS).pixels, expected)


@pytest.mark.parametrize(
    "options",
    [{"exif": b"Exif\0\0II*\0"}, {"xmp": b"<x:xmpmeta/>"}, {"keep_rgb": True}, {"icc_profile": b"profile"}],
    ids=lambda each: next(iter(each)),
)
def test_a_jpeg_that_says_more_is_read_by_pillow(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (90, 70), "red").save(buffer, "JPEG", **options)
    opened, real = [], PIL.Image.open
    monkeypatch.setattr(
        PIL.Image, "open", lambda *given, **named: opened.append(given) or real(*given, **named)
    )
    assert images.decode(buffer.getvalue(), LIMITS).size == (70, 90)
    assert len(opened) == 1
