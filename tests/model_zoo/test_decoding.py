"""What every decoder promises, and what each one adds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_zoo.codecs import DECODERS, argmax_shift, dark, dsnt, gaussian, udp
from model_zoo.errors import HeatmapError, ModelZooError
from model_zoo.manifest import Codec

CODEC = Codec(sigma_cells=1.0)
PLAIN = {name: partial(decode, codec=CODEC) for name, decode in DECODERS.items()}
BLURRED = {
    "dark, blurred": partial(dark.decode, blur_kernel=11),
    "udp, blurred": partial(udp.decode, blur_kernel=5),
}

every = pytest.mark.parametrize("decode", [pytest.param(f, id=name) for name, f in (PLAIN | BLURRED).items()])
unblurred = pytest.mark.parametrize("decode", [pytest.param(f, id=name) for name, f in PLAIN.items()])
refining = pytest.mark.parametrize(
    "decode", [pytest.param(dark.decode, id="dark"), pytest.param(udp.decode, id="udp")]
)

seeds = st.integers(0, 2**32 - 1)
sigmas = st.sampled_from([1.0, 1.5, 2.0])
any_maps = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
)


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Positive maps whose values are all different."""
    return np.random.default_rng(seed).uniform(0.01, 1, shape).astype(np.float32)


@every
@given(maps=any_maps)
def test_finite_maps_give_finite_points_inside_the_map(decode, maps):
    maps.flags.writeable = False
    points, scores = decode(maps)
    height, width = maps.shape[2:]
    assert points.shape == (*maps.shape[:2], 2)
    assert scores.shape == maps.shape[:2]
    assert points.dtype == scores.dtype == np.float64
    assert np.isfinite(points).all()
    slack = 1e-5  # float32 sums of dsnt
    assert (points >= -0.5 - slack).all()
    assert (points <= np.array([width - 0.5, height - 0.5]) + slack).all()
    np.testing.assert_array_equal(scores, maps.max(axis=(2, 3)))


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_stay_finite(decode, dtype):
    maps = np.full((1, 2, 32, 32), np.finfo(dtype).max)
    maps[0, 1] *= -1
    points, scores = decode(maps)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(scores, maps.max(axis=(2, 3)))


@every
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-30])
def test_flat_maps_have_an_answer_inside(decode, value):
    points, scores = decode(np.full((2, 3, 7, 6), value, np.float32))
    assert ((points >= -0.5) & (points <= [5.5, 6.5])).all()
    np.testing.assert_allclose(scores, value)


@every
@given(seed=seeds)
def test_a_batch_is_its_parts(decode, seed):
    maps = noise(seed, (3, 4, 11, 9))
    together = decode(maps)
    for crop in range(3):
        for one, all_of_them in zip(decode(maps[crop : crop + 1]), together, strict=True):
            np.testing.assert_allclose(one[0], all_of_them[crop], atol=1e-6)


@every
@given(seed=seeds)
def test_the_order_of_keypoints_does_not_matter(decode, seed):
    maps, order = noise(seed, (1, 5, 11, 9)), np.random.default_rng(seed).permutation(5)
    for shuffled, straight in zip(decode(maps[:, order]), decode(maps), strict=True):
        np.testing.assert_allclose(shuffled, straight[:, order], atol=1e-6)


@every
def test_the_layout_in_memory_does_not_matter(decode):
    maps = noise(1, (2, 11, 9, 4))
    points, scores = decode(maps.transpose(0, 3, 1, 2))
    expected = decode(np.ascontiguousarray(maps.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(points, expected[0], atol=1e-6)
    np.testing.assert_array_equal(scores, expected[1])


@every
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int32])
def test_other_number_types_are_read(decode, dtype):
    maps = np.zeros((1, 1, 9, 9), dtype)
    maps[0, 0, 4, 3:6] = 1, 4, 1
    maps[0, 0, 3:6, 4] = 1, 4, 1
    points, scores = decode(maps)
    np.testing.assert_allclose(points, [[[4, 4]]], atol=1e-6)
    assert scores.tolist() == [[4]]


