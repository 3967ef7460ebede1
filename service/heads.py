"""What a net says beside keypoints: whether anybody is there, which class it is, how far away each keypoint is.

Axes: N crops, K keypoints, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.errors import HeatmapError
from model_zoo.manifest import BundleManifest
from model_zoo.outputs import (
    ClassesOutput,
    DepthOutput,
    HeatmapOutput,
    KeypointsOutput,
    Output,
    PresenceOutput,
)
from service.errors import InvalidRequest
from service.types import Classified, Floats, Heads

MIN_PRESENCE = 0.5
"""Least probability of presence of a request that names none, unless the service is told otherwise."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a call of a net with further outputs gives; to be cut like the array that others give."""

    main: Floats
    """(N, K, H, W) heatmaps or (N, K, 3) keypoints."""
    more: tuple[Floats, ...]
    """One array of N per output of `outputs`, in that order."""

    def __len__(self) -> int:
        return len(self.main)

    def __getitem__(self, rows: slice | Sequence[int]) -> Answers:
        return Answers(self.main[rows], tuple(each[rows] for each in self.more))


def outputs(manifest: BundleManifest) -> tuple[Output, ...]:
    """What a model answers beside heatmaps and keypoints."""
    return tuple(each for each in manifest.outputs if not isinstance(each, HeatmapOutput | KeypointsOutput))


def checked(min_presence: float | None) -> float | None:
    """What a request asks for. Raises InvalidRequest where it is no probability."""
    if min_presence is not None and not 0 <= min_presence <= 1:  # NaN is none either
        raise InvalidRequest("min_presence must lie between 0 and 1", field="min_presence")
    return min_presence


def read(
    wanted: Sequence[Output], more: Sequence[Floats], crop_maps: ArrayLike, least: Sequence[float]
) -> list[Heads]:
    """What further outputs say of N crops.

    Args:
        wanted: as of `outputs`.
        more: one array of N each.
        crop_maps: (N, 2, 3) from pixels of the frame to pixels of the crop.
        least: N probabilities from which on somebody is there.

    Raises:
        HeatmapError: the net gave numbers that are not finite.
    """
    presence: list[float] | None = None
    depth: Floats | None = None
    classes: list[list[Classified]] = [[] for _ in np.asarray(crop_maps)]
    for output, values in zip(wanted, more, strict=True):
        if not np.isfinite(values).all():
            raise HeatmapError(f"output {output.name!r} of the net has numbers that are not finite")
        if isinstance(output, PresenceOutput):
            presence = _probabilities(values).tolist()
        elif isinstance(output, ClassesOutput):
            chosen = values.argmax(axis=1).tolist()
            for row, (its, index) in enumerate(zip(_probabilities(values), chosen, strict=True)):
                classes[row].append(Classified(output.of, output.labels, its, index))
        elif isinstance(output, DepthOutput):
            maps = np.asarray(crop_maps, np.float64)[:, :, :2]
            scale = np.sqrt(np.abs(np.linalg.det(maps)))  # crop pixels per pixel of the frame
            depth = np.round(values.astype(np.float64) * (output.scale / scale[:, None]), 3)
    return [
        Heads(
            presence=None if presence is None else presence[row],
            present=presence is None or presence[row] >= enough,
            least=enough,
            classes=tuple(its),
            depth=None if depth is None else depth[row],
        )
        for row, (its, enough) in enumerate(zip(classes, least, strict=True))
    ]


def _probabilities(values: Floats) -> Floats:
    return np.round(np.clip(values.astype(np.float64), 0.0, 1.0), 4)
