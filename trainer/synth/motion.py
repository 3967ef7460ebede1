"""Movements as angles over a phase in [0, 1) that repeats, and the way from one pose to another.

Amplitudes are those of normal gait and of moderate running as textbooks give them (Perry, Gait Analysis, 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from trainer.synth import anatomy

Floats = NDArray[np.floating]


def _wave(phase: float, *points: float) -> float:
    """A smooth periodic curve through evenly spaced points: the trigonometric interpolant."""
    spectrum = np.fft.rfft(points)
    if len(points) % 2 == 0:
        spectrum[-1] /= 2
    k = np.arange(len(spectrum))
    terms = spectrum * np.exp(2j * np.pi * k * phase)
    return float((terms[0].real + 2 * terms[1:].real.sum()) / len(points))


def _gait(
    phase: float, legs: Mapping[str, tuple[float, ...]], arms: Mapping[str, float], lean: float
) -> Floats:
    angles = {"spine_flex": lean, "spine_twist": 5 * np.sin(2 * np.pi * phase)}
    for side, shift in (("l_", 0.0), ("r_", 0.5)):
        angles |= {side + name: _wave(phase + shift, *points) for name, points in legs.items()}
        swing = -np.cos(2 * np.pi * (phase + shift))  # against the leg of its side
        angles[f"{side}shoulder_flex"] = arms["mean"] + arms["swing"] * swing
        angles[f"{side}elbow"] = arms["elbow"] + arms["bend"] * swing
        angles[f"{side}shoulder_abduct"] = 7.0
    return anatomy.within(anatomy.vector(angles))


def walk(phase: float) -> Floats:
    """(D,) degrees; the left heel strikes at 0, the right at 0.5."""
    legs = {
        "hip_flex": (30, 20, 6, -6, -8, 10, 28, 32),
        "knee": (5, 17, 9, 8, 25, 58, 45, 8),
        "ankle": (0, 3, -6, -10, 8, 10, 0, -1),
    }
    return _gait(phase, legs, {"mean": 2, "swing": 20, "elbow": 22, "bend": 12}, 3)


def run(phase: float) -> Floats:
    """(D,) degrees; the left foot lands at 0."""
    legs = {
        "hip_flex": (38, 22, 0, -16, -8, 28, 55, 52),
        "knee": (20, 40, 28, 18, 65, 105, 85, 35),
        "ankle": (-5, -18, -5, 22, 18, 5, 0, -4),
    }
    return _gait(phase, legs, {"mean": -5, "swing": 38, "elbow": 92, "bend": 15}, 8)


def _between(phase: float, start: Mapping[str, float], end: Mapping[str, float]) -> Floats:
    share = (1 - np.cos(2 * np.pi * phase)) / 2
    a, b = anatomy.vector(start), anatomy.vector(end)
    return anatomy.within(a + (b - a) * share)


_STAND = {"shoulder_abduct": 8.0, "elbow": 12.0}


def squat(phase: float) -> Floats:
    """(D,) degrees; standing at 0, lowest at 0.5."""
    deep = {
        "hip_flex": 105,
        "knee": 115,
        "ankle": -24,
        "spine_flex": 20,
        "shoulder_flex": 75,
        "hip_abduct": 15,
    }
    return _between(phase, _STAND, deep)


def sit(phase: float) -> Floats:
    """(D,) degrees; standing at 0, seated at 0.5."""
    seated = {"hip_flex": 88, "knee": 90, "spine_flex": 8, "shoulder_flex": 20, "elbow": 60, "pronation": 45}
    return _between(phase, _STAND, seated)


def jump(phase: float) -> Floats:
    """(D,) degrees; crouched at 0, stretched in the air at 0.5."""
    low = {"hip_flex": 75, "knee": 85, "ankle": -22, "spine_flex": 25, "shoulder_flex": -45}
    return _between(phase, low, {"ankle": 42, "knee": 5, "shoulder_flex": 150, "elbow": 20, "spine_flex": -5})


def wave(phase: float) -> Floats:
    """(D,) degrees; the right hand waves, outermost at 0.5."""
    arm = {"r_shoulder_abduct": 85, "r_shoulder_twist": 70, "l_shoulder_abduct": 8}
    return _between(phase, {**arm, "r_elbow": 110}, {**arm, "r_elbow": 60})


CYCLES: dict[str, Callable[[float], Floats]] = {
    "walk": walk,
    "run": run,
    "squat": squat,
    "sit": sit,
    "jump": jump,
    "wave": wave,
}
"""Name to phase -> (D,) degrees in the order of `anatomy.NAMES`; any real phase, period 1."""


def between(start: Floats, end: Floats, share: float) -> Floats:
    """(..., 3) axis-angles on the shortest way from start (share 0) to end (1), by slerp."""
    a, b = (Rotation.from_rotvec(np.reshape(v, (-1, 3))) for v in (start, end))
    way = (a.inv() * b).as_rotvec()
    return (a * Rotation.from_rotvec(share * way)).as_rotvec().reshape(np.shape(start))
