"""Poses that people took: the body's angles fitted to 2D keypoints of photographs.

One picture leaves depth open, so the fit never starts from nothing: of many poses that `pose` draws, seen from all
sides, those whose picture is most like the labels are improved by gradient descent within the limits of `anatomy`, and
held near where they began. What does not come near the labels then, or passes through itself, is left out.

The camera is far away and level: a point's place in the picture is its x and z, scaled and shifted. Lengths are those
of the mean body, so joints are only asked to come near. Labels may be wrong; the cost of each is bounded (Geman and
McClure, Statistical methods for tomographic image reconstruction, 1987).

Source of the idea: Bogo et al., Keep it SMPL, ECCV 2016; the limits, the prior and the start are our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from model_zoo.skeletons import BODY19
from trainer.data.people import Person
from trainer.errors import DataError
from trainer.synth import anatomy, body, collide, kinematics, pose
from trainer.synth.kinematics import Kinematics

Floats = NDArray[np.floating]

CANDIDATES = 20_000
"""Poses that a fit may start from."""
STARTS = 2
"""Of them, how many are improved for each person."""
STEPS = 120
LEAST_KEYPOINTS = 9
"""People with fewer labels say too little about a pose."""
FAR = 0.12
"""Where a label's cost has risen to half of its bound, in sizes of the person (see `_normalised`)."""
NEAR_ENOUGH = 0.06
"""Mean distance to the labels of a fit that is kept, in sizes of the person."""
_HELD = 0.02
"""Cost of an angle that leaves its start by `_HELD_DEG`, and of the whole body turned by as much, in labels."""
_HELD_DEG = 30.0
_LEANING = 0.02
"""Cost of turning a candidate upside down in the picture, relative to the labels' spread."""
_CHUNK = 1000


