"""The body with fewer triangles, for people that are no larger than a picture: made once from the whole one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainer.synth import body, decimate, dressing, pose

TRIANGLES = 3500
_POSES = (
    ({"shoulder_abduct": 45.0}, body.Shape()),
    (
        {"hip_flex": 100.0, "knee": 110.0, "elbow": 110.0, "shoulder_flex": 80.0, "spine_flex": 40.0},
        body.Shape(gender=1, weight=1, age=0.6),
    ),
    (
        {"shoulder_flex": 160.0, "spine_flex": -20.0, "hip_flex": -20.0, "hip_abduct": 40.0, "knee": 60.0},
        body.Shape(gender=0, muscle=1, age=0.9),
    ),
)
"""Angles and shapes in which what is left has to resemble what was there."""


def build(path: Path, say: Callable[[str], None]) -> None:
    """Write the arrays of the coarse body; the file appears complete or not at all. The whole one must be there."""
    say("making a coarse body for small people, once")
    with np.load(body.asset_path()) as archive:
        arrays = dict(archive)
    model = body.load()
    poses = [model.rest(shape).posed(pose.anatomical(angles).rotations).vertices for angles, shape in _POSES]
    faces = decimate.collapse(model.faces, np.stack(poses), dressing.zones(model), TRIANGLES)
    used = np.unique(faces)
    new = np.full(len(model.template), -1)
    new[used] = np.arange(len(used))
    weights = model.weights[used]
    blend = arrays["blend"].reshape(len(arrays["blend"]), -1, 3)[:, used]
    whole = body.joints_by_bones(arrays)
    for name in ("joint_weights", "joint_vertices", "joint_rows"):
        del arrays[name]
    arrays |= whole | {
        "template": arrays["template"][used],
        "blend": np.ascontiguousarray(blend.reshape(len(blend), -1)),
        "faces": new[faces].astype(np.uint32),
        "weights": weights.data,
        "weight_bones": weights.indices,
        "weight_rows": weights.indptr,
    }
    body.save(path, arrays)
