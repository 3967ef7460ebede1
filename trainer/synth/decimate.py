"""Fewer triangles for the same shape: edges are collapsed onto one of their ends, so what remains is what was there.

Vertices that stay keep everything that belongs to them: blend shapes, skin weights, places of patterns.

Source: Garland and Heckbert, Surface Simplification Using Quadric Error Metrics (1997). Differs from it: a vertex only
ever moves onto a neighbour, and the error is the sum over several poses of the mesh, so that joints can still bend.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats

Faces = NDArray[np.integer]

_FLATTEST = 0.2
"""Least cosine between a triangle's normal before and after; below it, the mesh would fold."""
_THINNEST = 0.06
"""Least double area of a triangle over its longest side squared; an equilateral one has 0.87."""


def collapse(faces: Faces, poses: Floats, zones: NDArray[np.integer], count: int) -> Faces:
    """Collapse edges, the cheapest first, until few enough triangles are left or no edge may be collapsed.

    Where the mesh ends its vertices stay: planes alone do not tell how far they reach.

    Args:
        faces: (F, 3) vertices, all triangles wound alike.
        poses: (K, V, 3) the same mesh in some poses.
        zones: (V,) a vertex only moves onto one of its own zone.
        count: how many triangles to leave.

    Returns:
        (F', 3) of the same vertices.
    """
    mesh = _Mesh(np.asarray(faces, np.int64), np.asarray(poses, np.float64), zones)
    left = len(faces)
    queue = [entry for vertex in range(poses.shape[1]) if mesh.around[vertex] for entry in mesh.ways(vertex)]
    heapq.heapify(queue)
    while left > count and queue:
        _, gone, kept, stamp = heapq.heappop(queue)
        if stamp != (mesh.changed[gone], mesh.changed[kept]) or not mesh.may(gone, kept):
            continue
        left -= mesh.join(gone, kept)
        for each in {kept, *mesh.neighbours(kept)}:
            mesh.changed[each] += 1
        for each in {kept, *mesh.neighbours(kept)}:
            for entry in mesh.ways(each):
                heapq.heappush(queue, entry)
    return mesh.faces[mesh.alive]


class _Mesh:
    def __init__(self, faces: Faces, poses: Floats, zones: NDArray[np.integer]) -> None:
        self.faces, self.poses, self.zones = faces.copy(), poses, zones
        self.alive = np.ones(len(faces), bool)
        self.around: list[set[int]] = [set() for _ in range(poses.shape[1])]
        """Triangles at each vertex."""
        for number, face in enumerate(faces.tolist()):
            for vertex in face:
                self.around[vertex].add(number)
        self.changed = [0] * poses.shape[1]
        self.rim = _on_the_rim(faces, poses.shape[1])
        a, b, c = (poses[:, faces[:, corner]] for corner in range(3))
        normal = np.cross(b - a, c - a)
        size = np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-12)
        plane = np.concatenate([normal, -np.einsum("kfi,kfi->kf", normal, a)[..., None]], -1) / size
        errors = np.einsum("kf,kfi,kfj->fkij", size[..., 0], plane, plane)  # weighed by area
        self.quadrics = np.zeros((poses.shape[1], poses.shape[0], 4, 4))
        for corner in range(3):
            np.add.at(self.quadrics, faces[:, corner], errors)
        self.at = np.concatenate([poses, np.ones((*poses.shape[:2], 1))], -1).transpose(1, 0, 2)

    def neighbours(self, vertex: int) -> set[int]:
        found = {int(v) for face in self.around[vertex] for v in self.faces[face]}
        found.discard(vertex)
        return found

    def ways(self, vertex: int) -> list[tuple[float, int, int, tuple[int, int]]]:
        """What it would cost to move a vertex onto each of its neighbours: entries of the queue."""
        others = sorted(each for each in self.neighbours(vertex) if self.zones[each] == self.zones[vertex])
        if not others:
            return []
        at, quadrics = self.at[others], self.quadrics[others] + self.quadrics[vertex]
        errors = np.einsum("nki,nkij,nkj->n", at, quadrics, at)
        length = np.linalg.norm(at[:, 0] - self.at[vertex, 0], axis=-1)
        costs = errors.clip(0) + 1e-9 * length**2  # flat places: the shortest edge first
        return [
            (cost, vertex, other, (self.changed[vertex], self.changed[other]))
            for cost, other in zip(costs.tolist(), others, strict=True)
        ]

    def may(self, gone: int, kept: int) -> bool:
        """Whether the mesh stays a surface, and no triangle turns over or becomes a needle."""
        shared = self.around[gone] & self.around[kept]
        if len(self.neighbours(gone) & self.neighbours(kept)) != len(shared):
            return False
        if self.rim[gone]:
            return False
        moved = sorted(self.around[gone] - shared)
        if not moved:
            return False
        before = self.faces[moved]
        after = np.where(before == gone, kept, before)
        old, _ = self._normals(before)
        new, longest = self._normals(after)
        sizes = np.linalg.norm(new, axis=-1)
        cosine = np.einsum("kfi,kfi->kf", old, new) / (np.linalg.norm(old, axis=-1) * sizes).clip(1e-15)
        return bool((cosine > _FLATTEST).all() and (sizes > _THINNEST * longest).all())

    def join(self, gone: int, kept: int) -> int:
        """Move a vertex onto another; returns how many triangles that costs."""
        shared = self.around[gone] & self.around[kept]
        for face in shared:
            self.alive[face] = False
            for vertex in self.faces[face]:
                self.around[int(vertex)].discard(face)
        for face in self.around[gone]:
            self.faces[face][self.faces[face] == gone] = kept
            self.around[kept].add(face)
        self.around[gone] = set()
        self.quadrics[kept] += self.quadrics[gone]
        return len(shared)

    def _normals(self, faces: Faces) -> tuple[Floats, Floats]:
        """(K, F, 3) normals as long as the double area, and (K, F) squares of the longest sides."""
        a, b, c = (self.poses[:, faces[:, corner]] for corner in range(3))
        sides = np.stack([b - a, c - b, a - c])
        return np.cross(sides[0], -sides[2]), np.einsum("skfi,skfi->skf", sides, sides).max(axis=0)


def _on_the_rim(faces: Faces, count: int) -> NDArray[np.bool_]:
    """(V,) whether a vertex lies where the mesh ends."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    found, times = np.unique(edges, axis=0, return_counts=True)
    rim = np.zeros(count, bool)
    rim[found[times == 1].ravel()] = True
    return rim
