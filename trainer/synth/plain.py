"""What takes the place of a family that is left out: always the same, whatever was drawn.

Everything is drawn first, as ever, and replaced afterwards. So the generator of random numbers goes the same way with a
family and without it, and all that does not depend on the family stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trainer.synth import families, keyposes, looks
from trainer.synth.backgrounds import Image
from trainer.synth.body import Shape
from trainer.synth.garments import Sheet
from trainer.synth.pose import Pose, faced, of_angles
from trainer.synth.render import Drawn, Floor, Layer, Lights, Material
from trainer.synth.shaders import COVERS, KINDS

LeftOut = frozenset[str]
"""Names of the families that are left out, of `families.FAMILIES`."""

_GREYS = {"colour": (0.25, 0.25, 0.25), "colour2": (0.06, 0.06, 0.06), "colour3": (0.6, 0.6, 0.6)}
_SKIN = {"colour": looks.light_of((175, 115, 80)), "shade": 0.05, "shine": 0.12, "gloss": 20.0}
_CUTS: dict[str, dict[str, float]] = {
    "bottom": {"low": -0.76, "high": 0.1, "loose": 0.015, "thickness": 0.007},
    "top": {"low": 0.0, "high": 0.56, "sleeve": 0.55, "neck": 0.08, "loose": 0.02, "thickness": 0.006},
    "foot": {"high": -0.72, "thickness": 0.012},
}
"""Trousers, a T-shirt and shoes, as `looks` cuts them."""
_WALL = 128


def shape(drawn: Shape, left_out: LeftOut) -> Shape:
    """Who somebody is."""
    return Shape() if "shapes" in left_out else drawn


def posed(drawn: Pose, left_out: LeftOut) -> Pose:
    """How somebody stands, and how that lies in space."""
    taken = drawn
    if "poses" in left_out:
        taken = of_angles(keyposes.ANGLES[keyposes.KEYS.index("stand")], drawn.root)
    if "tilts" in left_out:
        taken = replace(taken, root=np.array([0, 0, faced(drawn.root)], np.float32))
    return taken


def dressed(
    layers: Sequence[Layer], hanging: Sequence[tuple[Sheet, Material]], left_out: LeftOut
) -> tuple[list[Layer], list[tuple[Sheet, Material]]]:
    """What somebody wears, from the skin outwards, and what hangs about it."""
    worn, hangs = list(layers), list(hanging)
    if "hair" in left_out:  # and hats
        worn = [each for each in worn if each.faces != "head"]
        hangs = [each for each in hangs if each[1].values["kind"] != KINDS["hair"]]
    if "garments" in left_out:
        skin, *_ = worn
        cloth = {
            "bottom": next(each for each in worn if each.faces == "bottom"),
            "top": next(each for each in worn if each.faces == "top"),  # not the jacket over it
        }
        feet = [each for each in worn if each.faces == "foot"]
        cloth["foot"] = feet[-1] if feet else cloth["bottom"]
        worn = [
            skin,
            *(_cut(each, faces) for faces, each in cloth.items()),
            *(e for e in worn if e.faces == "head"),
        ]
        hangs = [each for each in hangs if each[1].values["kind"] == KINDS["hair"]]
    return worn, hangs


def _cut(layer: Layer, faces: str) -> Layer:
    values = {**layer.material.values, **_CUTS[faces], "cover": COVERS[faces]}
    return replace(layer, faces=faces, material=Material(values))


def on_arm(layers: Sequence[Layer], left_out: LeftOut) -> list[Layer]:
    """What an arm wears, from the skin outwards."""
    if "garments" not in left_out:
        return list(layers)
    skin, *_ = layers
    nails = replace(
        skin,
        faces="nails",
        material=Material({**skin.material.values, "thickness": 0.0004}),
        shadow=False,
        closed=False,
    )
    return [skin, nails]


def painted(item: Drawn, left_out: LeftOut) -> Drawn:
    """Anything, with what its surfaces look like."""
    if not left_out & {"skin", "patterns", "colours"}:
        return item
    layers = [
        replace(each, material=Material(_painted(each.material.values, left_out))) for each in item.layers
    ]
    return replace(item, layers=layers)


def _painted(values: Any, left_out: LeftOut) -> dict[str, Any]:
    changed = dict(values)
    if values["kind"] == KINDS["skin"]:
        changed |= _SKIN if "skin" in left_out else {}
        for under in {"under_top", "under_bottom"} & changed.keys() if "colours" in left_out else ():
            changed[under] = _GREYS["colour"]
    elif values["kind"] != KINDS["hair"]:
        changed |= _GREYS if "colours" in left_out else {}
        changed |= {"pattern": 0.0, "mottle": 0.0} if "patterns" in left_out else {}
    return changed


def lit(drawn: Lights, left_out: LeftOut) -> Lights:
    """Light, and whether it casts shadows."""
    lights = replace(Lights(), shadows=drawn.shadows) if "light" in left_out else drawn
    return replace(lights, shadows=False) if "shadows" in left_out else lights


def floor(drawn: Floor | None, left_out: LeftOut) -> Floor | None:
    """Where shadows fall."""
    return None if "shadows" in left_out else drawn


def behind(drawn: tuple[Image, str], left_out: LeftOut) -> tuple[Image, str]:
    """A background and its kind."""
    if "backgrounds" not in left_out:
        return drawn
    return np.full_like(drawn[0], _WALL), "plain"


def sensor_fields(left_out: LeftOut) -> frozenset[str]:
    """Fields of `sensor.Sensor` that keep their defaults."""
    return frozenset().union(*(families.SENSOR[name] for name in left_out & families.SENSOR.keys()))
