"""A JPEG that is reduced while it is decoded shows all where it is in full; it is reduced only where that is enough."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo import bundle, geometry
from model_zoo.scores import SURE_SCORE, for_rules
from service import decoding, images, runner
from service.errors import ImageTooLarge, InvalidImage
from service.images import REDUCTIONS, ImageLimits
from service.types import Options
from tests import tiny_model
from tests.service.test_predictor import predicted

LIMITS = ImageLimits(bytes=10_000_000, pixels=10_000_000, side=10_000)
DATA = os.environ.get("POSE_TEST_DATA")
BACKGROUND = 20

stored_as = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""What a camera stores of an upright scene, by EXIF orientation."""


def jpeg(upright: np.ndarray, orientation: int = 1, **options: Any) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(stored_as[orientation](upright))
    return tiny_model.encode(stored, "JPEG", exif=exif, **{"quality": 95} | options)


def blob(size: tuple[int, int], at: tuple[float, float], sigma: float) -> np.ndarray:
    """A bright spot at x, y on a dark ground."""
    y, x = np.mgrid[: size[0], : size[1]]
    bright = 200 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(BACKGROUND + bright).astype(np.uint8)[..., None], 3, axis=-1)


def centre(pixels: np.ndarray) -> np.ndarray:
    """x, y of the centre of brightness."""
    weights = np.clip(pixels[..., 1].astype(float) - BACKGROUND - 8, 0, None)
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@settings(max_examples=150)
@given(
    factor=st.sampled_from(REDUCTIONS),
    more=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    orientation=st.integers(1, 8),
    subsampling=st.sampled_from([0, 2]),
    progressive=st.booleans(),
)
def test_a_spot_is_where_it_is(
    factor: int,
    more: tuple[int, int],
    shares: tuple[float, float],
    orientation: int,
    subsampling: int,
    progressive: bool,
) -> None:
    """Of any size, however turned: within 0.3 pixels of the frame, be a pixel of the reduced one 8 of them."""
    sigma = 1.5 * factor
    height, width = (round(10 * sigma) + extra for extra in more)
    at = [
        5 * sigma + share * (side - 10 * sigma) for share, side in zip(shares, (width, height), strict=True)
    ]
    data = jpeg(
        blob((height, width), at, sigma), orientation, subsampling=subsampling, progressive=progressive
    )
    decoded = images.decode(data, LIMITS, factor)
    assert decoded.size == (height, width)
    assert decoded.pixels.shape == (-(-height // factor), -(-width // factor), 3)
    assert np.abs(geometry.apply(decoded.to_frame, centre(decoded.pixels)[None]) - at).max() < 0.3


@pytest.mark.parametrize("orientation", stored_as)
def test_a_crop_is_the_same_to_the_eye(orientation: int) -> None:
    """Of a smooth picture, through the same map of the frame, up to the pixel on the frame's edge."""
    y, x = np.mgrid[:541, :403]
    smooth = np.stack([127 + 100 * np.sin(x / 60), 127 + 100 * np.cos(y / 70), (x + y) / 4], axis=-1)
    data = jpeg(smooth.astype(np.uint8), orientation, subsampling=0)
    for box in ((-0.5, -0.5, 403, 541), (200, 300, 203, 241), (-40, -40, 200, 200)):
        matrix = geometry.crop_affine(box, (64, 48), padding=1.25)
        shown = geometry.crop(np.full((541, 403, 3), 255, np.uint8), matrix, (64, 48))
        inside = cv2.erode(shown, np.ones((3, 3))) == 255
        crops = [
            geometry.crop(decoded.pixels, decoded.crop_map(matrix), (64, 48)).astype(int)
            for decoded in (images.decode(data, LIMITS), images.decode(data, LIMITS, 2))
        ]
        assert np.abs(crops[0] - crops[1])[inside].max() <= 4


@pytest.mark.parametrize(
    ("coarsest", "factor"),
    [(0.01, 1), (1, 1), (1.99, 1), (2, 2), (3.99, 2), (4, 4), (7.99, 4), (8, 8), (1000, 8)],
)
def test_no_coarser_than_allowed(coarsest: float, factor: int) -> None:
    decoded = images.decode(jpeg(blob((99, 131), (60, 50), 9)), LIMITS, coarsest)
    assert decoded.size == (99, 131)
    assert decoded.pixels.shape[:2] == (-(-99 // factor), -(-131 // factor))
    assert (decoded.to_frame is None) == (factor == 1)


@given(height=st.integers(1, 20), width=st.integers(1, 20), factor=st.sampled_from(REDUCTIONS))
def test_the_smallest(height: int, width: int, factor: int) -> None:
    """libjpeg-turbo is asked for a least size, and several reductions of a speck have the same."""
    decoded = images.decode(jpeg(blob((height, width), (5, 5), 4), subsampling=0), LIMITS, factor)
    if max(height, width) < 8:
        assert decoded.to_frame is None
        assert decoded.pixels.shape[:2] == (height, width)
    else:
        assert decoded.to_frame[0, 0] == factor
        assert decoded.pixels.shape[:2] == (-(-height // factor), -(-width // factor))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "CMYK"])
def test_what_is_no_usual_jpeg_comes_in_full(form: str) -> None:
    picture = blob((64, 96), (40, 30), 8)
    data = tiny_model.encode(picture, form) if form != "CMYK" else cmyk(picture)
    decoded = images.decode(data, LIMITS, 8)
    assert decoded.pixels.shape == (64, 96, 3)
    assert decoded.to_frame is None


def cmyk(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def test_grey() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(blob((64, 96), (40, 30), 8)).convert("L").save(buffer, "JPEG")
    decoded = images.decode(buffer.getvalue(), LIMITS, 2)
    assert decoded.pixels.shape == (32, 48, 3)
    assert (decoded.pixels == decoded.pixels[..., :1]).all()


def test_the_limits_are_for_the_frame_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLarge, match="64 x 65 pixels"):
        images.decode(jpeg(blob((65, 64), (30, 30), 8)), ImageLimits(bytes=10**6, pixels=10**6, side=64), 8)


FILES = [jpeg(blob((33, 50), (30, 20), 4), progressive=progressive) for progressive in (False, True)]


@pytest.mark.parametrize("data", FILES, ids=["baseline", "progressive"])
@pytest.mark.filterwarnings("ignore")  # Pillow's, of a broken EXIF block
def test_cut_anywhere_it_is_no_picture(data: bytes) -> None:
    for length in range(len(data) - 2):
        with pytest.raises(InvalidImage):
            images.decode(data[:length], LIMITS, 2)
    whole = images.decode(data, LIMITS, 2).pixels
    for length in (len(data) - 2, len(data) - 1):  # only the end marker is missing, or half of it
        try:
            decoded = images.decode(data[:length], LIMITS, 2)
        except InvalidImage:
            continue
        shown = decoded.pixels if decoded.to_frame is not None else by_halves(decoded.pixels)
        assert np.abs(shown.astype(int) - whole).max() <= 24


def by_halves(pixels: np.ndarray) -> np.ndarray:
    height, width = (side + side % 2 for side in pixels.shape[:2])
    grown = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), "edge")
    return cv2.resize(grown, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


@settings(max_examples=300)
@given(
    data=st.sampled_from(FILES),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    ),
    factor=st.sampled_from(REDUCTIONS),
)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_an_error_of_ours_or_a_picture(
    data: bytes, changes: list[tuple[float, int]], factor: int
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(data))] = value
    try:
        decoded = images.decode(bytes(damaged), LIMITS, factor)
    except (InvalidImage, ImageTooLarge):
        return
    shown = 1 if decoded.to_frame is None else factor
    assert decoded.pixels.shape == (*(-(-side // shown) for side in decoded.size), 3)


# ---- through the predictor


NEEDED = tiny_model.HEIGHT / tiny_model.manifest().input.padding
"""Height in pixels of an upright box that has one pixel for each of its crop."""


class Decodings(list[tuple[int, int]]):
    """Sizes of what libjpeg-turbo was made to decode."""


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Decodings:
    seen, decode = Decodings(), simplejpeg.decode_jpeg

    def counted(*args: Any, **kwargs: Any) -> np.ndarray:
        pixels = decode(*args, **kwargs)
        seen.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    return seen


HEIGHT, WIDTH = 1203, 1001
LARGE = (60.0, 70.0, 9 * NEEDED * 0.75, 9 * NEEDED)
SMALL = (60.0, 70.0, 1.9 * NEEDED * 0.75, 1.9 * NEEDED)


def photograph(orientation: int = 1) -> tuple[bytes, np.ndarray]:
    x, y, width, height = LARGE
    joints = tiny_model.person((x + 60, y + 80, width - 120, height - 160))
    picture = tiny_model.paint((HEIGHT, WIDTH), joints, radius=55)
    return jpeg(picture, orientation, subsampling=0), joints


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_the_answer_is_that_of_the_frame_in_full(
    orientation: int, tiny_bundle_root: Path, decodings: Decodings
) -> None:
    data, joints = photograph(orientation)
    options = Options(boxes=(LARGE,), decoder="dsnt")
    reduced = predicted(tiny_bundle_root, data, options)
    assert sorted(decodings.pop()) == [(WIDTH + 3) // 4, (HEIGHT + 3) // 4]
    full = predicted(tiny_bundle_root, data, Options(boxes=(LARGE,), decoder="dsnt", render=True))
    assert sorted(decodings.pop()) == [WIDTH, HEIGHT]
    assert not decodings
    assert reduced.size == full.size == (HEIGHT, WIDTH)
    assert reduced.poses[0].box == full.poses[0].box
    scale = 1 / geometry.detail(LARGE, (tiny_model.HEIGHT, tiny_model.WIDTH), 1.25)
    shift = np.linalg.norm(reduced.poses[0].points - full.poses[0].points, axis=1) * scale
    assert shift.mean() < 0.1
    assert np.abs(reduced.poses[0].points - joints).max() * scale < 1.5


def test_many_boxes_decode_once_and_as_the_neediest_wants(
    tiny_bundle_root: Path, decodings: Decodings
) -> None:
    data, _ = photograph()
    assert len(predicted(tiny_bundle_root, data, Options(boxes=(LARGE,) * 20)).poses) == 20
    assert decodings == [((HEIGHT + 3) // 4, (WIDTH + 3) // 4)]
    decodings.clear()
    assert len(predicted(tiny_bundle_root, data, Options(boxes=(LARGE, SMALL, LARGE) * 5)).poses) == 15
    assert decodings == [(HEIGHT, WIDTH)]


@pytest.mark.parametrize(
    ("times", "factor"), [(1.9, 1), (2.01, 2), (3.9, 2), (7.9, 2), (8.1, 4), (15.9, 4), (16.1, 8), (40, 8)]
)
def test_as_much_as_the_box_has_to_spare(
    times: float, factor: int, tiny_bundle_root: Path, decodings: Decodings
) -> None:
    box = (20.0, 30.0, times * NEEDED * 0.75, times * NEEDED)
    predicted(tiny_bundle_root, photograph()[0], Options(boxes=(box,)))
    assert decodings == [(-(-HEIGHT // factor), -(-WIDTH // factor))]


def test_without_boxes_both_looks_see_the_frame_in_full(tiny_bundle_root: Path, decodings: Decodings) -> None:
    predicted(tiny_bundle_root, photograph()[0])
    assert decodings == [(HEIGHT, WIDTH)]


@pytest.mark.skipif(not DATA, reason="POSE_TEST_DATA does not name the folder of annotated photographs")
@pytest.mark.parametrize("name", ["lsp_test", "coco17_test"])
@pytest.mark.parametrize(("factor", "detail"), [(2, 2.05), (4, 8.2)])
def test_joints_of_photographs_stay_where_they_are(name: str, factor: int, detail: float) -> None:
    """People enlarged until they are just about reduced: joints in full and reduced, in crop pixels."""
    net = runner.load(bundle.find("body19-small"))
    spec = net.manifest.input
    decoder = decoding.pick(net.manifest, None)
    shifts = []
    for picture, box in people(Path(DATA) / "body" / name, 40):
        grown = geometry.expand_box(box, spec.size, spec.padding)
        inner = [int(each) for each in (*grown[:2], *(grown[:2] + grown[2:] + 1))]
        inner = np.clip(inner, 0, [*picture.size, *picture.size])
        times = detail / geometry.detail(box, spec.size, spec.padding)
        part = picture.crop(tuple(inner.tolist()))
        size = tuple(round(side * times) for side in part.size)
        data = tiny_model.encode(
            np.asarray(part.resize(size, PIL.Image.Resampling.LANCZOS)), "JPEG", quality=90
        )
        large = np.array([*(box[:2] - inner[:2]), *box[2:]]) * times
        matrix = geometry.crop_affine(large, spec.size, padding=spec.padding)
        crops = [
            geometry.crop(decoded.pixels, decoded.crop_map(matrix), spec.size)
            for decoded in (images.decode(data, LIMITS), images.decode(data, LIMITS, factor))
        ]
        points, scores = decoding.read(decoder, net.manifest, net.keypoints(np.stack(crops)), [matrix] * 2)
        shift = np.linalg.norm(points[0] - points[1], axis=-1) * spec.height / grown[3] / times
        shifts.append(shift[for_rules(scores[0], net.manifest.score_calibration) >= SURE_SCORE])
    joints = np.concatenate(shifts)
    assert len(joints) > 300
    assert (joints > 5).mean() < 0.01  # those that jump to the other leg, whatever is changed in a picture
    assert joints[joints <= 5].mean() < 0.3


def people(prefix: Path, count: int) -> list[tuple[PIL.Image.Image, np.ndarray]]:
    facts = json.loads(prefix.with_suffix(".json").read_text("utf-8"))
    files = {each["id"]: each for each in facts["images"]}
    found = []
    with prefix.with_suffix(".tar").open("rb") as tar:
        for person in facts["annotations"][:count]:
            file = files[person["image_id"]]
            tar.seek(file["tar_offset"])
            with PIL.Image.open(io.BytesIO(tar.read(file["tar_size"]))) as image:
                found.append((image.convert("RGB"), np.array(person["bbox"], float)))
    return found
