"""The pixel convention and the maps between image, crop and heatmap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_zoo import geometry
from model_zoo.codecs import dsnt
from model_zoo.errors import GeometryError

SIZE = (256, 192)
places, lengths = st.floats(-500, 2000), st.floats(2, 1500)
boxes = st.tuples(places, places, lengths, lengths)
angles = st.floats(-180, 180)
paddings = st.floats(0.5, 2)
corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])


def corners_of(box) -> np.ndarray:
    """The four corners (4, 2) of a box."""
    return np.asarray(box)[:2] + corners * np.asarray(box)[2:]


def crop_corners(size) -> np.ndarray:
    """The four corners (4, 2) of a crop: outer edges of its outermost pixels."""
    return corners * size[::-1] - 0.5


@given(box=boxes, padding=paddings)
def test_the_corners_of_the_grown_box_are_the_corners_of_the_crop(box, padding):
    grown = geometry.expand_box(box, SIZE, padding)
    matrix = geometry.crop_affine(box, SIZE, padding=padding)
    np.testing.assert_allclose(geometry.apply(matrix, corners_of(grown)), crop_corners(SIZE), atol=1e-6)


@given(box=boxes, padding=st.floats(1, 2))
def test_a_grown_box_keeps_its_centre_holds_the_box_and_has_the_crop_aspect(box, padding):
    grown, box = geometry.expand_box(box, SIZE, padding), np.asarray(box)
    np.testing.assert_allclose(grown[:2] + grown[2:] / 2, box[:2] + box[2:] / 2, atol=1e-8)
    assert (grown[2:] >= box[2:] * padding * (1 - 1e-12)).all()
    assert grown[2] / grown[3] == pytest.approx(SIZE[1] / SIZE[0])
    assert (np.isclose(grown[2:], box[2:] * padding)).any()


@given(box=boxes, angle=angles, flip=st.booleans(), padding=paddings)
def test_there_and_back_again(box, angle, flip, padding):
    matrix = geometry.crop_affine(box, SIZE, padding=padding, rotation_deg=angle, flip=flip)
    points = np.random.default_rng(0).uniform(-100, 2000, (7, 2))
    back = geometry.apply(geometry.invert(matrix), geometry.apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-6)


@given(box=boxes, angle=angles)
def test_rotation_turns_the_straight_crop_about_its_centre(box, angle):
    points = np.random.default_rng(1).uniform(0, 1000, (5, 2))
    straight = geometry.apply(geometry.crop_affine(box, SIZE), points)
    turned = geometry.apply(geometry.crop_affine(box, SIZE, rotation_deg=angle), points)
    centre, radians = np.array([95.5, 127.5]), math.radians(angle)
    turn = np.array([[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]])
    np.testing.assert_allclose(turned, centre + (straight - centre) @ turn.T, rtol=1e-9, atol=1e-6)


def test_a_positive_angle_turns_clockwise_as_seen():
    matrix = geometry.crop_affine((0, 0, 192, 256), SIZE, rotation_deg=90)
    above_centre = np.array([[96.0, 28.0]])
    np.testing.assert_allclose(geometry.apply(matrix, above_centre), [[195.5, 127.5]], atol=1e-9)


@given(box=boxes, angle=angles)
def test_flip_mirrors_the_turned_crop(box, angle):
    points = np.random.default_rng(2).uniform(0, 1000, (5, 2))
    plain = geometry.apply(geometry.crop_affine(box, SIZE, rotation_deg=angle), points)
    flipped = geometry.apply(geometry.crop_affine(box, SIZE, rotation_deg=angle, flip=True), points)
    np.testing.assert_allclose(flipped, np.stack([191 - plain[:, 0], plain[:, 1]], axis=-1), atol=1e-6)


def test_many_boxes_are_treated_as_each_alone():
    rng = np.random.default_rng(3)
    many = rng.uniform(10, 300, (2, 3, 4))
    angles, flips = rng.uniform(-90, 90, (2, 3)), rng.random((2, 3)) < 0.5
    together = geometry.crop_affine(many, SIZE, padding=1.25, rotation_deg=angles, flip=flips)
    inverses = geometry.invert(together)
    points = rng.uniform(0, 300, (2, 3, 5, 2))
    moved = geometry.apply(together, points)
    assert together.shape == (2, 3, 2, 3)
    for index in np.ndindex(2, 3):
        alone = geometry.crop_affine(
            many[index], SIZE, padding=1.25, rotation_deg=angles[index], flip=flips[index]
        )
        np.testing.assert_allclose(together[index], alone, atol=1e-12)
        np.testing.assert_allclose(inverses[index], geometry.invert(alone), atol=1e-12)
        np.testing.assert_allclose(moved[index], geometry.apply(alone, points[index]), atol=1e-9)


@given(several=st.lists(boxes, max_size=5), padding=paddings)
def test_upright_crops_are_those_of_the_general_map_to_the_last_bit(several, padding):
    general = geometry.crop_affine(np.reshape(several, (-1, 4)), SIZE, padding=padding)
    np.testing.assert_array_equal(geometry.upright_crop_affine(several, SIZE, padding), general)


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, 5, -1), (math.nan, 0, 5, 5), (0, math.inf, 5, 5), (0, 0, 5, math.inf)]
)
def test_upright_crops_of_no_box_are_refused_as_the_general_ones_are(box):
    for refused in (geometry.crop_affine, geometry.upright_crop_affine):
        with pytest.raises(GeometryError):
            refused([box], SIZE, padding=1.0)


def test_the_whole_image_as_a_crop_of_its_own_size_is_itself():
    box = geometry.whole_image_box(SIZE)
    np.testing.assert_allclose(geometry.crop_affine(box, SIZE), [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    image = np.random.default_rng(4).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(geometry.warp(image, geometry.crop_affine(box, SIZE), SIZE), image)


@given(
    x=st.floats(60, 140), y=st.floats(60, 140), angle=angles, flip=st.booleans(), padding=st.floats(0.9, 1.3)
)
def test_pictures_and_points_move_together(x, y, angle, flip, padding):
    rows, columns = np.indices((200, 200))
    blob = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 5.0**2))
    image = np.repeat((255 * blob).astype(np.uint8)[..., None], 3, axis=-1)
    matrix = geometry.crop_affine((10, 0, 180, 200), SIZE, padding=padding, rotation_deg=angle, flip=flip)
    (expected,) = geometry.apply(matrix, [[x, y]])
    crop = geometry.warp(image, matrix, SIZE)
    if (expected > 30).all() and (expected < np.array(SIZE[::-1]) - 30).all():
        (found,), _ = dsnt.decode(crop[None, None, ..., 0])
        np.testing.assert_allclose(found[0], expected, atol=0.1)


def test_warp_writes_into_the_batch_it_is_given_and_is_black_outside():
    batch = np.full((2, 8, 6, 3), 7, np.uint8)
    image = np.full((4, 4, 3), 200, np.uint8)
    image.flags.writeable = False
    crop = geometry.warp(image, geometry.crop_affine((50, 50, 6, 8), (8, 6)), (8, 6), out=batch[1])
    assert np.shares_memory(crop, batch)
    assert (batch[1] == 0).all()
    assert (batch[0] == 7).all()


@given(scale=st.floats(1 / 200, 4), angle=angles, flip=st.booleans())
def test_averaging_leaves_one_to_two_pixels_for_each_of_the_crop(scale, angle, flip):
    box = (10, 20, SIZE[1] / scale, SIZE[0] / scale)
    factor = geometry.averaging(geometry.crop_affine(box, SIZE, rotation_deg=angle, flip=flip))
    if scale > 0.5:
        assert factor == 1
    else:
        assert 1 - 1e-6 <= 1 / scale / factor <= 2 + 1e-6
        assert factor.bit_count() == 1


def test_averaging_goes_by_the_axis_that_has_fewer_pixels():
    assert geometry.averaging([[1 / 9, 0, 0], [0, 1 / 5, 0]]) == 4
    assert geometry.averaging([[0, 1 / 9, 0], [1, 0, 0]]) == 1
    assert [geometry.averaging([[1 / f, 0, 3], [0, 1 / f, 7]]) for f in (1, 2, 4, 8)] == [1, 2, 4, 8]


small = st.tuples(st.floats(-20, 60), st.floats(-20, 60), st.floats(4, 80), st.floats(4, 80))


@given(box=small, angle=angles, flip=st.booleans())
def test_a_crop_of_few_pixels_is_a_plain_warp(box, angle, flip):
    image = np.random.default_rng(5).integers(0, 256, (70, 90, 3), np.uint8)
    matrix = geometry.crop_affine(box, (64, 48), rotation_deg=angle, flip=flip)
    assert geometry.averaging(matrix) == 1
    np.testing.assert_array_equal(
        geometry.crop(image, matrix, (64, 48)), geometry.warp(image, matrix, (64, 48))
    )


@given(
    detail=st.floats(2, 40),
    x=st.floats(-0.3, 1.3),
    y=st.floats(-0.3, 1.3),
    angle=angles,
    flip=st.booleans(),
    rest=st.tuples(st.integers(0, 17), st.integers(0, 17)),
)
@settings(max_examples=60)
def test_a_spot_is_where_it_is_in_the_crop(detail, x, y, angle, flip, rest):
    """However many pixels there are, wherever the box begins, and where the image has no whole number of them."""
    size, (height, width) = (32, 24), (400 + rest[0], 300 + rest[1])
    at = np.array([x * width, y * height])
    box = (at[0] - 13.3 * detail, at[1] - 15.2 * detail, 24 * detail, 32 * detail)
    matrix = geometry.crop_affine(box, size, rotation_deg=angle, flip=flip)
    sigma = 1.5 * detail
    margin = 4.5 * sigma
    if not (margin < at[0] < width - margin and margin < at[1] < height - margin):
        return
    columns, rows = (
        np.exp(-((np.arange(n) - a) ** 2) / (2 * sigma**2)) for n, a in zip((width, height), at, strict=True)
    )
    image = np.repeat(np.round(250 * np.outer(rows, columns)).astype(np.uint8)[..., None], 3, axis=-1)
    (expected,) = geometry.apply(matrix, at[None])
    (found,), _ = dsnt.decode(geometry.crop(image, matrix, size)[None, None, ..., 0])
    np.testing.assert_allclose(found[0], expected, atol=0.1)


@pytest.mark.parametrize("detail", [2, 2.7, 3.9, 4, 6.3, 8, 15.1])
@pytest.mark.parametrize("angle", [0, 30])
def test_a_checkerboard_too_fine_to_be_seen_is_grey(detail, angle):
    board = (np.indices((600, 600)).sum(axis=0) % 2 * 200).astype(np.uint8)
    image = np.repeat(board[..., None], 3, axis=-1)
    box = (303.3 - 12 * detail, 299.7 - 16 * detail, 24 * detail, 32 * detail)
    matrix = geometry.crop_affine(box, (32, 24), rotation_deg=angle)
    np.testing.assert_array_equal(geometry.crop(image, matrix, (32, 24)), 100)
    if detail % 1:  # the phase of its squares shifts, which a warp alone shows as a pattern
        assert np.ptp(geometry.warp(image, matrix, (32, 24))) > 100


@given(detail=st.floats(2, 20), angle=angles, x=st.floats(-3, 3), y=st.floats(-3, 3))
@example(detail=16.0, angle=0.0, x=0.0, y=0.0)
@example(detail=16.0, angle=1.0, x=0.0, y=0.0)
def test_a_gradient_stays_as_it_is(detail, angle, x, y):
    """To the rounding of its own pixels, of the crop's, and of each halving, which rounds halves up."""
    rows, columns = np.indices((1000, 1000))
    image = np.repeat(np.round(columns / 8 + rows / 16 + 30).astype(np.uint8)[..., None], 3, axis=-1)
    box = (500 + x - 8 * detail, 500 + y - 8 * detail, 16 * detail, 16 * detail)
    matrix = geometry.crop_affine(box, (16, 16), rotation_deg=angle)
    pixels = geometry.apply(geometry.invert(matrix), np.indices((16, 16))[::-1].reshape(2, -1).T)
    expected = (pixels[:, 0] / 8 + pixels[:, 1] / 16 + 30).reshape(16, 16)
    difference = geometry.crop(image, matrix, (16, 16))[..., 1] - expected
    halvings = geometry.averaging(matrix).bit_length() - 1
    assert np.abs(difference).max() < 0.8 + halvings / 4
    assert abs(difference.mean()) < 0.3 + halvings / 4


