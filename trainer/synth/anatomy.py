"""Poses of the body in anatomical terms: named angles with limits, and the rotations of the bones that they mean.

Zero is upright standing: arms hanging, palms to the thighs, thumbs and toes forward. Angles are degrees. Shoulder and
hip swing by one rotation whose components are `_flex` (forward) and `_abduct` (sideways), so that nothing is singular
below the head; `_twist` (outward) turns about the limb itself. A raised arm turns with its plane (Codman), so a twist
of zero is natural everywhere. The lower arm may pronate; the clavicle follows the arm by a third above 30 degrees.

R_c = A_p^T J_c A_c, where A brings a bone from anny's reference pose to zero and J is the joint in the axes of zero.

Source of the limits: American Academy of Orthopaedic Surgeons, Joint Motion (1965), widened by 10-30 % towards trained
people where hips, shoulders and spine are concerned; the spine is the sum of the lumbar and thoracic parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from trainer.errors import DataError
from trainer.synth.bones import BONES, HEADS, INDEX, PARENTS

Floats = NDArray[np.floating]

CENTRAL: dict[str, tuple[float, float]] = {
    "spine_flex": (-40, 85),
    "spine_bend": (-40, 40),
    "spine_twist": (-45, 45),
    "neck_flex": (-55, 50),
    "neck_bend": (-40, 40),
    "neck_twist": (-75, 75),
}
SIDED: dict[str, tuple[float, float]] = {
    "clavicle_up": (-8, 30),
    "clavicle_forward": (-15, 20),
    "shoulder_flex": (-60, 175),
    "shoulder_abduct": (-55, 175),
    "shoulder_twist": (-85, 85),
    "elbow": (0, 148),
    "pronation": (-85, 85),
    "wrist_flex": (-70, 80),
    "wrist_ulnar": (-20, 32),
    "hip_flex": (-35, 130),
    "hip_abduct": (-30, 85),
    "hip_twist": (-40, 55),
    "knee": (0, 150),
    "ankle": (-25, 50),
    "ankle_invert": (-18, 30),
    "toes": (-30, 50),
}
LIMITS: dict[str, tuple[float, float]] = (
    CENTRAL | {f"l_{n}": v for n, v in SIDED.items()} | {f"r_{n}": v for n, v in SIDED.items()}
)
"""Name to (least, most) in degrees; `l_` and `r_` are the person's own sides. Positive means the same on both."""
NAMES: tuple[str, ...] = tuple(LIMITS)
LOW, HIGH = (np.array([v[i] for v in LIMITS.values()], float) for i in (0, 1))
HIGHEST_ARM = 178.0
"""Most that a shoulder swings in any direction."""

