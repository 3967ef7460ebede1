"""Hands with their arms, one in a picture and at times another beside; and pictures without any.

Digits are shown with the palm to the camera, more or less, and 0 from the side of the thumb; whatever else a hand does
is seen from anywhere. A picture without a hand has an annotation too, with `presence` 0 and no keypoint, so that a crop
can be taken from it: places, things, arms whose hand is not in the picture, and faces, trunks, legs and feet.

World: the camera is at the origin and looks along y, z is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from model_zoo.geometry import Floats
from model_zoo.skeletons import HAND21
from trainer.synth import hand_body, hand_looks, hand_others, hand_pose, looks, plain, sensor
from trainer.synth.backgrounds import Backgrounds
from trainer.synth.body import Shape, rotation_matrices
from trainer.synth.hand_body import Hand, Side
from trainer.synth.recipe import Recipe
from trainer.synth.render import NOBODY, Drawn, Rendered, Renderer
from trainer.synth.sample import HIDDEN, OUTSIDE, SEEN, Camera, Person, Sample
from trainer.synth.stages import lap

Rng = np.random.Generator

SIDES: dict[Side, str] = {"L": "left", "R": "right"}
"""Side to its name in `handedness`."""
BOX_MARGIN = 0.1
"""What a hand's box adds to its keypoints on each side, as a share of their longer extent."""
THICKNESS_M = {
    "wrist": 0.042, "cmc": 0.036, "mcp": 0.033, "ip": 0.02, "pip": 0.02, "dip": 0.016, "tip": 0.014,
}  # fmt: skip
"""Most that a seen surface lies before a keypoint of a hand with a palm of 0.1 m."""
MOST_COVERED = 0.5
"""Share of a labelled hand's keypoints that may be outside, or behind its arm or anything else."""
WITHOUT = 0.2
"""Share of the pictures that show no hand."""
_PALM_M = 0.1
_LOOK = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
"""From the world to the frame of the camera."""
_UPRIGHT = _LOOK.T @ np.diag([1.0, -1.0, -1.0])
"""From the axes of a hand whose palm looks at the camera, fingers up, to the world."""
_TRIES = 6


@dataclass(frozen=True)
class Shown:
    """A hand, before there is a picture."""

    hand: Hand
    drawn: Drawn
    gesture: int | None
    """Digit that it shows; None for any other pose."""