@given(box=st.tuples(st.floats(-900, 900), st.floats(-900, 900), st.floats(100, 900), st.floats(100, 900)))
@settings(max_examples=60)
def test_a_white_image_ends_where_it_ends(box):
    """Partly outside, too: the sum of the light is the area of the image in the crop."""
    size, (height, width) = (32, 24), (301, 203)
    matrix = geometry.crop_affine(box, size)
    crop = geometry.crop(np.full((height, width, 3), 255, np.uint8), matrix, size)[..., 0] / 255
    low, high = geometry.apply(matrix, [[-0.5, -0.5], [width - 0.5, height - 0.5]])
    for axis, (count, shown) in enumerate(zip((24, 32), (crop.max(axis=0), crop.max(axis=1)), strict=True)):
        inside = max(min(high[axis], count - 0.5) - max(low[axis], -0.5), 0)
        if crop.max() == 1:
            assert shown.sum() == pytest.approx(inside, abs=0.55)
        centres = np.arange(count)
        assert (shown[(centres < low[axis] - 1.1) | (centres > high[axis] + 1.1)] == 0).all()


def test_a_crop_is_written_into_the_batch_it_is_given():
    batch = np.full((2, 8, 6, 3), 7, np.uint8)
    image = np.full((40, 30, 3), 200, np.uint8)
    image.flags.writeable = False
    crop = geometry.crop(image, geometry.crop_affine((-0.5, -0.5, 30, 40), (8, 6)), (8, 6), out=batch[1])
    assert np.shares_memory(crop, batch)
    assert (batch[1, 1:-1, 1:-1] == 200).all()
    assert (batch[0] == 7).all()


