"""How good poses are: PCK, PCKh and COCO's OKS-AP. Values in per cent.

PCK@0.2 follows the protocol under which published light nets were compared on the same pictures: torso = mean of the
two diagonals right shoulder - left hip and left shoulder - right hip of the labels; where one is labelled it alone
counts, and people with neither are left out; per joint the share of labelled joints within 0.2 of the torso, then
the mean over the twelve limb joints.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import COCO17, Skeleton
from trainer.data.people import Person
from trainer.errors import DataError

LIMBS = tuple(
    f"{side}_{part}"
    for part in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
    for side in ("left", "right")
)
DIAGONALS = (("right_shoulder", "left_hip"), ("left_shoulder", "right_hip"))


@dataclass(frozen=True)
class Score:
    """One figure."""

    metric: str
    value: float
    """Per cent."""
    people: int
    """How many people counted."""
    per_keypoint: dict[str, float]
    """Per cent by name of keypoint or class; empty for AP."""
    better: Literal["more", "less"] = "more"
    """Which way is better."""


def lengths(
    people: list[Person], skeleton: Skeleton, segments: tuple[tuple[str, str], ...]
) -> NDArray[np.float64]:
    """(N,) mean length of those segments whose two ends are labelled, in pixels; NaN where none is."""
    found = np.full((len(people), len(segments)), np.nan)
    for column, names in enumerate(segments):
        a, b = (skeleton.index(name) for name in names)
        for row, person in enumerate(people):
            if person.visible[a] and person.visible[b]:
                found[row, column] = np.linalg.norm(person.points[a] - person.points[b])
    counts = np.isfinite(found).sum(axis=1)
    return np.where(counts > 0, np.nansum(found, axis=1) / np.maximum(counts, 1), np.nan)


def pck(
    people: list[Person], points: NDArray[np.floating[Any]], skeleton: Skeleton, threshold: float = 0.2
) -> Score:
    """PCK normalised by the torso, over the twelve limb joints.

    Args:
        people: N people with labels.
        points: (N, K, 2) predictions in pixels of their pictures.
        skeleton: of labels and predictions.
        threshold: in torso lengths.
    """
    sizes = lengths(people, skeleton, DIAGONALS)
    return _pck(people, points, skeleton, sizes, threshold, LIMBS, f"PCK@{threshold:g}")


def headline(people: list[Person], points: NDArray[np.floating[Any]], skeleton: Skeleton) -> Score:
    """What progress is followed by: PCK@0.2 of a body; of any other skeleton PCK@0.1 of the box. See `pck`."""
    if set(LIMBS) <= set(skeleton.keypoints):
        return pck(people, points, skeleton)
    return pck_box(people, points, skeleton)


def headline_name(skeleton: Skeleton) -> str:
    """What `headline` measures."""
    return "PCK@0.2" if set(LIMBS) <= set(skeleton.keypoints) else "PCK@0.1box"


def pck_box(
    people: list[Person], points: NDArray[np.floating[Any]], skeleton: Skeleton, threshold: float = 0.1
) -> Score:
    """PCK normalised by the long side of the labelled box, over all keypoints. See `pck`."""
    sizes = np.stack([person.box[2:] for person in people]).max(axis=1)
    return _pck(people, points, skeleton, sizes, threshold, skeleton.keypoints, f"PCK@{threshold:g}box")


def mean_error(people: list[Person], points: NDArray[np.floating[Any]], skeleton: Skeleton) -> Score:
    """Mean distance of all labelled keypoints, in per cent of the long side of the labelled box. See `pck`."""
    sizes = np.stack([person.box[2:] for person in people]).max(axis=1)
    truth = np.stack([person.points for person in people])
    labelled = np.stack([person.visible for person in people]) > 0
    off = 100 * np.linalg.norm(np.asarray(points, np.float64) - truth, axis=-1) / sizes[:, None]
    each = {
        name: float(off[labelled[:, index], index].mean())
        for index, name in enumerate(skeleton.keypoints)
        if labelled[:, index].any()
    }
    count = int(labelled.any(axis=1).sum())
    return Score("mean error of box", float(off[labelled].mean()), count, each, "less")


def pckh(
    people: list[Person], points: NDArray[np.floating[Any]], skeleton: Skeleton, threshold: float = 0.5
) -> Score:
    """PCK normalised by the head, the segment from neck to head_top, over limbs, neck and head_top. See `pck`."""
    sizes = lengths(people, skeleton, (("neck", "head_top"),))
    return _pck(
        people, points, skeleton, sizes, threshold, (*LIMBS, "neck", "head_top"), f"PCKh@{threshold:g}"
    )


def _pck(
    people: list[Person],
    points: NDArray[np.floating[Any]],
    skeleton: Skeleton,
    sizes: NDArray[np.float64],
    threshold: float,
    names: tuple[str, ...],
    metric: str,
) -> Score:
    counted = np.isfinite(sizes) & (np.nan_to_num(sizes) > 0)
    labelled = np.stack([person.visible for person in people]) > 0
    counted &= labelled.any(axis=1)
    if not counted.any():
        raise DataError(f"{metric}: nobody has the labels that it is normalised by")
    truth, labelled = np.stack([person.points for person in people])[counted], labelled[counted]
    distance = np.linalg.norm(np.asarray(points, np.float64)[counted] - truth, axis=-1) / sizes[counted, None]
    right = (distance <= threshold) & labelled
    rates = {
        name: 100 * right[:, index].sum() / labelled[:, index].sum()
        for name in names
        if labelled[:, index := skeleton.index(name)].any()
    }
    return Score(
        metric,
        float(np.mean(list(rates.values()))),
        int(counted.sum()),
        {k: float(v) for k, v in rates.items()},
    )


def oks_ap(
    people: list[Person],
    points: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    skeleton: Skeleton,
) -> Score:
    """COCO's average precision over OKS 0.50:0.05:0.95 on the 17 COCO keypoints, by the COCO evaluation itself.

    Args:
        people: N people, one prediction each.
        points: (N, K, 2) in pixels of their pictures.
        scores: (N, K); a person's score is their mean over the 17.
        skeleton: must hold COCO's 17 keypoints.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    order = [skeleton.index(name) for name in COCO17.keypoints]
    truth, found = [], []
    for row, person in enumerate(people):
        labels = np.concatenate([person.points[order], person.visible[order, None]], axis=1)
        common = {"image_id": row, "category_id": 1}
        truth.append(
            common
            | {"id": row + 1, "bbox": person.box.tolist(), "area": person.area, "iscrowd": 0}
            | {"keypoints": labels.ravel().tolist(), "num_keypoints": int((labels[:, 2] > 0).sum())}
        )
        answer = np.concatenate([points[row, order], scores[row, order, None]], axis=1)
        found.append(
            common | {"keypoints": answer.ravel().tolist(), "score": float(scores[row, order].mean())}
        )
    with contextlib.redirect_stdout(io.StringIO()):
        labels_set = COCO(
            {
                "images": [{"id": row} for row in range(len(people))],
                "annotations": truth,
                "categories": [
                    {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints), "skeleton": []}
                ],
            }
        )
        evaluation = COCOeval_faster(
            labels_set, labels_set.loadRes(found), "keypoints", kpt_oks_sigmas=list(COCO17.sigmas)
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    counted = sum(each["num_keypoints"] > 0 for each in truth)
    return Score("OKS-AP", 100 * float(evaluation.stats[0]), counted, {})


def presence_auc(people: list[Person], probabilities: NDArray[np.floating[Any]]) -> Score | None:
    """Area under the ROC curve: how often somebody who is there gets more than a crop of nobody, ties half.

    Args:
        people: N crops, with a presence or without.
        probabilities: (N,) that somebody is there; NaN is wrong, whoever is there.

    Returns:
        The figure; None where not both kinds are labelled.
    """
    known = np.array([person.presence is not None for person in people])
    there = np.array([person.presence == 1 for person in people])
    said = np.asarray(probabilities, np.float64)
    said = np.where(np.isnan(said), np.where(there, -np.inf, np.inf), said)
    some, none = (said[known & each] for each in (there, ~there))
    if not len(some) or not len(none):
        return None
    below = np.searchsorted(np.sort(none), some, side="left")
    ties = np.searchsorted(np.sort(none), some, side="right") - below
    area = (below + ties / 2).sum() / (len(some) * len(none))
    return Score("presence AUC", 100 * float(area), int(known.sum()), {})


def class_accuracy(
    people: list[Person], probabilities: NDArray[np.floating[Any]], of: str, labels: tuple[str, ...]
) -> Score | None:
    """How often the likeliest class is the labelled one, of those who are there.

    Args:
        people: N crops.
        probabilities: (N, C); a crop with a NaN is wrong.
        of: `gesture` or `handedness`, the label that is meant.
        labels: names of the C classes.

    Returns:
        The figure; None where nobody has such a label.
    """
    truth = [getattr(person, of, None) if person.presence != 0 else None for person in people]
    rows = [row for row, label in enumerate(truth) if label in labels]
    if not rows:
        return None
    said = [None if np.isnan(each).any() else labels[each.argmax()] for each in np.asarray(probabilities)]
    right = {label: [said[row] == label for row in rows if truth[row] == label] for label in labels}
    rates = {label: 100 * float(np.mean(each)) for label, each in right.items() if each}
    every = [each for label in labels for each in right[label]]
    return Score(f"{of} accuracy", 100 * float(np.mean(every)), len(rows), rates)


def depth_error(
    people: list[Person], depth: NDArray[np.floating[Any]], skeleton: Skeleton, root: str
) -> Score | None:
    """Mean error of z relative to the root, over the other keypoints, in per cent of the long side of the labelled box.

    Args:
        people: N crops.
        depth: (N, K) z relative to the root, in pixels of the pictures.
        skeleton: of both.
        root: keypoint that z is relative to.

    Returns:
        The figure; None where nobody has a depth and a root.
    """
    at = skeleton.index(root)
    errors = np.full((len(people), len(skeleton)), np.nan)
    for row, person in enumerate(people):
        if person.depth is not None:
            off = np.asarray(depth[row], np.float64) - (person.depth - person.depth[at])
            errors[row] = np.abs(off) / max(person.box[2:])
    errors[:, at] = np.nan
    known = np.isfinite(errors)
    if not known.any():
        return None
    each = {
        name: 100 * float(errors[known[:, index], index].mean())
        for index, name in enumerate(skeleton.keypoints)
        if known[:, index].any()
    }
    return Score("depth error", 100 * float(errors[known].mean()), int(known.any(axis=1).sum()), each, "less")
