"""Every kind of image file becomes the same upright RGB pixels, or an error that says what is wrong."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Transpose

from service import images, status
from service.core import Core
from service.errors import ImageTooLarge, InvalidImage
from service.images import ImageLimits
from service.types import Frame, Options
from tests.service.conftest import Scene
from tests.service.test_predictor import with_core

LIMITS = ImageLimits(bytes=1_000_000, pixels=1_000_000, side=4096)


def decode(data: bytes, limits: ImageLimits) -> np.ndarray:
    """The pixels in full."""
    decoded = images.decode(data, limits)
    assert decoded.to_frame is None
    assert decoded.pixels.shape == (*decoded.size, 3)
    return decoded.pixels


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture in which each direction and each channel can be told apart."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], -1).astype(
        np.uint8
    )


def saved(image: PIL.Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


PICTURE = gradient()
IMAGE = PIL.Image.fromarray(PICTURE)


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 25),
        ("JPEG", {"quality": 95, "subsampling": 0}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 12),
        ("GIF", {}, 40),
    ],
)
def test_formats(form: str, options: dict[str, object], tolerance: int) -> None:
    decoded = decode(saved(IMAGE, form, **options), LIMITS)
    assert decoded.shape == PICTURE.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - PICTURE).max() <= tolerance


@pytest.mark.parametrize("form", ["TIFF", "PPM", "ICO"])
def test_other_formats_are_refused_in_words(form: str) -> None:
    with pytest.raises(InvalidImage, match="none of JPEG, PNG, WEBP, BMP, GIF"):
        decode(saved(IMAGE, form), LIMITS)


STORED = {  # what a camera writes for an upright scene, by EXIF orientation: the inverse of what makes it upright
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95, "subsampling": 0})],
)
def test_exif_orientation_is_applied(orientation: int, form: str, options: dict[str, object]) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    turn = STORED[orientation]
    stored = IMAGE if turn is None else IMAGE.transpose(turn)
    decoded = decode(saved(stored, form, exif=exif, **options), LIMITS)
    assert decoded.shape == PICTURE.shape
    assert np.abs(decoded.astype(int) - PICTURE).max() <= (12 if form == "JPEG" else 0)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of the broken block; it is the picture that counts
def test_a_broken_exif_block_does_not_spoil_the_picture(exif: bytes) -> None:
    decoded = decode(saved(IMAGE, "JPEG", quality=95, subsampling=0, exif=exif), LIMITS)
    assert decoded.shape == PICTURE.shape


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(saved(IMAGE, "PNG", exif=exif), LIMITS), PICTURE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA"])
def test_modes_of_png(mode: str) -> None:
    image = IMAGE.convert("RGBA").convert(mode) if mode in ("LA", "PA") else IMAGE.convert(mode)
    expected = np.asarray(image.convert("RGB")).astype(int)
    decoded = decode(saved(image if mode != "PA" else IMAGE.quantize(), "PNG"), LIMITS)
    assert decoded.shape == PICTURE.shape
    assert np.abs(decoded - expected).mean() < 16


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    grey = (np.arange(24 * 40, dtype=np.uint32).reshape(24, 40) * 60 % 65536).astype(np.uint16)
    data = saved(PIL.Image.fromarray(grey), "PNG")
    decoded = decode(data, LIMITS)
    np.testing.assert_array_equal(decoded, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=-1))


def test_cmyk() -> None:
    data = saved(IMAGE.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data, LIMITS).astype(int) - PICTURE).mean() < 12


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_laid_over_black(form: str) -> None:
    pixels = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    pixels[:, :20, 3] = 0
    pixels[:, 20:30, 3] = 128
    decoded = decode(saved(PIL.Image.fromarray(pixels), form, lossless=True), LIMITS)
    assert not decoded[:, :20].any()
    np.testing.assert_allclose(decoded[:, 20:30], PICTURE[:, 20:30] * (128 / 255), atol=1)
    np.testing.assert_array_equal(decoded[:, 30:], PICTURE[:, 30:])


def test_a_transparent_colour_of_a_palette_is_black_too() -> None:
    image = PIL.Image.fromarray(np.tile(np.array([[0, 1]], np.uint8), (4, 4)), "L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    decoded = decode(saved(image, "PNG", transparency=0), LIMITS)
    assert not decoded[:, ::2].any()
    assert (decoded[:, 1::2] == [0, 255, 0]).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    first, second = (PIL.Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
    data = saved(first, form, save_all=True, append_images=[second], lossless=True)
    assert np.abs(decode(data, LIMITS).astype(int) - [255, 0, 0]).max() <= 1


def test_a_single_pixel_is_an_image() -> None:
    assert decode(saved(PIL.Image.new("RGB", (1, 1)), "PNG"), LIMITS).shape == (1, 1, 3)


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header claims a large size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (100_000, 1), (1, 4097), (1001, 1000)])
def test_the_header_alone_condemns_a_bomb(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLarge, match=f"{width} x {height} pixels"):
        decode(bomb(width, height), LIMITS)


def test_a_bomb_in_another_format() -> None:
    header = struct.pack("<IHHIIHHIIIIII", 0, 0, 0, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0)
    with pytest.raises((ImageTooLarge, InvalidImage)):
        decode(b"BM" + header, LIMITS)


def _claiming(form: str, width: int, height: int) -> bytes:
    """A small file whose header is made to claim a size."""
    others = {"save_all": True, "append_images": [IMAGE.rotate(180)]} if form == "WEBP" else {}
    data = bytearray(saved(IMAGE, form, **others))
    if form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    else:  # the canvas of an animated WebP, less 1
        data[24:30] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(data)


@pytest.mark.parametrize("coarsest", [1, 8])
@pytest.mark.parametrize("form", ["JPEG", "GIF", "WEBP"])
def test_the_header_condemns_bombs_of_every_format(
    form: str, coarsest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for decoder in ("simplejpeg.decode_jpeg", "cv2.imdecode", "PIL.ImageFile.ImageFile.load"):
        monkeypatch.setattr(decoder, lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLarge, match="16000 x 16001 pixels"):
        images.decode(_claiming(form, 16000, 16001), LIMITS, coarsest)


def test_the_largest_image_that_is_allowed() -> None:
    limits = ImageLimits(bytes=1_000_000, pixels=40 * 24, side=40)
    assert decode(saved(IMAGE, "PNG"), limits).shape == PICTURE.shape


def test_too_many_bytes() -> None:
    data = saved(IMAGE, "PNG")
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode(data, ImageLimits(bytes=len(data) - 1, pixels=10**6, side=10**4))


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]
)
def test_garbage_is_an_invalid_image(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode(data, LIMITS)


FILES = [
    saved(IMAGE, "JPEG"),
    saved(IMAGE, "JPEG", progressive=True),
    saved(IMAGE, "PNG"),
    saved(IMAGE.quantize(), "PNG"),
    saved(IMAGE, "WEBP"),
    saved(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(90)]),
    saved(IMAGE, "BMP"),
    saved(IMAGE, "GIF"),
]


@settings(max_examples=150, deadline=None)
@given(data=st.sampled_from(FILES), share=st.floats(0, 0.98))
@pytest.mark.filterwarnings("ignore")
def test_half_an_image_is_never_taken_for_a_whole_one(data: bytes, share: float) -> None:
    try:
        decoded = decode(data[: int(share * len(data))], LIMITS)
    except InvalidImage:
        return
    assert decoded.shape == PICTURE.shape  # what was cut off belongs to a later frame or to no frame
    assert np.abs(decoded.astype(int) - decode(data, LIMITS)).max() == 0


@settings(max_examples=400, deadline=None)
@given(
    data=st.sampled_from(FILES),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8
    ),
)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_an_error_of_ours_or_a_picture(data: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(data))] = value
    try:
        decoded = decode(bytes(damaged), LIMITS)
    except (InvalidImage, ImageTooLarge):
        return
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3
    assert decoded.dtype == np.uint8


# ---- no memory is nobody's fault but ours


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("data", "decoder"),
    [
        (FILES[0], "simplejpeg.decode_jpeg"),
        (FILES[2], "cv2.imdecode"),
        (FILES[3], "PIL.ImageFile.ImageFile.load"),
    ],
)
def test_no_memory_is_not_the_fault_of_the_image(
    data: bytes, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, no_memory)
    with pytest.raises(MemoryError) as caught:
        decode(data, LIMITS)
    assert status.status_of(caught.value) is status.INTERNAL


def test_nor_where_pillow_says_it_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoders know a code for it, which becomes an OSError."""

    def load(image: object) -> None:
        raise PIL.ImageFile._get_oserror(-9, encoder=False)

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError, match="out of memory"):
        decode(FILES[7], LIMITS)


