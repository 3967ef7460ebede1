"""Scores of keypoints as probabilities: the affine map of log-odds in a manifest's calibration, and its inverse.

A graph that answers keypoints applies the map by itself. Who reads its heatmaps applies it to what the decoder says, so
that both say the same. The map only rises: who was surer stays so.

`raw` leads back to the scale that the net was trained on, and that rules about scores were made for: at which score a
joint is sure enough to be drawn, followed or trusted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.manifest import Calibration

Floats = NDArray[np.floating[Any]]

SMALLEST = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""


def odds(probabilities: ArrayLike) -> Floats:
    """Log-odds, float64, of any shape."""
    p = np.clip(np.asarray(probabilities, np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(p) - np.log1p(-p)


def sigmoid(x: ArrayLike) -> Floats:
    """Probabilities, float64, of log-odds of any shape; without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))


def calibrated(scores: ArrayLike, by: Calibration | None) -> Floats:
    """Probabilities of a net's own scores, of any shape; the scores themselves where there is no calibration."""
    return np.asarray(scores) if by is None else sigmoid(by.scale * odds(scores) + by.shift)


def raw(probabilities: ArrayLike, by: Calibration | None) -> Floats:
    """The inverse of `calibrated`, within what rounding and `SMALLEST` leave of it."""
    return np.asarray(probabilities) if by is None else sigmoid((odds(probabilities) - by.shift) / by.scale)
