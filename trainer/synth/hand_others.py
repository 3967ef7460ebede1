"""What is in pictures of hands beside them, and in pictures without: people, parts of people, and things.

World as in `hand`: the camera is at the origin and looks along y, z is up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from model_zoo.geometry import Floats
from trainer.synth import body as bodies
from trainer.synth import dressing, hand_looks, looks, pose, props
from trainer.synth.body import Body, Shape, rotation_matrices
from trainer.synth.hand_body import Hand, HandModel
from trainer.synth.render import Drawn, Rendered
from trainer.synth.sample import Camera

Rng = np.random.Generator

SOMEBODY, ARM = 900, 901
"""Owners of what may have a hand that nobody has labelled."""
_PEOPLE, _STREAM = 32, 0x9E3779B9
"""How many figures there are in all, and the stream of random numbers that they are made from."""
_AIMS = {
    "head": 0.4,
    "neck01": 0.1,
    "spine02": 0.12,
    "spine04": 0.08,
    "foot.L": 0.14,
    "lowerleg01.R": 0.08,
    "eye.R": 0.08,
}
"""What pictures without a hand look at, and how often."""
_HANDS = ("wrist", "metacarpal", "finger")


class Others:
    """Makes them, once per process.

    Args:
        seed: of the people, who are the same few in all pictures of a set, turned about.
    """

    def __init__(self, seed: int) -> None:
        self.model = bodies.load()
        self._seed = seed
        self._known: dict[int, tuple[Body, Drawn]] = {}

    @property
    def face(self) -> tuple[float, float, float, float]:
        """For `Renderer.render`."""
        return dressing.face(self.model)

    def somebody(self, number: int) -> tuple[Body, Drawn]:
        """One of the people, about the origin."""
        if number not in self._known:
            rng = np.random.default_rng([self._seed, _STREAM, number])
            shape = Shape(
                float(rng.beta(0.4, 0.4)), float(rng.uniform(0.4, 0.95)), *rng.beta(2, 2, 4).tolist()
            )
            taken = pose.sample_body_pose(rng)
            made = self.model.rest(shape).posed(taken.rotations, (0, 0, 0))
            layers = looks.wardrobe(rng, female=shape.gender)
            drawn = Drawn(dressing.surface(self.model), made.vertices, made.normals, layers, SOMEBODY)
            self._known[number] = made, drawn
        return self._known[number]

    def behind(self, rng: Rng, distance: float) -> Drawn:
        """Somebody who is further away than a hand at this distance, metres."""
        at = np.array([rng.normal(0, 0.12), distance + rng.uniform(0.25, 0.9), rng.normal(0, 0.12)])
        return replace(self._turned(rng, at, (0.35, 0.2, 0.25, 0.1, 0.0, 0.0, 0.1)), owner=0)

    def part(self, rng: Rng) -> Drawn:
        """A part of somebody, before the camera."""
        return self._turned(rng, np.array([0, np.exp(rng.uniform(-0.7, 0.4)), 0]), tuple(_AIMS.values()))

    def _turned(self, rng: Rng, at: Floats, shares: tuple[float, ...]) -> Drawn:
        made, drawn = self.somebody(int(rng.integers(_PEOPLE)))
        aim = made.head_of(str(rng.choice(list(_AIMS), p=shares)))
        turn = rotation_matrices((0, 0, rng.uniform(0, 2 * np.pi))) @ rotation_matrices(
            rng.normal(0, 0.25, 3)
        )
        return replace(drawn, vertices=(made.vertices - aim) @ turn.T + at, normals=made.normals @ turn.T)

    def shown_hands(self, rendered: Rendered, arm: HandModel) -> NDArray[np.bool_]:
        """(H, W) where a hand of `part` or `arm` is seen."""
        found = np.zeros(rendered.owner.shape, bool)
        for owner, names in ((SOMEBODY, self.model.bone_names), (ARM, arm.bone_names)):
            hands = [i for i, name in enumerate(names) if name.startswith(_HANDS)]
            found |= (rendered.owner == owner) & np.isin(rendered.part, hands)
        return found


def arm(rng: Rng, model: HandModel, hand: Hand) -> Drawn:
    """An arm that is seen about its elbow.

    Args:
        rng: of what it wears.
        model: of its side.
        hand: what it ends in, anywhere.
    """
    fore = np.isin(model.part_of_vertex, [model.bone_names.index(n) for n in ("lowerarm01", "lowerarm02")])
    middle = hand.vertices[fore].mean(axis=0)
    turned = hand.turned(rotation_matrices(rng.normal(0, 2.0, 3)), middle)
    turned = turned.moved(np.array([0.0, np.exp(rng.uniform(-0.9, -0.2)), 0.0]))
    layers = hand_looks.worn(rng, hand_looks.skin(rng))
    return Drawn(hand_looks.surface(hand.side), turned.vertices, turned.normals, layers, ARM)


def thing(rng: Rng, camera: Camera) -> Drawn:
    """A ball, a pole or a box before the camera."""
    away = float(np.exp(rng.uniform(-0.7, 0.7)))
    reach = away * camera.width / camera.fx
    at = np.array([rng.normal(0, 0.25) * reach, away, rng.normal(0, 0.25) * reach])
    shape = str(rng.choice(["ball", "pole", "box"]))
    size = reach * rng.uniform(0.08, 0.5, 3)
    if shape == "pole":
        size = reach * np.array([1.0, 1.0, rng.uniform(3, 12)]) * rng.uniform(0.03, 0.1)
    return props.thing(rng, shape, [size[0]] * 3 if shape == "ball" else size, at, rng.normal(0, 1.5, 3))


def held(rng: Rng, hand: Hand) -> Iterator[Drawn]:
    """Something in the palm, now and then."""
    if rng.random() > 0.3:
        return
    _, along, out = hand.axes()
    unit = hand.palm_m
    shape = str(rng.choice(["pole", "ball", "box"], p=[0.5, 0.2, 0.3]))
    thick = unit * float(rng.uniform(0.06, 0.3))
    size = {
        "ball": [thick * 1.3] * 3,
        "pole": [thick, thick, unit * rng.uniform(0.5, 2.5)],
        "box": [unit * rng.uniform(0.2, 0.5), unit * rng.uniform(0.05, 0.15), unit * rng.uniform(0.4, 1.0)],
    }[shape]
    # z of the thing lies across the palm.
    frame = np.stack([along, out, np.cross(along, out)], axis=1)
    turn = frame @ rotation_matrices(rng.normal(0, 0.25, 3))
    middle = hand.keypoints[0] + 0.75 * (hand.keypoints[9] - hand.keypoints[0])
    at = middle + out * (np.asarray(size)[1] + 0.14 * unit)
    yield props.thing(rng, shape, size, at, Rotation.from_matrix(turn).as_rotvec())


def before(rng: Rng, hand: Hand) -> Drawn:
    """Something between a hand and the camera, which hides a part of it."""
    target = hand.keypoints[int(rng.integers(len(hand.keypoints)))]
    at = target * float(rng.uniform(0.6, 0.85)) + rng.normal(0, 0.15, 3) * hand.palm_m * (1, 0, 1)
    unit = hand.palm_m
    if rng.random() < 0.5:
        size = [unit * rng.uniform(0.05, 0.2)] * 2 + [unit * 6]
        return props.thing(rng, "pole", size, at, rng.normal(0, 1.2, 3))
    return props.thing(rng, "box", unit * rng.uniform(0.1, 0.6, 3), at, rng.normal(0, 1.2, 3))
