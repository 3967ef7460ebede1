"""Fewer triangles: the mesh stays closed, its zones stay, no triangle turns over, and what bends in a pose is kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from trainer.synth import decimate


def ball(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) points spread over a sphere, and triangles wound anticlockwise seen from outside."""
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    points = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], -1)
    faces = ConvexHull(points).simplices.astype(np.int64)
    inwards = np.einsum("fi,fi->f", normals(points, faces), points[faces].mean(axis=1)) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    return points, faces


def normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a) / 2


def edges(faces: np.ndarray) -> list[tuple[int, int]]:
    """Directed edges."""
    return [(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)]


def sheet(side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A flat square."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    first = np.arange(side * side).reshape(side, side)[:-1, :-1].ravel()
    faces = np.concatenate(
        [
            np.stack([first, first + 1, first + side + 1], 1),
            np.stack([first, first + side + 1, first + side], 1),
        ]
    )
    return np.stack([x.ravel(), y.ravel(), np.zeros(side * side)], -1), faces


def nowhere(points: np.ndarray) -> np.ndarray:
    return np.zeros(len(points), int)


@pytest.mark.parametrize("count", [500, 200, 60])
def test_a_closed_mesh_stays_closed_and_nearly_as_it_was(count: int) -> None:
    points, faces = ball()
    left = decimate.collapse(faces, points[None], nowhere(points), count)
    assert count - 1 <= len(left) <= count
    directed = edges(left)
    assert len(set(directed)) == len(directed)
    assert {(b, a) for a, b in directed} == set(directed)  # each edge has two sides, run through both ways
    assert len(np.unique(left)) - len(directed) // 2 + len(left) == 2  # Euler: still a sphere
    assert (np.einsum("fi,fi->f", normals(points, left), points[left].mean(axis=1)) > 0).all()
    volume = np.einsum("fi,fi->f", normals(points, left), points[left].mean(axis=1)).sum() / 3
    assert volume > 4 / 3 * np.pi * (1 - 20 / count)


def test_a_flat_sheet_keeps_its_outline() -> None:
    points, faces = sheet()
    left = decimate.collapse(faces, points[None], nowhere(points), 60)
    assert len(left) <= 60
    areas = normals(points, left)[:, 2]
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(1.0, abs=1e-9)


def test_what_bends_in_another_pose_is_kept() -> None:
    """Folded along its middle in the second pose, the sheet needs that line."""
    points, faces = sheet(13)
    folded = points.copy()
    folded[:, 2] = np.abs(points[:, 0] - 0.5)
    left = decimate.collapse(faces, np.stack([points, folded]), nowhere(points), 120)
    a, b, c = (folded[left[:, corner]] for corner in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 == pytest.approx(np.sqrt(2), abs=1e-6)


def test_no_vertex_leaves_its_zone_and_the_same_comes_out_again() -> None:
    points, faces = ball()
    zones = (points[:, 2] > 0).astype(int)
    left = decimate.collapse(faces, points[None], zones, 100)
    before = sum(len(set(zones[face])) == 2 for face in faces)
    between = sum(len(set(zones[face])) == 2 for face in left)
    assert 0 < between < before
    equator = np.unique(left[[len(set(zones[face])) == 2 for face in left]])
    assert np.abs(points[equator, 2]).max() < 0.6
    np.testing.assert_array_equal(decimate.collapse(faces, points[None], zones, 100), left)