@unblurred
@given(seed=seeds, dx=st.integers(-3, 3), dy=st.integers(-3, 3))
def test_moving_the_content_by_whole_cells_moves_the_point(decode, seed, dx, dy):
    canvases = np.zeros((2, 1, 21, 19), np.float32)
    patch = noise(seed, (7, 7))
    canvases[0, 0, 7:14, 6:13] = patch
    canvases[1, 0, 7 + dy : 14 + dy, 6 + dx : 13 + dx] = patch
    (here,), (there,) = decode(canvases)[0]
    np.testing.assert_allclose(there - here, [dx, dy], atol=1e-5)


@pytest.mark.parametrize("name", ["argmax_shift", "dark", "dsnt"])
@given(seed=seeds)
def test_a_mirrored_map_gives_the_mirrored_point(name, seed):
    # UDP's mixed difference takes two of the four diagonal cells, so its step is not that of the mirrored map.
    maps = noise(seed, (2, 3, 12, 10))
    points, scores = PLAIN[name](maps)
    for mirrored, axis, cells in ((maps[..., ::-1], 0, 10), (maps[:, :, ::-1], 1, 12)):
        expected = points.copy()
        expected[..., axis] = cells - 1 - expected[..., axis]
        found, same_scores = PLAIN[name](mirrored)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_array_equal(same_scores, scores)


@pytest.mark.parametrize(
    "decode", [PLAIN["argmax_shift"], PLAIN["dsnt"], PLAIN["dark"], BLURRED["dark, blurred"]]
)
@given(x=st.floats(6, 13), y=st.floats(6, 17), amplitude=st.floats(1e-2, 1e3), sigma=sigmas)
def test_the_scale_of_the_values_does_not_matter(decode, x, y, amplitude, sigma):
    # Inside the crossing of 1e-10, below which DARK calls a value zero: the maps are not that large.
    drawn = gaussian.draw([[[x, y]]], (24, 20), sigma).astype(np.float64) + 1e-4
    points, scores = decode(drawn)
    scaled_points, scaled_scores = decode(drawn * amplitude)
    np.testing.assert_allclose(scaled_points, points, atol=1e-6)
    np.testing.assert_allclose(scaled_scores, scores * amplitude, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "margin", "tolerance"),
    [("dark", 2, 1e-4), ("udp", 1, 1e-4), ("argmax_shift", 1, 0.25 + 1e-3), ("dsnt", 6, 1e-2)],
)
@given(data=st.data(), sigma=sigmas)
def test_decoding_undoes_drawing(name, margin, tolerance, data, sigma):
    height, width = 24, 20
    x = data.draw(st.floats(margin - 0.4, width - 1 - margin + 0.4), "x")
    y = data.draw(st.floats(margin - 0.4, height - 1 - margin + 0.4), "y")
    drawn = gaussian.draw([[[x, y]]], (height, width), sigma)
    points, scores = PLAIN[name](drawn)
    np.testing.assert_allclose(points[0, 0], [x, y], atol=tolerance)
    assert scores[0, 0] == drawn.max()


inner = st.floats(1, 14, width=32)  # from the first to the last cell that has two neighbours


@given(x=inner, y=inner, sigma=sigmas)
def test_a_quarter_shift_is_never_off_by_more_than_a_quarter(x, y, sigma):
    drawn = gaussian.draw(np.array([[x, y]], np.float32), (16, 16), sigma)[None]
    points, _ = argmax_shift.decode(drawn)
    np.testing.assert_allclose(points[0, 0], [x, y], atol=0.25 + 1e-3)


@pytest.mark.parametrize("corner", [(0, 0), (0, 7), (7, 0), (7, 7)])
@pytest.mark.parametrize("name", ["argmax_shift", "dark", "udp"])
def test_a_maximum_on_the_border_stays_inside_the_map(name, corner):
    heatmaps = np.zeros((1, 1, 8, 8), np.float32)
    heatmaps[0, 0][corner] = 1
    heatmaps.flags.writeable = False  # and the input is left alone
    points, _ = PLAIN[name](heatmaps)
    tolerance = 0.5 if name == "udp" else 0  # the edge is repeated there, so UDP may step within the cell
    np.testing.assert_allclose(points[0, 0], corner[::-1], atol=tolerance)


