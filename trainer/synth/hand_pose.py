"""Poses of one hand: angles of its joints with limits, the ten digits of the sign language set, grasps and chance.

Zero is a straight hand with parallel fingers, the thumb as in anny's reference pose. The end joint follows the middle
one by two thirds (Landsmeer's coupling). Degrees; limits after the American Academy of Orthopaedic Surgeons (1965).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from trainer.synth import anatomy
from trainer.synth.bones import BONES, HEADS, INDEX
from trainer.synth.hand_digits import DIGITS

Floats = NDArray[np.floating]

FINGERS = ("index", "middle", "ring", "little")
THUMB: dict[str, tuple[float, float]] = {
    "thumb_across": (-25, 50),
    "thumb_front": (-10, 45),
    "thumb_mcp": (-10, 60),
    "thumb_ip": (-15, 80),
}
LIMITS: dict[str, tuple[float, float]] = THUMB | {
    f"{finger}_{joint}": limits
    for finger in FINGERS
    for joint, limits in (("mcp", (-20, 90)), ("spread", (-18, 22)), ("pip", (0, 105)))
}
"""Name to (least, most). `spread` is away from the middle finger; the middle one's is towards the index."""
NAMES = tuple(LIMITS)
LOW, HIGH = (np.array([v[i] for v in LIMITS.values()], float) for i in (0, 1))
_COUPLED = 2 / 3

_OPEN, _BENT = (0.0, 0.0), (80.0, 95.0)
_OUT = {"thumb_across": -20.0, "thumb_front": 5.0, "thumb_mcp": 0.0, "thumb_ip": 0.0}
_OVER = {"thumb_across": 42.0, "thumb_front": 30.0, "thumb_mcp": 35.0, "thumb_ip": 35.0}


def _hand(thumb: dict[str, float], *fingers: tuple[float, float], spread: float = 4.0) -> Floats:
    values = dict.fromkeys(NAMES, 0.0) | thumb
    for finger, (mcp, pip) in zip(FINGERS, fingers, strict=True):
        straight = 1 - min(1.0, mcp / 60)
        away = 0.0 if finger == "middle" else spread * (1.6 if finger == "little" else 1.0)
        values |= {f"{finger}_mcp": mcp, f"{finger}_pip": pip, f"{finger}_spread": away * straight}
    return np.array([values[n] for n in NAMES])


_MEET = {"thumb_across": 35.0, "thumb_front": 40.0, "thumb_mcp": 22.0, "thumb_ip": 25.0}
GESTURES: tuple[Floats, ...] = tuple(np.mean(ways, axis=0) for ways in DIGITS)
"""The digits 0 to 9 of one hand (American Sign Language), each the mean of the ways in `hand_digits`."""
GRASPS: tuple[Floats, ...] = (
    _hand(_OVER, (70, 85), (75, 90), (78, 90), (80, 85)),  # fist
    _hand(_MEET, (40, 50), (45, 50), (48, 50), (50, 45)),  # a bar
    _hand(_MEET, (30, 30), (30, 32), (30, 32), (32, 30), spread=9),  # a ball
    _hand(_MEET, (50, 45), (55, 60), (60, 70), (62, 70)),  # a pen
    _hand(_OUT, (12, 18), (15, 20), (18, 22), (20, 22)),  # hanging loosely
    _hand({**_OUT, "thumb_across": -5.0}, (5, 5), (5, 5), (6, 5), (8, 6), spread=1),  # flat
    _hand(_OUT, _BENT, _BENT, _BENT, _BENT),  # thumb up
)


def sample_hand_angles(rng: np.random.Generator, gesture: int | None = None) -> Floats:
    """(D,) degrees in the order of `NAMES`: a digit with noise if one is asked for, else any of all sorts."""
    kind = rng.choice(3, p=(0.45, 0.35, 0.2)) if gesture is None else 3
    if kind == 3:
        ways = np.array(DIGITS[gesture], float)
        values = rng.dirichlet(np.full(len(ways), 0.4)) @ ways + rng.normal(0, 4, len(NAMES))
    elif kind == 2:
        curl = rng.beta(1.2, 1.4)  # fingers bend together, and each a little as it likes
        values = LOW + (HIGH - LOW) * np.clip(rng.normal(curl, 0.22, len(NAMES)), 0, 1)
        spread = [i for i, n in enumerate(NAMES) if n.endswith("spread")]
        values[spread] = rng.normal(2, 6, len(spread))
    else:
        some = GESTURES if kind == 1 else GRASPS
        a, b = (some[i] for i in rng.integers(len(some), size=2))
        values = a + (b - a) * rng.beta(0.4, 0.4) + rng.normal(0, 6, len(NAMES))
    return np.clip(values, LOW, HIGH)


