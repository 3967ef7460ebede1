"""Which sets models of bodies and of hands are compared on, by which figures, and with which peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo import skeletons
from model_zoo.skeletons import Skeleton
from trainer import metrics, peers
from trainer.data.people import Person

Floats = NDArray[np.floating[Any]]
Figures = tuple[dict[str, float], dict[str, float]]
"""By name, and the PCK of each joint."""
_PEERS = Path(peers.__file__).parent


@dataclass(frozen=True)
class Family:
    """Models of one skeleton."""

    skeleton: Skeleton
    title: str
    sets: tuple[Path, ...]
    """Where the figures come from; paths below the data root."""
    about: tuple[str, ...]
    """Lines of Markdown: what the figures mean."""
    figures: Callable[[list[Person], Floats, Floats, Skeleton], Figures]
    """Of people, their points (N, K, 2) in pixels of the pictures, and scores (N, K)."""
    charted: tuple[str, ...]
    """How the names of figures end that are drawn over latency."""
    peer: Path
    """Program that runs somebody else's net."""
    peer_size: tuple[int, int]
    """Height and width of the crops that a peer is shown."""
    peer_padding: float


def of_bodies(people: list[Person], points: Floats, scores: Floats, skeleton: Skeleton) -> Figures:
    """PCK@0.2, and OKS-AP where faces are labelled; else PCK of upright and tilted people apart."""
    score = metrics.pck(people, points, skeleton)
    found = {"PCK": score.value}
    if any(person.visible[skeleton.index("nose")] for person in people):
        found["AP"] = metrics.oks_ap(people, points, scores, skeleton).value
        return found, score.per_keypoint
    standing = np.array([upright(person, skeleton) for person in people], object)
    for words, wanted in (("upright", True), ("tilted", False)):
        rows = np.flatnonzero(standing == wanted)
        rows = rows[metrics.lengths([people[row] for row in rows], skeleton, metrics.DIAGONALS) > 0]
        if len(rows):
            found[words] = metrics.pck([people[row] for row in rows], points[rows], skeleton).value
    return found, score.per_keypoint


def upright(person: Person, skeleton: Skeleton) -> bool | None:
    """Whether the shoulders are above the hips within 45 degrees; None where the trunk is not labelled."""
    ends = []
    for part in ("shoulder", "hip"):
        rows = [skeleton.index(f"{side}_{part}") for side in ("left", "right")]
        rows = [row for row in rows if person.visible[row]]
        if not rows:
            return None
        ends.append(person.points[rows].mean(axis=0))
    across, up = ends[0] - ends[1]
    return bool(-up >= abs(across))


def of_hands(people: list[Person], points: Floats, scores: Floats, skeleton: Skeleton) -> Figures:
    """How many hands were found at all, the mean error of those, and PCK@0.1 of all."""
    score = metrics.pck_box(people, points, skeleton)
    labelled = np.array([person.visible.any() for person in people])
    rows = np.flatnonzero(labelled & (scores.max(axis=1) > 0))
    found = {"found": 100 * len(rows) / int(labelled.sum()), "PCK": score.value}
    if len(rows):
        found["error"] = metrics.mean_error([people[row] for row in rows], points[rows], skeleton).value
    return found, score.per_keypoint


FAMILIES = {
    "body": Family(
        skeletons.BODY19,
        "Benchmarks",
        (Path("body/lsp_test.json"), Path("body/lspet_val.json"), Path("body/coco17_test.json")),
        (
            "People in the box that was labelled, each net with the context and the decoder that are its own. PCK is",
            "PCK@0.2 of the torso over the twelve limb joints, AP is OKS-AP; upright are people whose shoulders are",
            "above their hips within 45 degrees.",
        ),
        of_bodies,
        (" PCK", " AP"),
        _PEERS / "mediapipe_pose.py",
        (384, 288),
        1.25,
    ),
    "hand": Family(
        skeletons.HAND21,
        "Benchmarks of hands",
        (Path("hands/digits_test.json"), Path("hands/presence_test.json"), Path("hands/handgt_test.json")),
        (
            "Hands in the box that was labelled, each net with the context and the decoder that are its own. PCK is",
            "PCK@0.1 of the long side of that box over all keypoints, a hand that was not found being wrong in all of",
            "them; error is the mean distance in per cent of that side, of the hands that were found. Keypoints of",
            "`digits_test` were made by MediaPipe Hands itself: there its error says nothing, and that of others how",
            "near they come to it. Those of `handgt_test` were made by people, and are 16.",
        ),
        of_hands,
        (" PCK", " error"),
        _PEERS / "mediapipe_hands.py",
        (384, 384),
        2.0,
    ),
}  # fmt: skip
"""By what the models are of."""
