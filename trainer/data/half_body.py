"""Half-body augmentation: now and then the box is drawn around the upper or the lower body alone.

A net then also meets people that are cut off by the picture or hidden behind a table. Keypoints of the other half keep
their labels; those that fall outside the smaller crop lose their weight there, as always. Parameters are drawn like
those of `augment`: the boxes that come out are what `augment.draw` takes.

Source: the code of Sun et al., CVPR 2019, arXiv:1902.09212 (HRNet). Differs from it: the crop's centre is the middle of
the half's box, not the mean of its keypoints.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from model_zoo.skeletons import Skeleton
from trainer.errors import DataError

Share = Annotated[float, Field(ge=0, le=1)]
LOWER = ("hip", "knee", "ankle", "heel", "toe", "foot")
"""A keypoint whose name holds one of these belongs to the lower body."""
SMALLEST = 0.1
"""Least side of a half's box, in sides of the person's box: a row of joints is no box."""


class HalfBody(BaseModel):
    """How often, and for whom, only half a body is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    probability: Share = 0.3
    """Share of the people with enough labelled keypoints."""
    upper: Share = 0.5
    """How often it is the upper half, where both would do."""
    keypoints_at_least: PositiveInt = 9
    """People with fewer labelled keypoints are always shown whole."""
    half_at_least: PositiveInt = 3
    """A half with fewer labelled keypoints is never shown alone."""
    margin: Annotated[float, Field(ge=1)] = 1.5
    """Size of the box in extents of the half's keypoints."""


def upper_body(skeleton: Skeleton) -> NDArray[np.bool_]:
    """(K,) which keypoints are above the hips.

    Raises:
        DataError: the skeleton has no lower body, or nothing else.
    """
    upper = np.array([not any(part in name for part in LOWER) for name in skeleton.keypoints])
    if upper.all() or not upper.any():
        raise DataError(f"{skeleton.name} cannot be shown by halves: all its keypoints are in the same one")
    return upper


def draw(
    how: HalfBody,
    boxes: NDArray[np.float64],
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    upper: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Choose the boxes of B samples.

    Args:
        how: how often and for whom.
        boxes: (B, 4) person boxes.
        points: (B, K, 2) keypoints in the pixels of the boxes; anything where the weight is 0.
        weights: (B, K), 0 where there is no label.
        upper: (K,) from `upper_body`.
        rng: consumed in a fixed order.

    Returns:
        (B, 4): of a half where one was chosen, else as given.
    """
    chosen = rng.random(len(boxes)) < how.probability
    prefers_upper = rng.random(len(boxes)) < how.upper
    labelled = weights > 0
    enough = np.stack(
        [(labelled & half).sum(axis=1) >= how.half_at_least for half in (upper, ~upper)], axis=1
    )
    is_upper = np.where(enough.all(axis=1), prefers_upper, enough[:, 0])
    chosen &= enough.any(axis=1) & (labelled.sum(axis=1) >= how.keypoints_at_least)
    counted = (labelled & (upper == is_upper[:, None]))[..., None]
    low = np.where(counted, points, np.inf).min(axis=1)
    high = np.where(counted, points, -np.inf).max(axis=1)
    low, high = (np.where(chosen[:, None], each, 0.0) for each in (low, high))
    extent = np.maximum((high - low) * how.margin, SMALLEST * boxes[:, 2:])
    halves = np.concatenate([(low + high - extent) / 2, extent], axis=1)
    return np.where(chosen[:, None], halves, boxes)