class Studio:
    """Makes pictures of one recipe; once per process. Raises as `single.Studio`."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.left_out = recipe.left_out
        self.models = {side: hand_body.load(side) for side in SIDES}
        self.renderer = Renderer(recipe.size, recipe.size)
        self.backgrounds = Backgrounds(recipe.backgrounds)
        self.others = hand_others.Others(recipe.seed)

    def picture(self, rng: Rng) -> Sample:
        """One picture."""
        return self.without(rng) if rng.random() < WITHOUT else self.with_hand(rng)

    def with_hand(self, rng: Rng) -> Sample:
        """A hand, and what is about it; another one where neither its arm nor anything else lets it be seen."""
        for _ in range(_TRIES):
            sample, rendered = self._with_any_hand(rng)
            if self._covered(sample.people[0], rendered) <= MOST_COVERED:
                break
        people = [p for p in sample.people if self._covered(p, rendered) <= MOST_COVERED]
        return replace(sample, people=tuple(people or sample.people[:1]))

    def _with_any_hand(self, rng: Rng) -> tuple[Sample, Rendered]:
        gesture = int(rng.integers(10)) if rng.random() < 0.6 else None
        side, shape, skin = _side(rng), plain.shape(_shape(rng), self.left_out), hand_looks.skin(rng)
        at = np.array([0.0, np.exp(rng.uniform(np.log(0.3), np.log(1.6))), 0.0])
        hand = self.posed(rng, side, shape, gesture).moved(at)
        shown = [self.dressed(rng, 1, hand, skin, gesture)]
        camera = _camera(rng, hand.keypoints, self.recipe.size, self.left_out)
        if rng.random() < 0.15:
            away = rng.normal(0, 1, 3) * (1, 0.6, 1)
            away *= rng.uniform(0.9, 2.0) * hand.palm_m / np.linalg.norm(away)
            other: Side = side if rng.random() < 0.2 else ("L" if side == "R" else "R")
            beside = self.posed(rng, other, shape, None).moved(at + away)
            other_hand = self.dressed(rng, 2, beside, skin, None)
            shown += [] if "others" in self.left_out else [other_hand]
        things = list(hand_others.held(rng, hand)) if gesture is None else []
        if rng.random() < 0.07:
            things.append(hand_others.before(rng, hand))
        things = [] if "things" in self.left_out else things
        if rng.random() < 0.25:
            somebody = self.others.behind(rng, float(at[1]))
            things += [] if "others" in self.left_out else [somebody]
        return self._taken(rng, shown, things, camera)

    def without(self, rng: Rng) -> Sample:
        """No hand; those of the people in it are not in the picture."""
        size = self.recipe.size
        camera = Camera.of_field_of_view(float(rng.uniform(8, 40)), size, size, R=_LOOK)
        how = rng.choice(["place", "things", "arm", "part"], p=[0.3, 0.15, 0.17, 0.38])
        for tries in range(_TRIES):
            sample, rendered = self._taken(rng, [], self._handless(rng, how, camera), camera)
            if not self.others.shown_hands(rendered, self.models["L"]).any():
                break
            how = "place" if tries == _TRIES - 2 else how
        side = float(rng.uniform(0.45, 0.8)) * size
        nobody = Person(
            keypoints=np.zeros((len(HAND21), 3)),
            keypoints_3d=np.full((len(HAND21), 3), np.nan),
            box=np.array([*rng.uniform(-0.5, size - side - 0.5, 2), side, side]),
            mask=np.zeros((size, size), bool),
            person_id=0,
            labels={"presence": 0},
        )
        return Sample(sample.image, (nobody,), camera, meta=sample.meta)

    def posed(self, rng: Rng, side: Side, shape: Shape, gesture: int | None) -> Hand:
        """A hand, seen as its gesture wants it, with the middle of its keypoints at the origin."""
        fingers = hand_pose.sample_hand_angles(rng, gesture)
        wrist = float(np.clip(rng.normal(0, 14), -50, 55)), float(np.clip(rng.normal(0, 8), -18, 26))
        elbow = float(rng.uniform(0, 70))
        if "poses" in self.left_out:
            fingers = fingers if gesture is not None else np.zeros_like(fingers)
            wrist, elbow = (0.0, 0.0), 0.0
        hand = self.models[side].posed(shape, fingers, wrist=wrist, elbow=elbow)
        middle = (hand.keypoints.min(axis=0) + hand.keypoints.max(axis=0)) / 2
        return hand.turned(_UPRIGHT @ _seen_from(rng, gesture, side, self.left_out) @ hand.axes(), middle)

    def dressed(self, rng: Rng, owner: int, hand: Hand, skin: dict[str, Any], gesture: int | None) -> Shown:
        """A hand that can be drawn; `owner` is its number in the picture, from 1."""
        worn = plain.on_arm(hand_looks.worn(rng, skin), self.left_out)
        return Shown(
            hand, Drawn(hand_looks.surface(hand.side), hand.vertices, hand.normals, worn, owner), gesture
        )

    def _covered(self, person: Person, rendered: Rendered) -> float:
        """Share of the keypoints that are outside, or where something else is seen than the hand, its own arm say."""
        height, width = rendered.owner.shape
        column, row = person.keypoints[:, :2].round().astype(int).clip(0, (width - 1, height - 1)).T
        arm = [i for i, name in enumerate(self.models["L"].bone_names) if name.endswith(("arm01", "arm02"))]
        other = (rendered.owner[row, column] != person.person_id) | np.isin(rendered.part[row, column], arm)
        return float(np.mean(other | (person.keypoints[:, 2] == OUTSIDE)))

    def _handless(self, rng: Rng, how: str, camera: Camera) -> list[Drawn]:
        if how == "things":
            return [hand_others.thing(rng, camera) for _ in range(rng.integers(1, 4))]
        if how == "arm":
            side = _side(rng)
            hand = self.posed(rng, side, _shape(rng), None)
            return [hand_others.arm(rng, self.models[side], hand)]
        return [self.others.part(rng)] if how == "part" else []

    def _taken(
        self, rng: Rng, shown: Sequence[Shown], things: list[Drawn], camera: Camera
    ) -> tuple[Sample, Rendered]:
        """A picture with a background and a camera's faults."""
        size = self.recipe.size
        lap("hands and things")
        background, kind = plain.behind(self.backgrounds.draw(rng, size, size), self.left_out)
        lap("background")
        drawn = [plain.painted(each, self.left_out) for each in (*(each.drawn for each in shown), *things)]
        light = plain.lit(looks.lights(rng), self.left_out)
        if drawn:
            rendered = self.renderer.render(drawn, camera, light, background, face=self.others.face)
        else:
            nothing = np.full((size, size), NOBODY, np.int32)
            rendered = Rendered(background, np.full((size, size), np.inf, np.float32), nothing, nothing)
        lap("drawing")
        seen_by = sensor.draw(rng, without=plain.sensor_fields(self.left_out))
        people = tuple(truth(each, camera, rendered) for each in shown)
        lap("truth")
        image = sensor.apply(rendered.rgb, seen_by, rng)
        lap("sensor")
        return Sample(image, people, camera, meta={"background": kind} | seen_by.meta()), rendered


