"""Pictures of runs: curves of what was measured, and sheets of what a net sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_zoo import geometry
from model_zoo.skeletons import Skeleton

Row = Mapping[str, float]

NOT_CURVES = ("epoch", "height", "seconds")
"""Columns that say nothing as a curve."""
COLUMNS = 4
"""Crops or curves side by side."""
LIMB, LEFT, RIGHT = (230, 230, 230), (255, 160, 30), (60, 150, 255)
"""RGB of bones, and of keypoints of either side."""

matplotlib.use("Agg")


def curves(runs: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw every column of the tables over the epochs, several runs over each other.

    Args:
        runs: rows of `metrics.csv` by name.
        path: PNG that is written.
    """
    names = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row))
    names = [name for name in names if name not in NOT_CURVES]
    width = min(COLUMNS, max(len(names), 1))
    height = math.ceil(len(names) / width)
    figure = Figure(figsize=(4 * width, 2.8 * max(height, 1)), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(height, width, index + 1)
        for label, rows in runs.items():
            known = [(row["epoch"], row[name]) for row in rows if name in row]
            if known:
                axes.plot(*zip(*known, strict=True), label=label, marker="." if len(known) < 30 else None)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if len(runs) > 1 and index == 0:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def in_crops(points: NDArray[np.floating[Any]], matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K, 2) points of pictures as points of their crops."""
    return geometry.apply(matrices, np.asarray(points, np.float64))


def sheet(
    crops: NDArray[np.uint8],
    points: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    skeleton: Skeleton,
    path: Path,
) -> None:
    """Draw poses onto their crops, side by side.

    Args:
        crops: (N, h, w, 3) RGB.
        points: (N, K, 2) in pixels of the crops.
        scores: (N, K); what is less sure is drawn fainter.
        skeleton: of the points.
        path: PNG that is written.
    """
    rows, (height, width) = math.ceil(len(crops) / COLUMNS), crops.shape[1:3]
    canvas = np.zeros((rows * height, COLUMNS * width, 3), np.uint8)
    for index, crop in enumerate(crops):
        row, column = divmod(index, COLUMNS)
        tile = canvas[row * height : (row + 1) * height, column * width : (column + 1) * width]
        tile[:] = _posed(crop, points[index], np.clip(scores[index], 0.2, 1.0), skeleton)
    cv2.imwrite(str(path), cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))


def _posed(
    crop: NDArray[np.uint8],
    points: NDArray[np.floating[Any]],
    strength: NDArray[np.floating[Any]],
    skeleton: Skeleton,
) -> NDArray[np.uint8]:
    """A copy of the crop with one pose; coordinates in sixteenths of a pixel."""
    drawn = crop.copy()
    limit = 4 * max(crop.shape)
    at = [tuple(int(v) for v in row) for row in (np.clip(points, -limit, limit) * 16).round()]
    for parent, child in skeleton.bones:
        _blend(drawn, min(strength[parent], strength[child]), cv2.line, at[parent], at[child], LIMB, 1)
    for index, place in enumerate(at):
        colour = RIGHT if skeleton.keypoints[index].startswith("right") else LEFT
        _blend(drawn, strength[index], cv2.circle, place, 2 * 16, colour, -1)
    return drawn


def _blend(picture: NDArray[np.uint8], strength: float, draw: Any, *shape: Any) -> None:
    marked = draw(picture.copy(), *shape, cv2.LINE_AA, 4)
    cv2.addWeighted(marked, float(strength), picture, 1 - float(strength), 0, dst=picture)
