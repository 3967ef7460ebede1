"""What hands wear and look like: skin, nails, sleeves, bands and gloves, on the surface of an arm."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats
from trainer.synth import looks
from trainer.synth.hand_body import HandModel, Side, load
from trainer.synth.render import Layer, Material, Surface

Rng = np.random.Generator

_BAND = (1.86, 1.95)
"""Where on the arm watches and bracelets sit: 1 elbow, 2 wrist."""
_NAIL_OUT, _NAIL_BACK = 0.42, 0.33
"""Nails: beyond this share of the last phalanx, and turned from the back of the finger by a cosine of 1 less this."""


@lru_cache(maxsize=2)
def surface(side: Side) -> Surface:
    """The surface of an arm, once per side; sets of triangles: all, hand, band, nails."""
    model = load(side)
    local, arm = _about_limbs(model)
    tags = np.stack([arm, model.part_of_vertex.astype(float)], axis=1)
    middle = arm[model.faces].mean(axis=1)
    faces = {
        "all": model.faces,
        "hand": model.faces[middle > 1.5],
        "band": model.faces[(middle > _BAND[0]) & (middle < _BAND[1])],
        "nails": model.faces[_nails(model)],
    }
    return Surface(model.template, local, tags, faces)


def _about_limbs(model: HandModel) -> tuple[Floats, Floats]:
    """(V, 3) positions across, across and along the arm; and (V,) arm coordinates as of `render.Surface`."""
    head = dict(zip(model.bone_names, model.heads, strict=True))
    upper = np.isin(
        model.part_of_vertex, [i for i, n in enumerate(model.bone_names) if n.startswith("upperarm")]
    )
    local, arm = np.zeros_like(model.template), np.zeros(len(model.template))
    ends = (("upperarm01", "lowerarm01", 0.0), ("lowerarm01", "wrist", 1.0))
    for chosen, (start, end, offset) in zip((upper, ~upper), ends, strict=True):
        axis = head[end] - head[start]
        length = np.linalg.norm(axis)
        axis = axis / length
        across = np.cross(axis, [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        away = model.template[chosen] - head[start]
        along = away @ axis
        arm[chosen] = np.maximum(offset + along / length, 0.0)
        local[chosen] = np.stack(
            [away @ across, away @ np.cross(across, axis), along + offset * 0.27], axis=1
        )
    return local, arm


def _nails(model: HandModel) -> NDArray[np.bool_]:
    """(F,) triangles on the backs of the fingers' ends."""
    head = dict(zip(model.bone_names, model.heads, strict=True))
    corners = model.template[model.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    middles, found = corners.mean(axis=1), np.zeros(len(model.faces), bool)
    for number in range(1, 6):
        names = [f"finger{number}-{part}" for part in (1, 2, 3)]
        last = model.bone_names.index(names[2])
        here = (model.part_of_vertex[model.faces] == last).all(axis=1)
        along = head[names[2]] - head[names[1]]
        along = along / np.linalg.norm(along)
        reach = (middles - head[names[2]]) @ along
        back = _back(model, number, along)
        found |= here & (reach > _NAIL_OUT * reach[here].max()) & (normals @ back > 1 - _NAIL_BACK)
    return found


def _back(model: HandModel, number: int, along: Floats) -> Floats:
    """Unit normal of the back of a finger's last phalanx on the template."""
    head = dict(zip(model.bone_names, model.heads, strict=True))
    if number == 1:
        # The thumb bends across the palm: its nail looks along the knuckles, away from the fingers.
        towards = head["finger1-2"] - (head["finger2-1"] + head["finger5-1"]) / 2
        aside = np.cross(head["finger2-1"] - head["wrist"], head["finger5-1"] - head["wrist"])
        aside *= 1 if model.side == "L" else -1
        back = towards / np.linalg.norm(towards) + 0.3 * aside / np.linalg.norm(aside)
    else:
        second, third = (head[f"finger{number}-{part}"] for part in (2, 3))
        hinge = head["finger2-1"] - head["finger5-1"]
        back = np.cross(third - second, hinge) * (-1 if model.side == "L" else 1)
    back = back - along * (back @ along)
    return back / np.linalg.norm(back)


def worn(rng: Rng, skin: dict[str, Any]) -> list[Layer]:
    """All layers of an arm, from the skin outwards.

    Args:
        rng: of this arm.
        skin: values of its material; both arms of somebody have the same.
    """
    layers = [Layer("all", Material(skin), closed=True)]
    if rng.random() < 0.06:
        glove = looks._cloth(
            rng, "hand", looks.any_colour(rng), low=float(rng.uniform(1.75, 1.98)),
            thickness=float(rng.uniform(0.0005, 0.0015)),
        )  # fmt: skip
        layers.append(Layer("hand", glove, shadow=False))
    else:
        layers.append(Layer("nails", _nail(rng, skin), shadow=False))
    if rng.random() < 0.62:
        long = rng.random() < 0.5
        sleeve = looks._cloth(
            rng, "top", looks.any_colour(rng), sleeve=float(rng.uniform(1.7, 2.02) if long else rng.uniform(0.7, 1.7)),
            thickness=float(rng.uniform(0.002, 0.006)), loose=float(rng.uniform(0, 0.014)),
        )  # fmt: skip
        layers.append(Layer("all", sleeve))
    if rng.random() < 0.14:
        band = looks._cloth(
            rng, "all", looks.any_colour(rng), thickness=float(rng.uniform(0.001, 0.004)), wrinkle=0.1,
            shine=float(rng.beta(1, 2)), gloss=float(rng.uniform(10, 60)), pattern=0.0,
        )  # fmt: skip
        layers.append(Layer("band", band, shadow=False))
    return layers


def _nail(rng: Rng, skin: dict[str, Any]) -> Material:
    """As it grows, or painted."""
    if rng.random() < 0.15:
        colour = np.array(looks.any_colour(rng))
    else:
        colour = np.clip(np.array(skin["colour"]) * rng.uniform(1.0, 1.35) + (0.03, 0.01, 0.01), 0, 1)
    return Material(skin | {"colour": colour, "thickness": 0.0004, "shine": 0.4, "gloss": 40.0})


def skin(rng: Rng) -> dict[str, Any]:
    """Somebody's skin: values of a material without underwear on its arms."""
    return looks._skin(rng, (0.0, 0.0, 0.0), 0.0).values | {
        "shade": -1.0,
        "under_leg": -9.0,
        "under_low": -9.0,
    }