def truth(shown: Shown, camera: Camera, rendered: Rendered) -> Person:
    """What is true of a hand in a picture."""
    owner = shown.drawn.owner
    points = camera.to_camera(shown.hand.keypoints)
    pixels = np.nan_to_num(camera.to_pixels(points), nan=0.0)
    seen = visibility(shown.hand, camera, rendered, owner)
    labels: dict[str, Any] = {"presence": 1, "handedness": SIDES[shown.hand.side]}
    if shown.gesture is not None:
        labels["gesture"] = shown.gesture
    return Person(
        keypoints=np.concatenate([pixels, seen[:, None]], axis=1),
        keypoints_3d=points,
        box=box(pixels, camera),
        mask=rendered.owner == owner,
        person_id=owner,
        labels=labels,
    )


def visibility(hand: Hand, camera: Camera, rendered: Rendered, owner: int) -> Floats:
    """(21,) SEEN, HIDDEN or OUTSIDE: seen where the first surface on the way is the hand's and just before it."""
    inside = camera.to_camera(hand.keypoints)
    pixels = camera.to_pixels(inside)
    height, width = rendered.depth.shape
    there = np.isfinite(pixels).all(axis=1)
    there &= ((pixels >= -0.5) & (pixels < (width - 0.5, height - 0.5))).all(axis=1)
    column, row = np.where(there[:, None], pixels, 0).round().astype(int).clip(0, (width - 1, height - 1)).T
    room = np.array([THICKNESS_M[name.split("_")[-1]] for name in HAND21.keypoints]) * hand.palm_m / _PALM_M
    before = inside[:, 2] - rendered.depth[row, column]
    seen = (rendered.owner[row, column] == owner) & (before <= room)
    return np.where(there, np.where(seen, SEEN, HIDDEN), OUTSIDE)


def box(pixels: Floats, camera: Camera) -> Floats:
    """(4,) about (21, 2) keypoints with a margin, clipped to the picture; zeros where nothing of it is inside."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    margin = BOX_MARGIN * (high - low).max()
    edge = np.array([camera.width, camera.height]) - 0.5
    low, high = (low - margin).clip(-0.5, edge), (high + margin).clip(-0.5, edge)
    return np.concatenate([low, high - low]) if (high > low).all() else np.zeros(4)


def maker(recipe: Recipe) -> Callable[[int], Iterator[Sample]]:
    """Index to its picture; see `write.Maker`."""
    studio = Studio(recipe)

    def make(index: int) -> Iterator[Sample]:
        yield studio.picture(np.random.default_rng([recipe.seed, index]))

    return make


def _side(rng: Rng) -> Side:
    return "L" if rng.random() < 0.5 else "R"


def _shape(rng: Rng) -> Shape:
    child = rng.random() < 0.12
    return Shape(
        gender=float(rng.beta(0.4, 0.4)),
        age=float(rng.uniform(0.3, 0.5) if child else rng.uniform(0.58, 0.98)),
        muscle=float(rng.beta(2, 2)),
        weight=float(rng.beta(2, 2)),
        height=float(rng.beta(2, 2)),
        proportions=float(rng.beta(2, 2)),
    )


def _seen_from(rng: Rng, gesture: int | None, side: Side, left_out: plain.LeftOut) -> Floats:
    """(3, 3) turn of a hand that was upright with its palm to the camera, in its own axes: right, up, to the camera."""
    if gesture is None:
        turn = Rotation.random(random_state=rng).as_matrix()
        return np.eye(3) if "views" in left_out else turn
    tilt = rng.normal(0, 1, 3) * np.radians((16, 22, 0))
    roll = rng.normal(0, np.radians(20)) if rng.random() < 0.75 else rng.uniform(-np.pi, np.pi)
    if "views" in left_out:
        tilt, roll = np.zeros(3), 0.0
    if gesture == 0:  # the ring of thumb and fingers is seen from the side
        tilt[1] += np.radians(-70) * (1 if side == "R" else -1)
    return rotation_matrices((0, 0, roll)) @ rotation_matrices(tilt)


def _camera(rng: Rng, points: Floats, size: int, left_out: plain.LeftOut) -> Camera:
    """One that has these points in the middle, more or less, and at times cuts some off."""
    away = points @ _LOOK.T
    flat = away[:, :2] / away[:, 2:]
    low, high = flat.min(axis=0), flat.max(axis=0)
    fill = rng.uniform(0.42, 0.75) if rng.random() < 0.92 else rng.uniform(0.75, 1.2)
    room = max(0.0, 1 - fill) * 0.3 + 0.03
    shift = rng.uniform(-room, room, 2) * size
    if "framing" in left_out:
        fill, shift = 0.6, np.zeros(2)
    focal = fill * size / (high - low).max()
    centre = (size - 1) / 2 + shift - focal * (low + high) / 2
    return Camera(focal, focal, *centre.tolist(), size, size, R=_LOOK)
