"""Augmentation: labels follow the pixels, both warps agree, and a seed means the same pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_zoo import geometry
from model_zoo.skeletons import BODY19
from tests.trainer import people_made
from trainer.data import augment, people, store
from trainer.data.augment import NONE, Augmentation
from trainer.data.store import CropStore

SIZE = (128, 96)
PADDING = 1.25
SIDE = store.SIDE_PX
TURNING = Augmentation(
    flip=0.5, turn=1, turn_deg=40, scale=0.3, shift=0.06, gain=0, bias=0, tint=0, grey=0
)  # colour as it is
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])


def dots(seed: int, count: int) -> CropStore:
    """Stored crops with three dots each, red, green and blue, labelled as nose, left wrist and right wrist."""
    rng = np.random.default_rng(seed)
    labelled = [BODY19.index(name) for name in ("nose", "left_wrist", "right_wrist")]
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    points, weights = np.zeros((count, len(BODY19), 2)), np.zeros((count, len(BODY19)))
    for image, places, weight in zip(images, points, weights, strict=True):
        corners = np.array([[0, -1], [-1, 1], [1, 1]])  # so far apart that no two dots meet
        at = SIDE / 2 + 35 * corners + rng.uniform(-12, 12, (3, 2))
        for place, colour in zip(at, COLOURS.tolist(), strict=True):
            fixed = [int(v) for v in (place * 16).round()]
            cv2.circle(image, fixed, 5 * 16, colour, -1, cv2.LINE_AA, 4)
        places[labelled], weight[labelled] = (at * 16).round() / 16, 1
    boxes = np.tile([SIDE * 0.19, SIDE * 0.19, SIDE * 0.62, SIDE * 0.62], (count, 1))
    return CropStore(images, boxes, points, weights)


def warped(drawn: augment.Draw, stored: CropStore, device: bool = False) -> np.ndarray:
    """(B, h, w, 3) uint8 by either way to warp."""
    indices = np.arange(len(stored))
    if device:
        crops = augment.warp_on_device(torch.from_numpy(np.array(stored.images)), drawn, SIZE)
    else:
        crops = augment.warp(stored, indices, drawn, SIZE)
    return crops.permute(0, 2, 3, 1).numpy()


def centroid(light: np.ndarray) -> np.ndarray:
    """x, y of the middle of the light."""
    rows, columns = np.indices(light.shape)
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("device", [False, True], ids=["OpenCV", "grid_sample"])
def test_labels_follow_the_pixels(device: bool, seed: int) -> None:
    stored = dots(seed, 6)
    drawn = augment.draw(TURNING, stored.boxes, SIZE, PADDING, np.random.default_rng(seed))
    points, weights = augment.labels(stored, np.arange(6), drawn, SIZE, BODY19)
    crops = warped(drawn, stored, device).astype(float)
    nose, left, right = (BODY19.index(name) for name in ("nose", "left_wrist", "right_wrist"))
    reach, checked = 8, 0  # a dot that the border cuts has its middle elsewhere
    for crop, at, weight, flipped in zip(crops, points, weights, drawn.flipped, strict=True):
        # Mirrored, the left wrist is what looks like the right one.
        names = (nose, right, left) if flipped else (nose, left, right)
        for channel, keypoint in enumerate(names):
            whole = (at[keypoint] > reach).all() and (at[keypoint] < np.array(SIZE[::-1]) - reach).all()
            if weight[keypoint] and whole:
                np.testing.assert_allclose(centroid(crop[..., channel]), at[keypoint], atol=0.6)
                checked += 1
    assert checked > 6  # of 18


def test_a_flip_exchanges_the_names_of_left_and_right() -> None:
    stored = dots(1, 1)
    stored.points[:] = np.random.default_rng(0).uniform(80, 170, stored.points.shape)
    stored.weights[:] = np.arange(1, 20) / 20
    how = NONE.model_copy(update={"flip": 1.0})
    zero = np.array([0])
    plain = augment.draw(NONE, stored.boxes, SIZE, PADDING, np.random.default_rng(0))
    flipped = augment.draw(how, stored.boxes, SIZE, PADDING, np.random.default_rng(0))
    assert flipped.flipped.all()
    points, weights = augment.labels(stored, zero, plain, SIZE, BODY19)
    mirrored, exchanged = augment.labels(stored, zero, flipped, SIZE, BODY19)
    for index, name in enumerate(BODY19.keypoints):
        side, _, part = name.partition("_")
        partner = {"left": f"right_{part}", "right": f"left_{part}"}.get(side, name)
        other = BODY19.index(partner)
        np.testing.assert_allclose(
            mirrored[0, index], [SIZE[1] - 1 - points[0, other, 0], points[0, other, 1]], atol=1e-4
        )
        assert exchanged[0, index] == weights[0, other] > 0


def test_no_augmentation_is_the_plain_crop_of_the_box() -> None:
    stored = dots(3, 4)
    drawn = augment.draw(NONE, stored.boxes, SIZE, PADDING, np.random.default_rng(5))
    matrices = geometry.crop_affine(stored.boxes, SIZE, padding=PADDING)
    np.testing.assert_allclose(drawn.matrices, matrices, atol=1e-12)
    plain = np.stack(
        [geometry.warp(image, m, SIZE) for image, m in zip(stored.images, matrices, strict=True)]
    )
    np.testing.assert_array_equal(warped(drawn, stored), plain)


def test_both_warps_give_the_same_pictures(tmp_path: Path) -> None:
    # With OpenCV 5 they differ by 1 at most. OpenCV 4 interpolates in 32 steps between two pixels, which is worth up to
    # 255 / 32 per axis on a hard edge. A crop that is half a pixel off would differ by 10 on the average here.
    made = people_made.make(tmp_path, count=8)
    stored = store.build(people.read(made.annotations, BODY19), tmp_path / "cache")
    how = Augmentation(turn=1, grey=0.5)
    drawn = augment.draw(how, stored.boxes, SIZE, PADDING, np.random.default_rng(2))
    assert 0 < drawn.grey.sum() < 8
    a, b = (warped(drawn, stored, device).astype(int) for device in (False, True))
    assert np.abs(a - b).max() <= 16
    assert np.abs(a - b).mean() < 0.5


@pytest.mark.parametrize("device", [False, True], ids=["OpenCV", "grid_sample"])
def test_a_crop_beyond_the_store_is_black_before_colour(device: bool) -> None:
    stored = dots(1, 1)
    stored.images[:] = 200
    stored.boxes[:] = [0, 0, SIDE, SIDE]
    how = NONE.model_copy(update={"bias": 32.0})
    drawn = augment.draw(how, stored.boxes, SIZE, 2.0, np.random.default_rng(1))
    crop = warped(drawn, stored, device)[0]
    assert (crop[0] == drawn.tables[0, 0]).all()  # the first row lies outside
    assert (crop[SIZE[0] // 2, SIZE[1] // 2] == drawn.tables[0, 200]).all()


@pytest.mark.parametrize("device", [False, True], ids=["OpenCV", "grid_sample"])
def test_grey_pictures_have_one_value_per_pixel_and_others_keep_colour(device: bool) -> None:
    stored = dots(1, 12)
    how = NONE.model_copy(update={"grey": 0.5})
    drawn = augment.draw(how, stored.boxes, SIZE, PADDING, np.random.default_rng(1))
    assert 0 < drawn.grey.sum() < 12
    for crop, grey in zip(warped(drawn, stored, device), drawn.grey, strict=True):
        assert (np.ptp(crop, axis=-1) == 0).all() == grey


def test_a_colour_change_keeps_the_order_of_brightness() -> None:
    drawn = augment.draw(
        Augmentation(), np.tile([1.0, 1, 9, 9], (64, 1)), SIZE, 1.25, np.random.default_rng(3)
    )
    assert drawn.tables.dtype == np.uint8
    assert (np.diff(drawn.tables.astype(int), axis=1) >= 0).all()
    assert len(np.unique(drawn.tables, axis=0)) > 60  # and everybody gets their own


def same(a: augment.Draw, b: augment.Draw) -> bool:
    """Whether two draws are equal number by number."""
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@given(seed=st.integers(0, 2**31), batch=st.integers(1, 24), world=st.integers(1, 4))
def test_a_seed_is_a_draw_and_a_slice_is_a_part_of_it(seed: int, batch: int, world: int) -> None:
    boxes = np.random.default_rng(1).uniform(10, 100, (batch, 4))

    def drawn() -> augment.Draw:
        return augment.draw(Augmentation(), boxes, SIZE, PADDING, np.random.default_rng(seed))

    whole = drawn()
    assert same(whole, drawn())
    share = batch // world
    for rank in range(world):
        mine = slice(rank * share, (rank + 1) * share)
        for name, values in vars(drawn()[mine]).items():
            np.testing.assert_array_equal(values, getattr(whole, name)[mine])


def test_another_seed_is_another_draw() -> None:
    boxes = np.random.default_rng(1).uniform(10, 100, (4, 4))
    a, b = (
        augment.draw(Augmentation(), boxes, SIZE, PADDING, np.random.default_rng(seed)) for seed in (1, 2)
    )
    assert not same(a, b)


@given(
    turn_deg=st.floats(0, 180), scale=st.floats(0, 0.9), shift=st.floats(0, 0.5), seed=st.integers(0, 1000)
)
def test_every_draw_stays_within_its_bounds(turn_deg: float, scale: float, shift: float, seed: int) -> None:
    boxes = np.tile([60.0, 50.0, 60.0, 80.0], (32, 1))
    how = NONE.model_copy(update={"turn": 1.0, "turn_deg": turn_deg, "scale": scale, "shift": shift})
    drawn = augment.draw(how, boxes, SIZE, PADDING, np.random.default_rng(seed))
    plain = geometry.crop_affine(boxes[:1], SIZE, padding=PADDING)[0]
    linear = drawn.matrices[..., :2] / plain[0, 0]
    factor = np.sqrt(np.linalg.det(linear))
    assert (factor >= 1 / (1 + scale) - 1e-9).all()
    assert (factor <= 1 / (1 - scale) + 1e-9).all()
    angle = np.rad2deg(np.abs(np.arctan2(linear[:, 1, 0], linear[:, 0, 0])))
    assert (angle <= min(2.5 * turn_deg, 180) + 1e-6).all()
    middle = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    seen = geometry.apply(geometry.invert(drawn.matrices), np.tile(middle, (32, 1, 1)))[:, 0]
    moved = np.abs(seen - (boxes[:, :2] + boxes[:, 2:] / 2)) / boxes[:, 2:]
    assert (moved <= shift + 1e-9).all()


LEFT, RIGHT, BOTTOM = -0.5, SIZE[1] - 0.5, SIZE[0] - 0.5


@given(x=st.floats(-40, 140), y=st.floats(-40, 170))
@example(x=LEFT + 0.01, y=LEFT + 0.01)
@example(x=LEFT - 0.01, y=50)
@example(x=50, y=LEFT - 0.01)
@example(x=RIGHT - 0.01, y=BOTTOM - 0.01)
@example(x=RIGHT + 0.01, y=50)
@example(x=50, y=BOTTOM + 0.01)
def test_a_label_counts_exactly_where_the_crop_covers_it(x: float, y: float) -> None:
    stored = dots(1, 1)
    drawn = augment.draw(NONE, stored.boxes, SIZE, PADDING, np.random.default_rng(0))
    stored.points[:] = geometry.apply(geometry.invert(drawn.matrices), np.array([[[x, y]]]))
    stored.weights[:] = 0.5
    points, weights = augment.labels(stored, np.array([0]), drawn, SIZE, BODY19)
    np.testing.assert_allclose(points[0, 0], [x, y], atol=1e-4)
    margin = min(abs(x - LEFT), abs(y - LEFT), abs(x - RIGHT), abs(y - BOTTOM))
    if margin > 1e-6:
        inside = LEFT < x < RIGHT and LEFT < y < BOTTOM
        assert (weights == (0.5 if inside else 0)).all()


def turns(drawn: augment.Draw) -> np.ndarray:
    """(B,) degrees, of pictures that are not mirrored."""
    return np.degrees(np.arctan2(drawn.matrices[:, 1, 0], drawn.matrices[:, 0, 0]))


def test_some_are_turned_to_any_angle_all_of_them_alike() -> None:
    boxes = np.tile([60.0, 60, 130, 130], (6000, 1))
    how = NONE.model_copy(update={"turn_any": 0.5})
    found = turns(augment.draw(how, boxes, SIZE, PADDING, np.random.default_rng(1)))
    upright = np.abs(found) < 1e-6
    assert 0.47 < upright.mean() < 0.53
    counts, _ = np.histogram(found[~upright], bins=8, range=(-180, 180))
    assert counts.min() > 0.8 * counts.mean()


def test_turning_to_any_angle_changes_nothing_else_that_is_drawn() -> None:
    boxes = np.tile([60.0, 60, 130, 130], (40, 1))
    how = Augmentation()
    one, other = (
        augment.draw(each, boxes, SIZE, PADDING, np.random.default_rng(4))
        for each in (how, how.model_copy(update={"turn_any": 0.4}))
    )
    same = (one.matrices == other.matrices).all(axis=(1, 2))
    assert 0.4 < same.mean() < 0.8
    np.testing.assert_allclose(np.linalg.det(one.matrices[..., :2]), np.linalg.det(other.matrices[..., :2]))
    assert (one.tables == other.tables).all()
    assert (one.flipped == other.flipped).all()