_PARTNER = np.array([NAMES.index({"l_": "r_", "r_": "l_"}.get(n[:2], n[:2]) + n[2:]) for n in NAMES])
_SIGN = np.array(
    [-1.0 if n in ("spine_bend", "spine_twist", "neck_bend", "neck_twist") else 1.0 for n in NAMES]
)
MIRRORED = np.array([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
SHARES = {
    "spine": {"spine05": 0.25, "spine04": 0.25, "spine03": 0.2, "spine02": 0.2, "spine01": 0.1},
    "neck": {"neck01": 0.25, "neck02": 0.25, "neck03": 0.2, "head": 0.3},
}
"""How much of a part's angles each of its bones takes."""
FLIP = np.array([1.0, -1.0, -1.0])
"""Times a rotation vector: what it is in a mirror that exchanges left and right."""


def vector(angles: Mapping[str, float]) -> Floats:
    """(D,) degrees in the order of `NAMES`; a sided name without `l_` or `r_` means both sides, unnamed ones are 0.

    Raises:
        DataError: a name that is no angle.
    """
    values = np.zeros(len(NAMES))
    for name, value in sorted(
        angles.items(), key=lambda item: item[0][:2] in ("l_", "r_")
    ):  # sides after both
        names = (name,) if name in LIMITS else (f"l_{name}", f"r_{name}")
        if names[0] not in LIMITS:
            raise DataError(f"{name} is no angle of the body")
        for each in names:
            values[NAMES.index(each)] = value
    return values


def within(values: Floats) -> Floats:
    """The nearest (..., D) angles within the limits."""
    values = np.clip(values, LOW, HIGH)
    for side in ("l_", "r_"):
        swing = [NAMES.index(f"{side}shoulder_{n}") for n in ("flex", "abduct")]
        length = np.linalg.norm(values[..., swing], axis=-1, keepdims=True)
        values[..., swing] *= np.minimum(1, HIGHEST_ARM / np.maximum(length, 1e-9))
    return values


def mirrored(values: Floats) -> Floats:
    """The same (..., D) angles with left and right exchanged."""
    return values[..., _PARTNER] * _SIGN


def rotations(values: Floats) -> Floats:
    """(B, 3) float32 axis-angle of every bone, as in `Pose`, from (D,) angles; fingers straight."""
    angle = dict(zip(NAMES, np.radians(values), strict=True))
    joints = np.tile(np.eye(3), (len(BONES), 1, 1))
    for part, shares in SHARES.items():
        whole = np.array([angle[f"{part}_flex"], angle[f"{part}_bend"], angle[f"{part}_twist"]])
        for bone, share in shares.items():
            joints[INDEX[bone]] = _turn(share * whole)
    for side, letter in (("l_", "L"), ("r_", "R")):
        for bone, joint in _limbs({n: angle[side + n] for n in SIDED}).items():
            joints[INDEX[f"{bone}.{letter}"]] = joint if letter == "L" else _in_mirror(joint)
    return bones_of(joints)


def bones_of(joints: Floats) -> Floats:
    """(B, 3) float32 axis-angle of the bones from (B, 3, 3) joints in the axes of zero."""
    local = OF_PARENT @ joints @ OF_BONE
    return Rotation.from_matrix(local).as_rotvec().astype(np.float32)


def _limbs(a: Mapping[str, float]) -> dict[str, Floats]:
    """Joints of the left arm and leg, angles in radians."""
    flex, abduct = a["shoulder_flex"], a["shoulder_abduct"]
    raised, plane = np.hypot(flex, abduct), np.arctan2(abduct, max(flex, 0.0) + 1e-9)
    share = np.clip((raised - np.pi / 2) / (np.pi / 2), 0, 1)
    twist = a["shoulder_twist"] + plane * share * share * (3 - 2 * share)
    up = a["clavicle_up"] + max(0.0, raised - np.pi / 6) * 0.22
    clavicle = _turn((0, -up, -a["clavicle_forward"]))
    return {
        "clavicle": clavicle,
        "upperarm01": clavicle.T @ _turn((-flex, -abduct, 0)) @ _turn((0, 0, twist / 2)),
        "upperarm02": _turn((0, 0, twist / 2)),
        "lowerarm01": _turn((-a["elbow"], 0, 0)),
        "lowerarm02": _turn((0, 0, -0.65 * a["pronation"])),
        "wrist": _turn((0, 0, -0.35 * a["pronation"])) @ _turn((a["wrist_ulnar"], a["wrist_flex"], 0)),
        "upperleg01": _turn((-a["hip_flex"], -a["hip_abduct"], 0)) @ _turn((0, 0, a["hip_twist"] / 2)),
        "upperleg02": _turn((0, 0, a["hip_twist"] / 2)),
        "lowerleg01": _turn((a["knee"], 0, 0)),
        "foot": _turn((a["ankle"], 0, 0)) @ _turn((0, a["ankle_invert"], 0)),
    } | {f"toe{n}-1": _turn((-a["toes"], 0, 0)) for n in range(1, 6)}


def _turn(vector: tuple[float, float, float] | Floats) -> Floats:
    """(3, 3) of one rotation vector (Rodrigues), in plain numbers: a pose needs fifty, and arrays are slow to make."""
    x, y, z = (float(each) for each in vector)
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = x / angle, y / angle, z / angle
    c, s = math.cos(angle), math.sin(angle)
    a = 1 - c
    return np.array(
        [
            [c + a * x * x, a * x * y - s * z, a * x * z + s * y],
            [a * x * y + s * z, c + a * y * y, a * y * z - s * x],
            [a * x * z - s * y, a * y * z + s * x, c + a * z * z],
        ]
    )


def _in_mirror(matrix: Floats) -> Floats:
    return matrix * MIRRORED


def _unit(vector: Floats) -> Floats:
    return vector / np.linalg.norm(vector)


def _between(start: str, end: str) -> Floats:
    return _unit(HEADS[INDEX[f"{end}.L"]] - HEADS[INDEX[f"{start}.L"]])


def _frame(along: Floats, across: Floats, zero_along: Floats, zero_across: Floats) -> Floats:
    """The rotation that brings the direction `along` to its zero, and `across` as near to its own as that allows."""

    def axes(first: Floats, second: Floats) -> Floats:
        third = _unit(np.cross(first, second))
        return np.stack([_unit(first), np.cross(third, _unit(first)), third], 1)

    return axes(zero_along, zero_across) @ axes(along, across).T


def _shortest(start: Floats, end: Floats) -> Floats:
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    return _turn(axis / sine * np.arctan2(sine, start @ end)) if sine > 1e-9 else np.eye(3)


def _zero() -> Floats:
    """(B, 3, 3) the turn of each bone from the reference pose to zero."""
    turns = np.tile(np.eye(3), (len(BONES), 1, 1))
    down, right, back = np.array([0, 0, -1.0]), np.array([-1.0, 0, 0]), np.array([0, 1.0, 0])
    upper, lower = _between("upperarm01", "lowerarm01"), _between("lowerarm01", "wrist")
    hinge = np.cross(upper, lower)
    hand = _frame(_between("wrist", "finger3-1"), _between("finger2-1", "finger5-1"), down, back)
    forearm = _frame(lower, hinge, down, right)
    turned = Rotation.from_matrix(hand @ forearm.T).as_rotvec()[2]  # what the reference pose pronates
    left = {
        "upperarm01": _frame(upper, hinge, down, right),
        "lowerarm01": forearm,
        "lowerarm02": _turn((0, 0, 0.65 * turned)) @ forearm,
        "wrist": hand,
        "upperleg01": _shortest(_between("upperleg01", "lowerleg01"), down),
        "lowerleg01": _shortest(_between("lowerleg01", "foot"), down),
    }
    left |= {
        "upperarm02": left["upperarm01"],
        "upperleg02": left["upperleg01"],
        "lowerleg02": left["lowerleg01"],
    }
    left |= {f"metacarpal{n}": hand for n in range(1, 5)} | {f"finger1-{n}": hand for n in range(1, 4)}
    for n in range(2, 6):
        for part in (1, 2, 3):  # the last bone goes on as the one before
            a, b = (f"finger{n}-1", f"finger{n}-2") if part == 1 else (f"finger{n}-2", f"finger{n}-3")
            left[f"finger{n}-{part}"] = _shortest(hand @ _between(a, b), down) @ hand
    for bone, turn in left.items():
        turns[INDEX[f"{bone}.L"]], turns[INDEX[f"{bone}.R"]] = turn, _in_mirror(turn)
    return turns


OF_BONE = _zero()
_PARENT = np.maximum(PARENTS, 0)
OF_PARENT = OF_BONE[_PARENT].swapaxes(-1, -2).copy()