def test_an_image_of_a_single_pixel_under_a_large_box():
    image = np.full((1, 1, 3), 200, np.uint8)
    crop = geometry.crop(image, geometry.crop_affine((-50, -50, 90_000, 90_000), (8, 6)), (8, 6))
    assert crop.max() <= 1


@given(stride=st.sampled_from([1, 2, 4, 8, 16]), cells=st.integers(1, 64))
def test_cells_cover_their_pixels(stride, cells):
    outer = np.array([-0.5, cells - 0.5])
    np.testing.assert_allclose(geometry.cells_to_pixels(outer, stride), [-0.5, cells * stride - 0.5])
    first = np.arange(stride).mean()
    assert geometry.cells_to_pixels(0.0, stride) == pytest.approx(first)


@given(x=st.floats(-1e4, 1e4), stride=st.floats(0.5, 64))
def test_cells_to_pixels_and_back(x, stride):
    assert geometry.pixels_to_cells(geometry.cells_to_pixels(x, stride), stride) == pytest.approx(x, abs=1e-9)


def test_the_box_of_points_touches_the_outermost():
    assert geometry.box_of_points([[3, 9], [7, 2], [5, 5]]).tolist() == [3, 2, 4, 7]


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, 5, -1), (math.nan, 0, 5, 5), (0, math.inf, 5, 5), (0, 0, 5)]
)
def test_a_box_without_area_is_refused(box):
    with pytest.raises(GeometryError, match="boxes must be finite"):
        geometry.crop_affine(box, SIZE)


