"""Poses of the whole body: mixtures of key poses, cycles, chance within limits, or a library of fitted ones.

Every sampled pose is made of the angles of `anatomy` and `hand_pose`, cut to their limits, so none can leave them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from trainer.errors import DataError
from trainer.synth import anatomy, collide, hand_pose, keyposes, motion
from trainer.synth.bones import INDEX, MIRROR

Floats = NDArray[np.floating]

_UPPER = np.array([not n[2:].startswith(("hip", "knee", "ankle", "toes")) for n in anatomy.NAMES])
_NOISE = np.where(_UPPER, 7.0, 5.0)
_TRIES = 12
_FRONT, _BACK = 0.55, 0.2
"""Shares of those who face the camera and who face away, more or less; the others face anywhere."""


@dataclass(frozen=True)
class Pose:
    """How every bone is turned.

    Attributes:
        rotations: (B, 3) float32 axis-angle in anny's bone order, in the axes of the reference pose (`local-ref`).
        root: (3,) float32 axis-angle of the whole body; zero stands upright and faces -y, z is up.
        angles: (D,) degrees of `anatomy.NAMES` that the body's bones follow; None if not made of angles.
    """

    rotations: Floats
    root: Floats
    angles: Floats | None = None

    def mirrored(self) -> Pose:
        """The same pose with left and right exchanged."""
        angles = None if self.angles is None else anatomy.mirrored(self.angles)
        return Pose(
            self.rotations[MIRROR] * anatomy.FLIP.astype(np.float32), self.root * anatomy.FLIP, angles
        )


@dataclass(frozen=True)
class Library:
    """Poses that were fitted to people."""

    angles: Floats
    """(N, D) degrees in the order of `anatomy.NAMES`."""
    roots: Floats
    """(N, 3) rotation vectors of the whole body; any turn about the vertical is as good."""


def read_library(path: Path) -> Library:
    """The poses of an `.npz` with `angles` and `roots`, as `fit` writes them; DataError."""
    try:
        with np.load(path) as archive:
            angles, roots = (np.asarray(archive[name], np.float64) for name in ("angles", "roots"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no library of poses: {error}") from error
    for name, values, width in (("angles", angles, len(anatomy.NAMES)), ("roots", roots, 3)):
        if values.shape != (len(angles), width) or not len(angles) or not np.isfinite(values).all():
            raise DataError(f"{path}: expected (N, {width}) finite {name}, got {values.shape}")
    return Library(angles, roots)


def anatomical(angles: dict[str, float], root: Floats | None = None) -> Pose:
    """The pose of these angles, degrees by name; see `anatomy.vector`. DataError: a name that is no angle."""
    return of_angles(anatomy.vector(angles), root)


def of_angles(angles: Floats, root: Floats | None = None) -> Pose:
    """The pose of (D,) degrees in the order of `anatomy.NAMES`, cut to the limits; straight fingers."""
    angles = anatomy.within(angles)
    root = np.zeros(3) if root is None else np.asarray(root)
    return Pose(anatomy.rotations(angles), root.astype(np.float32), angles)


def with_hands(pose: Pose, left: Floats, right: Floats) -> Pose:
    """The pose with the fingers at (D,) degrees of `hand_pose.NAMES`."""
    rotations = pose.rotations.copy()
    for side, values in (("L", left), ("R", right)):
        for bone, rotation in hand_pose.hand_rotations(values, side).items():
            rotations[INDEX[bone]] = rotation
    return Pose(rotations, pose.root, pose.angles)


def global_rotation(rng: np.random.Generator, tilt: Floats = (0.0, 0.0)) -> Floats:
    """(3,) axis-angle: the pose's own tilt (pitch, roll; degrees) and a little more, then a direction faced.

    One in ten is turned in any way at all.
    """
    if rng.random() < 0.1:
        return Rotation.random(random_state=rng).as_rotvec()
    pitch, roll = np.asarray(tilt) + rng.normal(0, (8, 6))
    facing = _facing(rng)
    lying = Rotation.from_euler("xy", [pitch, roll], degrees=True)
    return (facing * lying).as_rotvec()


def faced(root: Floats) -> float:
    """Radians about the vertical by which somebody turned by this (3,) axis-angle faces away from the camera."""
    x, y, _ = Rotation.from_rotvec(root).apply([1.0, 0.0, 0.0])
    return float(np.arctan2(y, x))


def _facing(rng: np.random.Generator) -> Rotation:
    """A turn about the vertical: cameras look along y, and people are photographed from the front more often.

    Of the people in LSP, LSP Extended and COCO the right shoulder is to the left of the other in 63 to 68 %, and to its
    right in 26 to 34 %.
    """
    how, turn = rng.random(), rng.normal(0, np.radians(40))
    if how > _FRONT + _BACK:
        turn = rng.uniform(-np.pi, np.pi)
    elif how > _FRONT:
        turn += np.pi
    return Rotation.from_rotvec([0, 0, turn])


def sample_body_pose(rng: np.random.Generator, library: Library | None = None) -> Pose:
    """Any pose of a person, without parts inside one another as far as `collide` sees.

    Args:
        library: fitted poses; half of the poses then come from it.
    """
    for _ in range(_TRIES):
        pose = draw(rng, library)
        if not collide.collides(pose.rotations):
            pose = with_hands(pose, hand_pose.sample_hand_angles(rng), hand_pose.sample_hand_angles(rng))
            if not collide.collides(pose.rotations):  # bent fingers reach further
                return pose
    return of_angles(np.zeros(len(anatomy.NAMES)), global_rotation(rng))


def draw(rng: np.random.Generator, library: Library | None = None) -> Pose:
    """As `sample_body_pose`, with straight fingers, and parts may lie inside one another."""
    if library is not None and rng.random() < 0.5:
        row = rng.integers(len(library.angles))
        angles, root = library.angles[row] + rng.normal(0, 3, len(_NOISE)), library.roots[row]
        if rng.random() < 0.5:
            angles, root = anatomy.mirrored(angles), root * anatomy.FLIP
        away = Rotation.from_rotvec([0, 0, -faced(root)])
        return of_angles(angles, (_facing(rng) * away * Rotation.from_rotvec(root)).as_rotvec())
    angles, tilt = _drawn(rng)
    if rng.random() < 0.5:
        angles, tilt = anatomy.mirrored(angles), (tilt[0], -tilt[1])
    return of_angles(angles, global_rotation(rng, tilt))


def _drawn(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Angles, and how the body is tilted."""
    kind = rng.choice(3, p=(0.75, 0.17, 0.08))
    if kind == 1:
        name = list(motion.CYCLES)[rng.integers(len(motion.CYCLES))]
        return motion.CYCLES[name](rng.random()) + rng.normal(0, _NOISE), np.zeros(2)
    if kind == 2:  # beta about the middle of what is free, bent joints less often than straight ones
        low, high = anatomy.LOW, anatomy.HIGH
        rest = -low / (high - low)
        return low + (high - low) * rng.beta(1 + 3 * rest, 1 + 3 * (1 - rest)), np.zeros(2)
    below, above = rng.integers(len(keyposes.KEYS), size=2)
    if rng.random() < 0.55:
        above = below
    angles = np.where(_UPPER, keyposes.ANGLES[above], keyposes.ANGLES[below])
    if rng.random() < 0.4:  # on the way from one pose to another
        other, share = keyposes.ANGLES[rng.integers(len(keyposes.KEYS))], rng.uniform(0, 0.5)
        angles = angles + (other - angles) * share
    return angles * rng.normal(1, 0.08) + rng.normal(0, _NOISE), keyposes.TILTS[below]
