"""Second opinions on a set's labels, from a file made by other networks.

`{"info": {...}, "annotations": [...]}`, one entry per annotation of the set, joined by `id`:
`face` [x, y, v] * 5 and `score` add face joints that the set lacks; `limb_suspect` names joints whose label is
probably wrong; `limb_swap` with `swap_pairs` says which left/right pairs to exchange; `limb_fill` places joints
without a label. Nothing here ever marks a joint as absent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model_zoo.errors import SkeletonError
from model_zoo.skeletons import Skeleton
from trainer.data.people import MALFORMED, Person, load_json
from trainer.errors import DataError

FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
FILL_WEIGHT = 0.5
"""Loss weight of a filled-in joint: both networks are confident, but the joint is hidden."""
FULL_SCORE = 0.6
"""Score from which a face joint counts as much as a human label; below, in proportion."""


def apply(people: list[Person], path: Path, skeleton: Skeleton) -> list[Person]:
    """Merge the file's opinions into the labels; people it does not mention stay as they are.

    Order: repair swaps, then silence the joints that stay suspect, then fill gaps, then add the face.

    Raises:
        DataError: the file is unreadable or an entry is malformed.
    """
    try:
        opinions = {entry["id"]: entry for entry in load_json(path)["annotations"]}
        return [
            _merge(person, opinions[person.id], skeleton) if person.id in opinions else person
            for person in people
        ]
    except (*MALFORMED, SkeletonError) as error:
        raise DataError(f"{path}: malformed entry ({type(error).__name__}: {error})") from error


def _merge(person: Person, opinion: dict[str, Any], skeleton: Skeleton) -> Person:
    points, visible, weight = person.points.copy(), person.visible.copy(), person.weight.copy()
    repaired: set[str] = set()
    if opinion["limb_swap"]:
        for part in opinion["swap_pairs"]:
            names = f"left_{part}", f"right_{part}"
            pair = [skeleton.index(name) for name in names]
            for labels in (points, visible, weight):
                labels[pair] = labels[pair[::-1]]
            repaired.update(names)
    for name in set(opinion["limb_suspect"]) - repaired:
        weight[skeleton.index(name)] = 0
    for name, (x, y, _) in opinion["limb_fill"].items():
        index = skeleton.index(name)
        if visible[index] == 0:
            points[index], visible[index], weight[index] = (x, y), 1, FILL_WEIGHT
    face = np.array(opinion["face"], np.float64).reshape(-1, 3)
    for name, (x, y, seen), score in zip(FACE, face, opinion["score"], strict=True):
        index = skeleton.index(name)
        if seen and visible[index] == 0:
            points[index], visible[index], weight[index] = (x, y), 1, np.minimum(1.0, score / FULL_SCORE)
    if not (np.isfinite(points).all() and np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError(f"opinion {opinion['id']}: points must be finite, scores finite and not negative")
    return person.with_labels(points, visible, weight)