def test_along_a_border_the_quarter_shift_moves_on_the_other_axis_alone():
    heatmaps = np.zeros((1, 1, 8, 8), np.float32)
    heatmaps[0, 0, 0, 3:5] = 1, 0.5
    assert argmax_shift.decode(heatmaps)[0][0, 0].tolist() == [3.25, 0]
    assert argmax_shift.decode(heatmaps, rule="hrnet")[0][0, 0].tolist() == [3, 0]


def test_the_shift_is_a_parameter():
    heatmaps = np.zeros((1, 1, 8, 8), np.float32)
    heatmaps[0, 0, 4, 3:5] = 1, 0.5
    assert argmax_shift.decode(heatmaps, shift=0.0)[0][0, 0].tolist() == [3, 4]
    assert argmax_shift.decode(heatmaps, shift=0.5)[0][0, 0].tolist() == [3.5, 4]


@pytest.mark.parametrize("blur_kernel", [0, 1, 3, 5, 7, 9, 11, 13, 17])
def test_a_symmetric_map_is_not_moved_by_dark(blur_kernel):
    maps = gaussian.draw([[[12.0, 12.0]]], (25, 25), 2.0)
    points, _ = dark.decode(maps, blur_kernel=blur_kernel)
    np.testing.assert_allclose(points[0, 0], [12, 12], atol=1e-6)


@pytest.mark.parametrize(
    ("sigma", "blur_kernel", "tolerance"), [(1.0, 3, 2e-2), (2.0, 11, 2e-3), (3.0, 17, 2e-3)]
)
@given(x=st.floats(18, 24), y=st.floats(18, 24))
def test_a_blur_far_from_the_border_does_little_harm(sigma, blur_kernel, tolerance, x, y):
    maps = gaussian.draw([[[x, y]]], (43, 43), sigma)
    points, scores = dark.decode(maps, blur_kernel=blur_kernel)
    np.testing.assert_allclose(points[0, 0], [x, y], atol=tolerance)
    assert scores[0, 0] == maps.max()


@refining
@given(maps=any_maps, bound=st.sampled_from([0.25, 1.0, 1.5]), blur_kernel=st.sampled_from([0, 3, 11]))
def test_a_step_is_never_longer_than_its_bound(decode, maps, bound, blur_kernel):
    points, _ = decode(maps, blur_kernel=blur_kernel, max_offset_cells=bound)
    width = maps.shape[3]
    row, column = np.divmod(maps.reshape(*maps.shape[:2], -1).argmax(axis=-1), width)
    steps = points - np.stack([column, row], axis=-1)
    assert np.hypot(steps[..., 0], steps[..., 1]).max() <= bound + 1e-9


@refining
def test_a_saddle_takes_no_step(decode):
    maps = np.full((1, 1, 9, 9), 0.05)
    maps[0, 0, 2:7, 2:7] = [
        [0.05, 0.05, 0.99, 0.05, 0.05],
        [0.05, 0.99, 0.49, 0.10, 0.05],
        [0.99, 0.89, 1.00, 0.90, 0.99],
        [0.05, 0.10, 0.50, 0.99, 0.05],
        [0.05, 0.05, 0.99, 0.05, 0.05],
    ]  # a ridge along the diagonal, so high that no paraboloid has its peak here
    points, _ = decode(maps, blur_kernel=0)
    assert points[0, 0].tolist() == [4, 4]
    assert udp.decode(maps, blur_kernel=0, concave_only=False)[0][0, 0].tolist() != [4, 4]


@refining
def test_rounding_is_no_curvature(decode):
    maps = 1 + 1e-9 * noise(0, (1, 4, 9, 9)).astype(np.float64)
    points, _ = decode(maps, blur_kernel=0)
    np.testing.assert_array_equal(points, np.round(points))


def test_the_bounds_of_udp_are_those_of_the_map_as_given():
    drawn = gaussian.draw([[[10.4, 10.0]]], (21, 21), 3.0)
    np.testing.assert_allclose(udp.decode(drawn, blur_kernel=5)[0][0, 0], [10.4, 10], atol=2e-2)
    assert udp.decode(drawn * 100, blur_kernel=5)[0][0, 0].tolist() == [
        10,
        10,
    ]  # nothing about it is below 50


