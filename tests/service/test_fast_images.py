"""The fast decoder of JPEG gives Pillow's pixels to the last bit, and leaves to Pillow what it should."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
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
