"""Whether parts of a body lie inside one another: capsules along its bones, of the mean body's measured thickness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.synth.bones import HEADS, INDEX, forward

Floats = NDArray[np.floating]

_LIMBS = (
    ("upperarm02", "lowerarm01", 0.040),
    ("lowerarm01", "wrist", 0.030),
    ("wrist", "finger3-2", 0.012),
    ("upperleg02", "lowerleg01", 0.070),
    ("lowerleg01", "foot", 0.044),
    ("foot", "toe2-1", 0.034),
)
_PARTS = [
    ("spine05", "spine03", 0.105),
    ("spine03", "spine01", 0.105),
    ("neck02", "head", 0.055),
    *((f"{a}.{s}", f"{b}.{s}", r) for s in "LR" for a, b, r in _LIMBS),
]
_HEAD = np.array([0.0, -0.045, 0.66])
"""Middle of the skull in the reference pose; a ball of `_SKULL`."""
_SKULL = 0.085
_SLACK = 0.65
"""Share of the two radii that must be free: flesh gives way, and touching is none. A hand is as thin as it is flat."""
_START = np.array([INDEX[a] for a, _, _ in _PARTS])
_END = np.array([INDEX[b] for _, b, _ in _PARTS])
_RADII = np.array([*(r for _, _, r in _PARTS), _SKULL])


def _pairs() -> NDArray[np.intp]:
    """(P, 2) parts that may not meet: all but neighbours."""
    limb = {0: "arm", 1: "arm", 2: "arm", 3: "leg", 4: "leg", 5: "leg"}
    chains = ["trunk", "trunk", "trunk", *(limb[i] + s for s in "LR" for i in range(6)), "trunk"]
    place = [0, 1, 2, *(i % 3 for _ in "LR" for i in range(6)), 3]
    pairs = []
    for i in range(len(chains)):
        for j in range(i + 1, len(chains)):
            same = chains[i] == chains[j]
            trunk_root = (
                "trunk" in (chains[i], chains[j])
                and not same
                and max(place[i] * (i > 2), place[j] * (j > 2)) == 0
            )
            if same and (chains[i] == "trunk" or abs(place[i] - place[j]) == 1):
                continue
            # a part that grows out of the trunk is near it; thighs are near each other
            if trunk_root and j != len(chains) - 1 and i < 3:
                continue
            if {chains[i], chains[j]} == {"legL", "legR"} and place[i] == place[j] == 0:
                continue
            pairs.append((i, j))
    return np.array(pairs)


_PAIRS = _pairs()


def depths(rotations: Floats) -> Floats:
    """(P,) metres by which each pair of parts is too near, negative where free, for (B, 3) bone rotations."""
    at, turns = forward(rotations, np.zeros(3))
    skull = INDEX["head"]
    ball = at[skull] + turns[skull] @ (_HEAD - HEADS[skull])
    start, end = np.vstack([at[_START], ball]), np.vstack([at[_END], ball])
    i, j = _PAIRS.T
    gap = _distances(start[i], end[i], start[j], end[j])
    return _SLACK * (_RADII[i] + _RADII[j]) - gap


def collides(rotations: Floats) -> bool:
    """Whether any two parts lie inside one another."""
    return bool((depths(rotations) > 0).any())


def _distances(p: Floats, q: Floats, r: Floats, s: Floats) -> Floats:
    """(P,) least distances of the segments p-q and r-s, each (P, 3). Source: Ericson, Real-Time Collision Detection."""
    u, v, w = q - p, s - r, p - r
    a, e = (u * u).sum(1) + 1e-12, (v * v).sum(1) + 1e-12
    b, c, f = (u * v).sum(1), (u * w).sum(1), (v * w).sum(1)
    along = np.clip((b * f - c * e) / np.maximum(a * e - b * b, 1e-12), 0, 1)
    other = np.clip((b * along + f) / e, 0, 1)
    along = np.clip((b * other - c) / a, 0, 1)
    return np.linalg.norm(w + along[:, None] * u - other[:, None] * v, axis=1)
