"""From the world to what GL draws: matrices of cameras and lights. The world is metres with z up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.geometry import Floats
from trainer.synth.sample import Camera

NEAR_M, FAR_M = 0.05, 200.0
_HANGS_M = 0.1
"""How far clothes and hair reach beyond the mesh, at most."""


def view_matrix(camera: Camera) -> Floats:
    """(4, 4) world to camera frame."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = camera.R, camera.t
    return matrix


def clip_matrix(camera: Camera) -> Floats:
    """(4, 4) camera frame to GL's clip space: pixel (u, v) is the cell in column u and row v of the buffer."""
    width, height = camera.width, camera.height
    near, far = NEAR_M, FAR_M
    return np.array(
        [
            [2 * camera.fx / width, 0, 2 * (camera.cx + 0.5) / width - 1, 0],
            [0, 2 * camera.fy / height, 2 * (camera.cy + 0.5) / height - 1, 0],
            [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, 1, 0],
        ]
    )


def shadow_matrix(skins: Sequence[Floats], towards: ArrayLike) -> Floats:
    """(4, 4) world to the clip space of a far light that sees all of some (N, 3) vertices."""
    forward = -np.asarray(towards, np.float64)
    forward /= np.linalg.norm(forward)
    helper = np.eye(3)[np.abs(forward).argmin()]
    right = np.cross(forward, helper)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    corners = np.array([each for skin in skins for each in _extent(skin)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, reach = (low + high) / 2, max(np.linalg.norm(high - low) / 2, 0.1) * 1.05
    matrix = np.eye(4)
    matrix[:3, :3] = axes / reach
    matrix[2, :3] /= 2  # floors lie behind the people
    matrix[:3, 3] = -matrix[:3, :3] @ middle
    return matrix


def shadow_bounds(skins: Sequence[Floats], towards: ArrayLike, height: float) -> tuple[Floats, Floats]:
    """Least and most x and y, metres, that the shadows of some (N, 3) vertices can have on a floor."""
    towards = np.asarray(towards, np.float64)
    if towards[2] < 1e-3:
        return np.full(2, -np.inf), np.full(2, np.inf)
    found = []
    for skin in skins:
        low, high = _extent(skin)
        for z in (low[2], high[2]):
            moved = towards[:2] / towards[2] * (z - height)
            found += [low[:2] - moved, high[:2] - moved]
    corners = np.array(found)
    return corners.min(axis=0) - _HANGS_M, corners.max(axis=0) + _HANGS_M


def _extent(vertices: Floats) -> tuple[Floats, Floats]:
    """(3,) least and most, column by column: numpy is ten times slower along the first axis."""
    columns = np.ascontiguousarray(vertices.T)
    return columns.min(axis=1), columns.max(axis=1)
