"""Scores of keypoints as probabilities: the affine map of log-odds in a manifest's calibration, and its inverse.

A graph that answers keypoints applies the map by itself. Who reads its heatmaps applies it to what the decoder says, so
that both say the same. The map only rises: who was surer stays so.

Rules about scores, at which a joint is sure enough to be drawn, followed or trusted, were made for the uncalibrated
scores of one body model. `for_rules` leads probabilities to that scale, so that the same rules hold for all calibrated
models: where a joint is as likely to be right, it counts as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # who only draws needs no manifest
    from model_zoo.manifest import Calibration

Floats = NDArray[np.floating[Any]]

SURE_SCORE = 0.3
"""A joint with at least this score on the scale of rules is taken to be there: it places boxes, tells people apart."""
SURE_JOINTS = 3
"""Fewer sure joints say too little of where a person is."""
SMALLEST = 2.0**-20
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken; float32 knows both bounds exactly."""
_RULES_SCALE, _RULES_SHIFT = 1.178, 1.099
"""Calibration of body19-small@1, whose scores the rules were made for: a score of 0.3 is right 53 times in 100.
`reppose-train calibrate body19-small@1 --data DATA --on body/lspet_val.json --on body/lsp_val.json --out OUT`"""


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


def for_rules(scores: ArrayLike, by: Calibration | None) -> Floats:
    """Scores of a model, of any shape, on the scale that rules about them are on; as they are without calibration."""
    return np.asarray(scores) if by is None else sigmoid((odds(scores) - _RULES_SHIFT) / _RULES_SCALE)


def of_rules(scores: ArrayLike, by: Calibration | None) -> Floats:
    """The inverse of `for_rules`, within what rounding and `SMALLEST` leave of it."""
    return np.asarray(scores) if by is None else sigmoid(_RULES_SCALE * odds(scores) + _RULES_SHIFT)