@refining
@pytest.mark.parametrize("size", [-1, 2, 10])
def test_an_impossible_blur_is_refused(decode, size):
    with pytest.raises(ValueError, match="odd"):
        decode(np.ones((1, 1, 8, 8), np.float32), blur_kernel=size)


def test_the_codec_chooses_the_blur():
    maps = noise(5, (1, 3, 16, 16))
    codec = Codec(sigma_cells=1.0, dark_blur_kernel=11)
    np.testing.assert_array_equal(DECODERS["dark"](maps, codec)[0], dark.decode(maps, blur_kernel=11)[0])
    np.testing.assert_array_equal(DECODERS["udp"](maps, codec)[0], udp.decode(maps, blur_kernel=11)[0])
    assert not np.array_equal(dark.decode(maps)[0], dark.decode(maps, blur_kernel=11)[0])


@given(cells=st.integers(1, 60), data=st.data())
def test_dsnt_finds_a_single_cell_at_its_place_on_the_axis(cells, data):
    index = data.draw(st.integers(0, cells - 1))
    one_hot = np.zeros((1, 1, 1, cells))
    one_hot[..., index] = 1
    assert dsnt.expectation(one_hot)[0, 0].tolist() == [dsnt.axis(cells)[index], 0]
    np.testing.assert_allclose(dsnt.decode(one_hot * 7)[0][0, 0], [index, 0], atol=1e-9)


def test_dsnt_answers_the_centre_where_nothing_is_positive():
    maps = np.stack([np.zeros((6, 9)), np.full((6, 9), -3.0)])[None].astype(np.float32)
    points, scores = dsnt.decode(maps)
    np.testing.assert_allclose(points, [[[4, 2.5], [4, 2.5]]], atol=1e-12)
    assert scores.tolist() == [[0, -3]]


@given(size=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30)), seed=seeds)
def test_normalised_coordinates_go_to_cells_and_back(size, seed):
    points = np.random.default_rng(seed).uniform(-2, 40, (4, 3))
    np.testing.assert_allclose(dsnt.to_cells(dsnt.to_normalised(points, size), size), points, atol=1e-11)
    edges = dsnt.to_normalised([[-0.5] * 3, [cells - 0.5 for cells in size[::-1]]], size)
    np.testing.assert_allclose(edges, [[-1] * 3, [1] * 3], atol=1e-12)


@given(seed=seeds)
def test_a_volume_agrees_with_the_map_that_remains_without_its_depth(seed):
    volume = dsnt.softmax(np.random.default_rng(seed).normal(size=(2, 3, 4, 6, 5)))
    np.testing.assert_allclose(
        dsnt.expectation(volume)[..., :2], dsnt.expectation(volume.sum(axis=2)), atol=1e-12
    )


@pytest.mark.parametrize("x", [-1e6, -1.0, 0.3, 1e6])
def test_a_dsnt_target_is_finite_and_sums_to_at_most_one(x):
    drawn = dsnt.target([[x, 0.0]], (7, 9), 1.0)
    assert np.isfinite(drawn).all()
    assert drawn.sum() == pytest.approx(1.0 if abs(x) <= 1 else 0.0)


@every
@pytest.mark.parametrize(
    "maps",
    [
        np.zeros((3, 8, 8), np.float32),
        np.zeros((1, 1, 1, 8, 8), np.float32),
        np.zeros((0, 3, 8, 8), np.float32),
        np.zeros((1, 3, 8, 0), np.float32),
        np.full((1, 1, 8, 8), np.nan, np.float32),
        np.full((1, 1, 8, 8), np.inf, np.float32),
        np.full((1, 1, 8, 8), -np.inf, np.float32),
        np.zeros((1, 1, 8, 8), np.complex64),
        np.zeros((1, 1, 8, 8), object),
    ],
    ids=["3 axes", "5 axes", "no crops", "no cells", "nan", "inf", "-inf", "complex", "objects"],
)
def test_what_is_no_heatmap_is_refused_with_its_shape(decode, maps):
    with pytest.raises(HeatmapError, match=r"\(B, K, H, W\)") as caught:
        decode(maps)
    assert str(maps.shape) in str(caught.value)
    assert isinstance(caught.value, ModelZooError)