def test_a_frame_without_memory_fails_alone(
    tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simplejpeg.decode_jpeg", no_memory)

    async def test(core: Core) -> list[object]:
        frames = [Frame(scene.png), Frame(FILES[0]), Frame(scene.png)]
        ask = [core.predictor.predict(frame, Options()) for frame in frames]
        return await asyncio.gather(*ask, return_exceptions=True)

    before, short, after = with_core(tiny_bundle_root, test)
    assert isinstance(short, MemoryError)
    for answer in (before, after):
        np.testing.assert_allclose(answer.poses[0].points, scene.joints, atol=8)


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from service import images

limits = images.ImageLimits(bytes=10**9, pixels=10**9, side=10**6)
files = {path.name: path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())}
for name, data in files.items():
    if name.startswith("small"):
        images.decode(data, limits)
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 20 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for name, data in files.items():
    try:
        images.decode(data, limits)
        print(name, "decoded")
    except MemoryError:
        print(name, "MemoryError")
"""


def test_a_process_that_is_short_of_memory(tmp_path: Path) -> None:
    """20 MiB are left, and pictures of 57 MiB come; small ones are answered as ever."""
    for form in ("JPEG", "PNG", "BMP", "GIF"):
        for name, size in (("small", (64, 64)), ("large", (5000, 4000))):
            (tmp_path / f"{name}.{form}").write_bytes(saved(PIL.Image.new("RGB", size, "navy"), form))
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, tmp_path],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes = dict(line.split() for line in done.stdout.splitlines())
    assert outcomes == {
        f"{name}.{form}": "decoded" if name == "small" else "MemoryError"
        for form in ("JPEG", "PNG", "BMP", "GIF")
        for name in ("small", "large")
    }
