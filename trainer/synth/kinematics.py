"""The mean body's keypoints as a function of angles that torch can differentiate; `anatomy` and `body` in another form.

A test holds it against both: the same angles give the same keypoints to a hundredth of a millimetre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from model_zoo.skeletons import BODY19
from trainer.synth import anatomy
from trainer.synth.body import BodyModel, Shape
from trainer.synth.bones import BONES, INDEX, PARENTS

_TINY = 1e-12


class Kinematics:
    """Keypoints of BODY19 for batches of angles, of the mean body with straight fingers.

    Args:
        model: whose mean shape is moved.
    """

    def __init__(self, model: BodyModel) -> None:
        rest = model.rest(Shape())
        names = np.array(BODY19.keypoints)
        parts = [
            (int(np.flatnonzero(names == model.joint_names[number])[0]), int(bone), part)
            for number, bone, part in zip(model._joints, model._joint_bones, rest.joints, strict=True)
            if model.joint_names[number] in BODY19.keypoints
        ]
        neck = INDEX["neck01"]
        parts.append((BODY19.index("neck"), neck, np.array([*rest.heads[neck], 1.0])))
        wanted = {0}
        for _, bone, _ in parts:
            while bone > 0:
                wanted.add(bone)
                bone = PARENTS[bone]
        self._bones = sorted(wanted)
        place = {bone: row for row, bone in enumerate(self._bones)}
        bones = np.array([bone for _, bone, _ in parts])
        told = np.array([part for _, _, part in parts])
        step = rest.to_reference.copy()
        step[0] = np.eye(3)
        parents = np.maximum(PARENTS, 0)
        offsets = np.einsum("bij,bj->bi", step[parents], rest.heads - rest.heads[parents])
        carried = np.einsum(
            "pij,pj->pi", rest.to_reference[bones], told[:, :3] - told[:, 3:] * rest.heads[bones]
        )
        self._offsets, self._carried, self._shares = _single(offsets), _single(carried), _single(told[:, 3:])
        self._before, self._after = _single(anatomy.OF_PARENT), _single(anatomy.OF_BONE)
        self._rows = torch.tensor([place[bone] for bone in bones.tolist()])
        self._keypoints = torch.tensor([keypoint for keypoint, _, _ in parts])

    def keypoints(self, angles: Tensor, root: Tensor) -> Tensor:
        """Where the keypoints are, the pelvis at the origin.

        Args:
            angles: (N, D) degrees in the order of `anatomy.NAMES`; not cut to the limits.
            root: (N, 3, 3) turn of the whole body.

        Returns:
            (N, 19, 3) metres in the world of `body`: z up, at rest looking along -y.
        """
        joints = _joints(angles)
        turn, head = {0: root}, {0: angles.new_zeros(len(angles), 3)}
        for bone in self._bones[1:]:
            parent, joint = PARENTS[bone], joints.get(BONES[bone])
            head[bone] = head[parent] + turn[parent] @ self._offsets[bone]
            before, after = self._before[bone], self._after[bone]
            turn[bone] = turn[parent] @ (before @ after if joint is None else before @ joint @ after)
        turns = torch.stack([turn[bone] for bone in self._bones], 1)[:, self._rows]
        heads = torch.stack([head[bone] for bone in self._bones], 1)[:, self._rows]
        parts = (turns * self._carried[:, None]).sum(-1) + self._shares * heads
        return angles.new_zeros(len(angles), len(BODY19), 3).index_add(1, self._keypoints, parts)


def rotations(vectors: Tensor) -> Tensor:
    """(..., 3) rotation vectors to (..., 3, 3) matrices (Rodrigues); differentiable at zero."""
    angle = (vectors.square().sum(-1) + _TINY).sqrt()[..., None, None]
    x, y, z = (vectors / angle[..., 0]).unbind(-1)
    none = torch.zeros_like(x)
    cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], -1).unflatten(-1, (3, 3))
    return torch.eye(3).to(vectors) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def _joints(angles: Tensor) -> dict[str, Tensor]:
    """(N, 3, 3) of every bone that moves, as `anatomy.rotations` has them."""
    angle = dict(zip(anatomy.NAMES, (angles * (math.pi / 180)).unbind(1), strict=True))
    joints: dict[str, Tensor] = {}
    for part, shares in anatomy.SHARES.items():
        whole = torch.stack([angle[f"{part}_{name}"] for name in ("flex", "bend", "twist")], -1)
        joints |= {bone: rotations(share * whole) for bone, share in shares.items()}
    mirror = torch.tensor(anatomy.MIRRORED, dtype=angles.dtype)
    for side, letter in (("l_", "L"), ("r_", "R")):
        for bone, joint in _limbs({name: angle[side + name] for name in anatomy.SIDED}).items():
            joints[f"{bone}.{letter}"] = joint if letter == "L" else joint * mirror
    return joints


def _limbs(a: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joints of the left arm and leg, angles in radians; toes do not move a keypoint."""
    none = torch.zeros_like(a["elbow"])

    def turn(x: Tensor = none, y: Tensor = none, z: Tensor = none) -> Tensor:
        return rotations(torch.stack([x, y, z], -1))

    flex, abduct = a["shoulder_flex"], a["shoulder_abduct"]
    raised = (flex.square() + abduct.square() + _TINY).sqrt()
    plane = torch.atan2(abduct, flex.clamp(min=0.0) + 1e-9)
    share = ((raised - math.pi / 2) / (math.pi / 2)).clamp(0, 1)
    twist = a["shoulder_twist"] + plane * share * share * (3 - 2 * share)
    up = a["clavicle_up"] + (raised - math.pi / 6).clamp(min=0.0) * 0.22
    clavicle = turn(none, -up, -a["clavicle_forward"])
    return {
        "clavicle": clavicle,
        "upperarm01": clavicle.mT @ turn(-flex, -abduct) @ turn(z=twist / 2),
        "upperarm02": turn(z=twist / 2),
        "lowerarm01": turn(-a["elbow"]),
        "lowerarm02": turn(z=-0.65 * a["pronation"]),
        "wrist": turn(z=-0.35 * a["pronation"]) @ turn(a["wrist_ulnar"], a["wrist_flex"]),
        "upperleg01": turn(-a["hip_flex"], -a["hip_abduct"]) @ turn(z=a["hip_twist"] / 2),
        "upperleg02": turn(z=a["hip_twist"] / 2),
        "lowerleg01": turn(a["knee"]),
        "foot": turn(a["ankle"]) @ turn(y=a["ankle_invert"]),
    }


def _single(array: np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)
