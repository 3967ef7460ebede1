"""Things: balls, poles, boards and boxes that people hold, stand before, or are hidden by."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.geometry import Floats
from trainer.synth.body import rotation_matrices
from trainer.synth.looks import any_colour
from trainer.synth.render import Drawn, Layer, Material, Surface
from trainer.synth.shaders import COVERS, KINDS

OFF_ARMS, NO_BONE = -1.0, -1.0


@lru_cache(maxsize=4)
def _mesh(shape: str) -> tuple[Surface, Floats, Floats]:
    """A surface that reaches from -1 to 1 along each axis, its vertices and its normals."""
    if shape == "box":
        corners, normals = [], []
        for axis in range(3):
            for sign in (-1.0, 1.0):
                for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
                    corner = np.zeros(3)
                    corner[axis], corner[axis - 2], corner[axis - 1] = sign, a, b
                    corners.append(corner)
                    normals.append(np.eye(3)[axis] * sign)
        faces = [(4 * q, 4 * q + i, 4 * q + i + 1) for q in range(6) for i in (1, 2)]
        vertices, normals = np.array(corners), np.array(normals)
    else:
        up, around = np.meshgrid(np.linspace(0, np.pi, 13), np.linspace(0, 2 * np.pi, 21), indexing="ij")
        ball = np.stack([np.sin(up) * np.cos(around), np.sin(up) * np.sin(around), np.cos(up)], -1)
        if shape == "pole":  # round, with flat ends
            ball = np.stack(
                [np.cos(around), np.sin(around), np.sign(np.cos(up)) * (np.abs(np.cos(up)) > 1e-9)], -1
            )
            ball[..., 2] = np.linspace(1, -1, 13)[:, None]
        vertices = ball.reshape(-1, 3)
        normals = vertices * ((1, 1, 0) if shape == "pole" else 1)
        columns = around.shape[1]
        faces = [
            face
            for row in range(12)
            for at in range(columns - 1)
            for first in [row * columns + at]
            for face in (
                (first, first + columns, first + 1),
                (first + 1, first + columns, first + columns + 1),
            )
        ]
    tags = np.tile([OFF_ARMS, NO_BONE], (len(vertices), 1))
    surface = Surface(vertices, vertices, tags, {"all": np.array(faces, np.uint32)})
    return surface, vertices, normals


def thing(
    rng: np.random.Generator, shape: str, size: ArrayLike, at: ArrayLike, turn: ArrayLike = (0, 0, 0)
) -> Drawn:
    """A thing of some colour.

    Args:
        rng: of the thing.
        shape: `box`, `ball` or `pole`.
        size: (3,) half its extent, metres.
        at: (3,) its middle, metres.
        turn: (3,) rotation vector.
    """
    surface, vertices, normals = _mesh(shape)
    size = np.asarray(size, np.float64)
    turned = rotation_matrices(turn).T
    outwards = normals / size
    outwards = outwards / np.linalg.norm(outwards, axis=1, keepdims=True).clip(1e-9)
    material = Material(
        {
            "kind": KINDS["thing"], "cover": COVERS["all"], "colour": any_colour(rng), "colour2": any_colour(rng),
            "pattern": float(rng.choice([0, 0, 1, 2])), "scale": float(rng.uniform(0.3, 1.5)),
            "mottle": float(rng.uniform(0, 0.4)), "wrinkle": float(rng.uniform(0, 0.3)),
            "gloss": float(rng.uniform(3, 60)), "shine": float(rng.beta(1, 5) * 0.6), "seed": rng.random(3).tolist(),
        }
    )  # fmt: skip
    return Drawn(surface, (vertices * size) @ turned + at, outwards @ turned, [Layer("all", material)])


def held(rng: np.random.Generator, hand: Floats, forearm: Floats) -> Drawn:
    """Something in a hand: a ball, a racket's or bat's stick, a bag or a book.

    Args:
        rng: of the thing.
        hand: (3,) where the fingers begin.
        forearm: (3,) from the elbow to the wrist.
    """
    along = forearm / np.linalg.norm(forearm)
    turn = rng.normal(0, 1.0, 3)
    how = rng.integers(4)
    if how == 0:
        radius = float(rng.choice([0.035, 0.06, 0.11, 0.12]))
        return thing(rng, "ball", [radius] * 3, hand + along * (radius + 0.05), turn)
    if how == 1:
        half = float(rng.uniform(0.25, 0.7))
        return thing(rng, "pole", [rng.uniform(0.01, 0.03)] * 2 + [half], hand + along * 0.04, turn)
    size = rng.uniform([0.03, 0.08, 0.1], [0.12, 0.2, 0.25])
    return thing(
        rng,
        "box",
        size,
        hand + along * 0.08 + np.array([0, 0, -size[2] * 0.8]) * (how == 3),
        turn * (how == 2),
    )


def near(rng: np.random.Generator, body: Floats, towards_camera: Floats) -> Drawn:
    """Something between somebody and the camera, or beside: a table, a rail, a box, a tree's trunk.

    Args:
        rng: of the thing.
        body: (V, 3) vertices.
        towards_camera: (3,) unit.
    """
    low, high = body.min(axis=0), body.max(axis=0)
    level = towards_camera * (1, 1, 0)
    level = level / max(np.linalg.norm(level), 1e-6)
    side = np.array([-level[1], level[0], 0])
    reach = np.abs((body - body.mean(axis=0)) @ level).max()
    at = (low + high) / 2 + level * (reach + rng.uniform(0.1, 0.5)) + side * rng.normal(0, 0.45)
    turn = (0, 0, float(np.arctan2(level[1], level[0]) + rng.normal(0, 0.4)))
    how = rng.integers(3)
    if how == 0:  # upright
        return thing(rng, "pole", [*[rng.uniform(0.02, 0.14)] * 2, 1.5], at, rng.normal(0, 0.05, 3))
    if how == 1:  # a rail or a table's edge
        at[2] = rng.uniform(low[2], low[2] + 0.65 * (high[2] - low[2]))
        return thing(rng, "box", (rng.uniform(0.02, 0.4), 1.6, rng.uniform(0.015, 0.06)), at, turn)
    half = rng.uniform(0.12, 0.42)
    at[2] = low[2] + half
    return thing(rng, "box", (rng.uniform(0.1, 0.3), rng.uniform(0.15, 0.6), half), at, turn)
