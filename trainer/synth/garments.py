"""What hangs about the body rather than on it: skirts and long hair, each a sheet of its own.

A sheet is a grid: columns go around, rows go down. Each of its points stands off a vertex of the skin, the outermost in
its direction at its height, and so follows every shape; it is carried by the bones that it hangs between, which keeps a
skirt whole where the legs part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats
from trainer.synth.body import Body, BodyModel
from trainer.synth.render import Drawn, Layer, Material, Surface

_COLUMNS, _ROWS = 28, 9
SKIRT_LENGTHS_M = (-0.18, -0.3, -0.45, -0.6)
"""Heights on the template at which skirts end."""
HAIR_LENGTHS_M = (0.58, 0.48, 0.36)
"""And long hair."""
_WAIST_M, _HIPS_M, _KNEES_M = 0.13, 0.0, -0.36
_BRAIN_M = 0.76
"""Height from which hair falls."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """A garment before it is worn."""

    surface: Surface
    anchors: NDArray[np.intp]
    """(N,) vertex of the skin that each point stands off."""
    away: Floats
    """(N, 3) how far, metres, in the axes of the template."""
    weights: Floats
    """(N, B) shares of the bones that carry it."""
    bones: NDArray[np.intp]
    """(B,) which bones."""

    def worn(self, body: Body, material: Material, owner: int) -> Drawn:
        """On somebody in a pose."""
        rest = body.rest.vertices[self.anchors] + self.away
        moved = np.tensordot(self.weights, body.transforms[self.bones].astype(np.float64), 1)
        vertices = np.einsum("nij,nj->ni", moved[:, :, :3], rest) + moved[:, :, 3]
        layer = Layer("all", material)
        return Drawn(self.surface, vertices, _normals(vertices, self.surface.faces["all"]), [layer], owner)


@lru_cache(maxsize=16)
def skirt(model: BodyModel, low: float) -> Sheet:
    """A skirt that ends at this height of the template, metres."""
    heights = np.linspace(_WAIST_M, low, _ROWS)
    turns = np.linspace(0, 2 * np.pi, _COLUMNS)
    legs = [index for index, name in enumerate(model.bone_names) if name.startswith(("upperleg", "lowerleg"))]
    trunk = [
        index for index, name in enumerate(model.bone_names) if name.startswith(("root", "pelvis", "spine"))
    ]
    inside = np.flatnonzero(np.isin(model.part_of_vertex, legs + trunk))
    anchors, away = [], []
    for row, height in enumerate(heights):
        for turn in turns:
            outwards = np.array([np.sin(turn), -np.cos(turn), 0.0])
            anchor = _outermost(model, inside, outwards, max(height, -0.35), 0.03)
            flare = 0.012 + 0.07 * (row / (_ROWS - 1)) ** 1.5
            anchors.append(anchor)
            # Between the legs there is no skin to stand off: points lie on the circle through the outermost ones.
            across = (outwards * model.template[anchor]).sum() + flare
            away.append(
                [0.0, 0.0, height - model.template[anchor, 2]] + outwards * across - _level(model, anchor)
            )
    left = np.clip(0.5 + np.sin(np.tile(turns, _ROWS)) * 0.9, 0, 1)
    left = left * left * (3 - 2 * left)
    hangs = np.clip((_HIPS_M + 0.04 - np.repeat(heights, _COLUMNS)) / 0.18, 0, 1)
    shin = np.clip((_KNEES_M - np.repeat(heights, _COLUMNS)) / 0.12, 0, 0.85)
    thigh = hangs * (1 - shin)
    names = ("root", "upperleg01.L", "upperleg01.R", "lowerleg01.L", "lowerleg01.R")
    bones = [model.bone(name) for name in names]
    shares = [1 - hangs, thigh * left, thigh * (1 - left), hangs * shin * left, hangs * shin * (1 - left)]
    weights = np.stack(shares, axis=1)
    return _sheet(model, anchors, away, weights, bones)


@lru_cache(maxsize=16)
def long_hair(model: BodyModel, low: float) -> Sheet:
    """Hair that falls behind the ears to this height of the template, metres."""
    heights = np.linspace(_BRAIN_M, low, _ROWS)
    turns = np.linspace(
        np.radians(70), np.radians(290), _COLUMNS
    )  # from one ear behind the head to the other
    head = [index for index, name in enumerate(model.bone_names) if name.startswith(("head", "neck"))]
    inside = np.flatnonzero(np.isin(model.part_of_vertex, head))
    anchors, away = [], []
    for row, height in enumerate(heights):
        for turn in turns:
            outwards = np.array([np.sin(turn), -np.cos(turn), 0.0])
            anchor = _outermost(model, inside, outwards, max(height, 0.70), 0.02)
            off = 0.02 + 0.035 * (row / (_ROWS - 1)) * (0.5 - 0.5 * np.cos(turn))
            anchors.append(anchor)
            away.append([0.0, 0.0, height - model.template[anchor, 2]] + outwards * off)
    down = np.clip((0.68 - np.repeat(heights, _COLUMNS)) / 0.2, 0, 0.8)
    bones = [model.bone(name) for name in ("head", "spine01")]
    return _sheet(model, anchors, away, np.stack([1 - down, down], axis=1), bones)


def _outermost(
    model: BodyModel, among: NDArray[np.intp], outwards: Floats, height: float, reach: float
) -> int:
    near = among[np.abs(model.template[among, 2] - height) < reach]
    return int(near[(model.template[near] @ outwards).argmax()])


def _level(model: BodyModel, vertex: int) -> Floats:
    return model.template[vertex] * (1.0, 1.0, 0.0)


def _sheet(
    model: BodyModel, anchors: list[int], away: list[Floats], weights: Floats, bones: list[int]
) -> Sheet:
    stands = np.array(away)
    template = model.template[anchors] + stands
    first = np.arange(_ROWS * _COLUMNS).reshape(_ROWS, _COLUMNS)[:-1, :-1].ravel()
    right, below, across = first + 1, first + _COLUMNS, first + _COLUMNS + 1
    faces = np.concatenate([np.stack([first, below, right], 1), np.stack([right, below, across], 1)])
    tags = np.stack([np.full(len(template), -1.0), np.array(bones)[weights.argmax(axis=1)]], axis=1)
    surface = Surface(template, template, tags, {"all": faces.astype(np.uint32)})
    return Sheet(surface, np.array(anchors), stands, weights, np.array(bones))


def _normals(vertices: Floats, faces: NDArray[np.uint32]) -> Floats:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)
    summed = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(summed, faces[:, corner], normal)
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)
