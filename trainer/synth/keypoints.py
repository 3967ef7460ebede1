"""Where the keypoints of a body are, in space and in the picture, and which of them are seen.

Points lie inside the body, so a keypoint counts as seen where the first surface on the way to it belongs to the same
person and lies no deeper in front of it than the body is thick there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from model_zoo.geometry import Floats
from model_zoo.skeletons import BODY19
from trainer.synth.body import Body
from trainer.synth.render import Rendered
from trainer.synth.sample import HIDDEN, OUTSIDE, SEEN, Camera

THICKNESS_M = {
    "nose": 0.05, "eye": 0.05, "ear": 0.07, "shoulder": 0.15, "elbow": 0.09, "wrist": 0.07, "hip": 0.19,
    "knee": 0.11, "ankle": 0.09, "neck": 0.13, "head_top": 0.16,
}  # fmt: skip
"""Most that a seen surface lies before a keypoint of somebody who is 1.7 m tall, clothes included."""
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
    return np.where(there, np.where(seen, SEEN, HIDDEN), OUTSIDE)


@lru_cache(maxsize=1)
def _thickness() -> Floats:
    names = [name if name in THICKNESS_M else name.split("_", 1)[1] for name in BODY19.keypoints]
    return np.array([THICKNESS_M[name] for name in names])