@pytest.mark.parametrize(
    ("size", "padding"), [((0, 5), 1.0), ((5, -1), 1.0), (SIZE, 0.0), (SIZE, -1.0), (SIZE, math.nan)]
)
def test_an_impossible_size_or_padding_is_refused(size, padding):
    with pytest.raises(GeometryError, match="must be positive"):
        geometry.expand_box((0, 0, 5, 5), size, padding)


@pytest.mark.parametrize("matrix", [np.zeros((2, 3)), [[1, 2, 0], [2, 4, 0]], [[math.nan, 0, 0], [0, 1, 0]]])
def test_a_map_without_an_inverse_is_refused(matrix):
    with pytest.raises(GeometryError, match="no inverse"):
        geometry.invert(matrix)


@given(box=boxes, inner=boxes, angle=angles)
def test_a_composed_map_does_one_after_the_other(box, inner, angle):
    outer = geometry.crop_affine(box, SIZE, rotation_deg=angle)
    first = geometry.crop_affine(inner, SIZE, padding=1.25, flip=True)
    points = corners_of(inner)
    np.testing.assert_allclose(
        geometry.apply(geometry.compose(outer, first), points),
        geometry.apply(outer, geometry.apply(first, points)),
        atol=1e-6,
    )


def test_composing_broadcasts():
    many = geometry.crop_affine([[0, 0, 10, 20], [5, 5, 30, 30]], SIZE)
    one = geometry.from_reduced((100, 80), 2)
    composed = geometry.compose(many, one)
    assert composed.shape == (2, 2, 3)
    np.testing.assert_allclose(composed[1], geometry.compose(many[1], one))


@given(box=boxes, padding=paddings)
def test_detail_is_the_scale_from_crop_to_image(box, padding):
    matrix = geometry.crop_affine(box, SIZE, padding=padding)
    assert geometry.detail(box, SIZE, padding) == pytest.approx(1 / matrix[0, 0])


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    factor=st.sampled_from([1, 2, 4, 8]),
    backwards=st.tuples(st.booleans(), st.booleans()),
)
def test_each_reduced_pixel_lies_in_the_middle_of_those_it_covers(size, factor, backwards):
    """Counted out pixel by pixel: from the first on, or backwards from the last."""
    matrix = geometry.from_reduced(size, factor, backwards)
    for axis, (side, mirrored) in enumerate(zip(size[::-1], backwards, strict=True)):
        count = geometry.reduced(side, factor)
        assert (count - 1) * factor < side <= count * factor
        covered = np.arange(count * factor).reshape(count, factor)
        middles = covered.mean(axis=1)
        if mirrored:
            middles = (side - 1 - middles)[::-1]
        points = np.zeros((count, 2))
        points[:, axis] = np.arange(count)
        np.testing.assert_allclose(geometry.apply(matrix, points)[:, axis], middles, atol=1e-9)
