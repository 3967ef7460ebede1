"""Where the keypoints of a body are, in space and in the picture, and which of them are seen.

Points lie inside the body, so a keypoint counts as seen where the first surface on the way to it belongs to the same
person, to the part of the body that the joint is in, and lies no deeper in front of it than the body is thick there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats
from model_zoo.skeletons import BODY19
from trainer.synth.body import Body
from trainer.synth.bones import BONES
from trainer.synth.render import Rendered
from trainer.synth.sample import HIDDEN, OUTSIDE, SEEN, Camera

THICKNESS_M = {
    "nose": 0.05, "eye": 0.05, "ear": 0.07, "shoulder": 0.15, "elbow": 0.09, "wrist": 0.07, "hip": 0.19,
    "knee": 0.11, "ankle": 0.09, "neck": 0.13, "head_top": 0.16,
}  # fmt: skip
"""Most that a seen surface lies before a keypoint of somebody who is 1.7 m tall, clothes included."""
_HEAD = ("head", "eye", "neck")
PARTS = {
    "nose": _HEAD, "eye": _HEAD, "ear": _HEAD, "head_top": _HEAD,
    "neck": ("neck", "head", "spine", "clavicle", "shoulder"),
    "shoulder": ("shoulder", "clavicle", "upperarm", "spine", "neck"), "elbow": ("upperarm", "lowerarm"),
    "wrist": ("lowerarm", "wrist", "metacarpal", "finger"), "hip": ("pelvis", "upperleg", "spine", "root"),
    "knee": ("upperleg", "lowerleg"), "ankle": ("lowerleg", "foot", "toe"),
}  # fmt: skip
"""Bones whose skin a keypoint is seen through, by the beginning of their names; of its own side where they have one."""
_TALL = 1.7


def of_body(body: Body) -> Floats:
    """(19, 3) keypoints of `BODY19` in the world.

    COCO's are those of anny's regressor. As in the Leeds Sports Poses the neck is where it leaves the shoulders, and
    the top of the head is that of the skull.
    """
    joints = dict(body.joints)
    joints["neck"] = body.head_of("neck01")
    return np.array([joints[name] for name in BODY19.keypoints], np.float64)


def visibility(points: Floats, camera: Camera, rendered: Rendered, owner: int, tall_m: float) -> Floats:
    """(19,) SEEN, HIDDEN or OUTSIDE.

    Args:
        points: (19, 3) in the world.
        camera: that the picture was taken with.
        rendered: the picture.
        owner: whose points they are.
        tall_m: height of that person.
    """
    inside = camera.to_camera(points)
    pixels = camera.to_pixels(inside)
    height, width = rendered.depth.shape
    there = np.isfinite(pixels).all(axis=1)
    there &= ((pixels >= -0.5) & (pixels < (width - 0.5, height - 0.5))).all(axis=1)
    column, row = np.where(there[:, None], pixels, 0).round().astype(int).clip(0, (width - 1, height - 1)).T
    room = _thickness() * tall_m / _TALL
    before = inside[:, 2] - rendered.depth[row, column]
    seen = (rendered.owner[row, column] == owner) & (before <= room)
    seen &= _own_parts()[np.arange(len(points)), rendered.part[row, column].clip(0, len(BONES))]
    return np.where(there, np.where(seen, SEEN, HIDDEN), OUTSIDE)


def _kind_of(keypoint: str) -> str:
    return keypoint if keypoint in THICKNESS_M else keypoint.split("_", 1)[1]


@lru_cache(maxsize=1)
def _thickness() -> Floats:
    return np.array([THICKNESS_M[_kind_of(name)] for name in BODY19.keypoints])


@lru_cache(maxsize=1)
def _own_parts() -> NDArray[np.bool_]:
    """(19, B + 1) whether a keypoint is seen where the skin of a bone is; the last column is for things."""
    table = np.zeros((len(BODY19.keypoints), len(BONES) + 1), bool)
    for row, keypoint in enumerate(BODY19.keypoints):
        side = {"left": ".L", "right": ".R"}.get(keypoint.split("_")[0], "")
        for column, bone in enumerate(BONES):
            of_side = not side or bone.endswith(side) or not bone.endswith((".L", ".R"))
            table[row, column] = bone.startswith(PARTS[_kind_of(keypoint)]) and of_side
    return table