def sample_hand_pose(
    rng: np.random.Generator, gesture: int | None = None, side: str = "R"
) -> dict[str, Floats]:
    """Bone name to (3,) float32 axis-angle for the 19 bones of one hand's fingers, as `hand_rotations`."""
    return hand_rotations(sample_hand_angles(rng, gesture), side)


def hand_rotations(values: Floats, side: str) -> dict[str, Floats]:
    """The rotations of the fingers' bones, in the axes of the reference pose.

    Args:
        values: (D,) degrees in the order of `NAMES`.
        side: "L" or "R".
    """
    bones, made = _of_fingers(values)
    joints = np.tile(np.eye(3), (len(BONES), 1, 1))
    at = [INDEX[f"{bone}.{side}"] for bone in bones]
    joints[at] = made if side == "L" else _MIRROR @ made @ _MIRROR
    local = anatomy.bones_of(joints)
    return {BONES[bone]: local[bone] for bone in at}


def arm_turns(values: Floats, side: str, *, wrist: tuple[float, float], elbow: float) -> dict[str, Floats]:
    """Bone of one arm, without its side, to its (3, 3) rotation in the axes of the reference pose.

    Args:
        values: (D,) degrees in the order of `NAMES`.
        side: "L" or "R".
        wrist: degrees that it is bent towards the palm, and towards the little finger.
        elbow: degrees.
    """
    bones, made = _of_fingers(values)
    flex, ulnar = np.radians(wrist)
    arm = _turns([(0, 0, 0), (0, 0, 0), (-np.radians(elbow), 0, 0), (0, 0, 0), (ulnar, flex, 0)])
    bones, made = [*_ARM, *bones], np.concatenate([arm, made])
    if side == "R":
        made = _MIRROR @ made @ _MIRROR
    at = np.array([INDEX[f"{bone}.{side}"] for bone in bones])
    local = anatomy.OF_BONE[anatomy._PARENT[at]].swapaxes(-1, -2) @ made @ anatomy.OF_BONE[at]
    return dict(zip(bones, local, strict=True))


_ARM = ("upperarm01", "upperarm02", "lowerarm01", "lowerarm02", "wrist")
_MIRROR = np.diag([-1.0, 1.0, 1.0])


def _of_fingers(values: Floats) -> tuple[list[str], Floats]:
    """Names of the left hand's bones, and (n, 3, 3) the turns of their joints in the axes of zero."""
    a = dict(zip(NAMES, np.radians(values).tolist(), strict=True))
    still = (0.0, 0.0, 0.0)
    first = {
        "finger1-1": a["thumb_front"] * _FRONT,
        "finger1-2": a["thumb_mcp"] * _BEND,
        "finger1-3": a["thumb_ip"] * _BEND,
    } | {f"metacarpal{n}": still for n in range(1, 5)}
    second = {"finger1-1": a["thumb_across"] * _ACROSS}
    for n, finger in enumerate(FINGERS, start=2):
        away = -1.0 if finger in ("index", "middle") else 1.0
        first[f"finger{n}-1"] = (away * a[f"{finger}_spread"], 0, 0)
        second[f"finger{n}-1"] = (0, a[f"{finger}_mcp"], 0)
        first[f"finger{n}-2"] = (0, a[f"{finger}_pip"], 0)
        first[f"finger{n}-3"] = (0, a[f"{finger}_pip"] * _COUPLED, 0)
    bones = list(first)
    made = _turns([*first.values()]) @ _turns([second.get(bone, still) for bone in bones])
    return bones, made


def _turns(vectors: list[Any]) -> Floats:
    """(n, 3, 3) of n rotation vectors."""
    return Rotation.from_rotvec(vectors).as_matrix()


def _axes() -> tuple[Floats, Floats, Floats]:
    """Hinges of the left thumb in the axes of zero: to the front of the palm, across it, and of its own bending."""
    hand = anatomy.OF_BONE[INDEX["wrist.L"]]
    thumb = hand @ (HEADS[INDEX["finger1-3.L"]] - HEADS[INDEX["finger1-1.L"]])
    hinges = (np.cross(thumb, to) for to in ((-1.0, 0, 0), (0, 1.0, 0), (-0.5, 0.85, 0)))
    front, across, bend = (h / np.linalg.norm(h) for h in hinges)
    return front, across, bend


_FRONT, _ACROSS, _BEND = _axes()