@dataclass(frozen=True)
class Fitted:
    """What was found, one row for each person that is kept."""

    angles: Floats
    """(N, D) degrees in the order of `anatomy.NAMES`."""
    roots: Floats
    """(N, 3) rotation vectors of the whole body, seen by a level camera that looks along +y."""
    errors: Floats
    """(N,) mean distance to the labels, in sizes of the person."""
    people: NDArray[np.intp]
    """(N,) which of the people that were given."""

    def save(self, path: Path) -> None:
        """Write a library that `pose.read_library` reads."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(path.name + ".partial.npz")
        np.savez_compressed(scratch, angles=self.angles, roots=self.roots, errors=self.errors)
        scratch.replace(path)


def fit(
    people: Sequence[Person], *, seed: int = 1, progress: Callable[[int], None] = lambda count: None
) -> Fitted:
    """Fit all people that have enough labels.

    Args:
        people: with keypoints of BODY19.
        seed: of the candidates.
        progress: told how many more people are done, or left out.

    Raises:
        DataError: nobody has enough labels.
        BodyMissing: see `body.load`.
    """
    weights = np.array([person.weight for person in people]).reshape(-1, len(BODY19))
    enough = np.flatnonzero((weights > 0).sum(1) >= LEAST_KEYPOINTS)
    if not len(enough):
        raise DataError(f"nobody has {LEAST_KEYPOINTS} labelled keypoints")
    moving = Kinematics(body.load(coarse=True))
    candidates = _Candidates(moving, seed)
    progress(len(people) - len(enough))
    parts = []
    for start in range(0, len(enough), _CHUNK):
        chunk = enough[start : start + _CHUNK]
        labels = np.array([people[index].points for index in chunk])
        parts.append(_fit(moving, candidates, labels, weights[chunk]))
        progress(len(chunk))
    angles, roots, errors = map(np.concatenate, zip(*parts, strict=True))
    kept = [
        row
        for row in np.flatnonzero(errors <= NEAR_ENOUGH)
        if not collide.collides(anatomy.rotations(angles[row]))
    ]
    return Fitted(angles[kept].astype(np.float32), roots[kept].astype(np.float32), errors[kept], enough[kept])


class _Candidates:
    """Many poses and their pictures."""

    def __init__(self, moving: Kinematics, seed: int) -> None:
        rng = np.random.default_rng(seed)
        drawn = [pose.draw(rng) for _ in range(CANDIDATES)]
        self.angles = np.array([each.angles for each in drawn])
        self.roots = Rotation.from_rotvec([each.root for each in drawn]).as_matrix()
        with torch.no_grad():
            seen = [
                _seen(moving.keypoints(_tensor(angles), _tensor(roots))).numpy()
                for angles, roots in zip(
                    np.array_split(self.angles, 20), np.array_split(self.roots, 20), strict=True
                )
            ]
        pictures = np.concatenate(seen).astype(np.float64)
        self.pictures = (pictures[..., 0] + 1j * pictures[..., 1]).astype(np.complex64)

    def nearest(self, labels: Floats, weights: Floats) -> tuple[NDArray[np.intp], Floats]:
        """For N people the `STARTS` candidates whose picture, shifted, scaled and turned, is most like the labels.

        Returns:
            which (N, S), and by how much each is to be turned in the picture (N, S), radians.
        """
        z = (labels[..., 0] + 1j * labels[..., 1]).astype(np.complex64)
        w = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
        z = z - (w * z).sum(1, keepdims=True)
        spread = (w * np.abs(z) ** 2).sum(1, keepdims=True)
        c = self.pictures.T
        mean = w @ c
        power = w @ (np.abs(c) ** 2) - np.abs(mean) ** 2
        match = (w * z) @ c.conj()  # the shift drops out: sum of w z is 0
        left = 1 - np.abs(match) ** 2 / (spread * np.maximum(power, 1e-9))
        turned = np.angle(match)
        cost = left + _LEANING * (1 - np.cos(turned))
        picked = np.argpartition(cost, STARTS, axis=1)[:, :STARTS]
        return picked, np.take_along_axis(turned, picked, 1)


def _fit(moving: Kinematics, candidates: _Candidates, labels: Floats, weights: Floats) -> tuple[Floats, ...]:
    """Angles, roots and errors of N people."""
    labels = _normalised(labels, weights)
    picked, turned = candidates.nearest(labels, weights)
    count, starts = picked.shape
    picked, turned = picked.ravel(), turned.ravel()
    wanted = _tensor(labels).repeat_interleave(starts, 0)
    counts = _tensor(weights).repeat_interleave(starts, 0)
    low, high = _tensor(anatomy.LOW), _tensor(anatomy.HIGH)
    within = (_tensor(candidates.angles[picked]) - low) / (high - low)
    begun = torch.logit(within.clamp(0.02, 0.98))
    in_picture = Rotation.from_rotvec(np.outer(turned, (0, 1, 0))).as_matrix()
    root = _tensor(in_picture @ candidates.roots[picked])
    with torch.no_grad():
        first = _seen(moving.keypoints(_tensor(candidates.angles[picked]), root))
        scale, shift = _placed(first, wanted, counts)
    free = begun.clone().requires_grad_()
    further = torch.zeros(len(picked), 3, requires_grad=True)
    scale, shift = scale.log().requires_grad_(), shift.requires_grad_()
    steps = torch.optim.Adam(
        [
            {"params": [free], "lr": 0.08},
            {"params": [further], "lr": 0.03},
            {"params": [scale, shift], "lr": 0.01},
        ]
    )
    held = (high - low) / _HELD_DEG
    for _ in range(STEPS):
        steps.zero_grad()
        share = torch.sigmoid(free)
        cost = _cost(
            _picture(moving, low + (high - low) * share, further, root, scale, shift), wanted, counts
        )
        cost = cost + _HELD * ((share - torch.sigmoid(begun)) * held).square().sum(1)
        cost = cost + _HELD * (further.rad2deg() / _HELD_DEG).square().sum(1)
        cost.sum().backward()
        steps.step()
    with torch.no_grad():
        angles = low + (high - low) * torch.sigmoid(free)
        angles = _tensor(anatomy.within(angles.double().numpy()))
        found = _picture(moving, angles, further, root, scale, shift)
        best = _cost(found, wanted, counts).reshape(count, starts).argmin(1) + torch.arange(count) * starts
        distance = (found - wanted).norm(dim=-1)
        errors = ((distance * counts).sum(1) / counts.sum(1))[best]
        roots = (kinematics.rotations(further) @ root)[best]
    return angles[best].double().numpy(), Rotation.from_matrix(roots.numpy()).as_rotvec(), errors.numpy()


def _normalised(labels: Floats, weights: Floats) -> Floats:
    """Labels about their middle, in sizes of the person: the longer side of the box of its labels."""
    known = np.where(weights[..., None] > 0, labels, np.nan)
    low, high = np.nanmin(known, axis=1), np.nanmax(known, axis=1)
    size = np.maximum((high - low).max(1), 1e-6)[:, None, None]
    return np.where(weights[..., None] > 0, (labels - ((low + high) / 2)[:, None]) / size, 0.0)


def _seen(points: Tensor) -> Tensor:
    """(N, K, 3) in the world to (N, K, 2) in a picture: x to the right, y down."""
    return torch.stack([points[..., 0], -points[..., 2]], -1)


def _placed(seen: Tensor, wanted: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (N, 1, 1) and shift (N, 1, 2) that bring pictures nearest to the labels."""
    share = (counts / counts.sum(1, keepdim=True))[..., None]
    of_seen, of_wanted = (share * seen).sum(1, keepdim=True), (share * wanted).sum(1, keepdim=True)
    seen, wanted = seen - of_seen, wanted - of_wanted
    scale = (share * seen * wanted).sum((1, 2), keepdim=True) / (share * seen.square()).sum(
        (1, 2), keepdim=True
    )
    scale = scale.clamp(0.1, 3.0)
    return scale, of_wanted - scale * of_seen


def _picture(
    moving: Kinematics, angles: Tensor, further: Tensor, root: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    seen = _seen(moving.keypoints(angles, kinematics.rotations(further) @ root))
    return scale.exp() * seen + shift


def _cost(found: Tensor, wanted: Tensor, counts: Tensor) -> Tensor:
    """(N,) of all labels."""
    square = (found - wanted).square().sum(-1)
    return (counts * square / (square + FAR**2)).sum(1)


def _tensor(array: Floats) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)
