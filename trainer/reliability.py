"""Probabilities that come true as often as they say: temperatures and Platt's affine map, and how far off it is.

A net is trained until it is sure, and is surer than it is right. One number that divides the logits of several classes,
or two that move and stretch log-odds, take that back and change no order: who was likelier stays so.

Fits minimise the cross-entropy. Few cases that a net gets all right would be fitted best by certainty, so labels are
drawn a little towards the middle, as if there were one case more of each kind. Sources: Platt 1999 (the affine map and
the smoothing of labels), Guo et al., ICML 2017, arXiv:1706.04599 (temperature of a net, expected calibration error in
equal bins).

Axes: N cases, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo.scores import sigmoid
from trainer.errors import DataError

Floats = NDArray[np.floating[Any]]

BINS = 15
"""Of the expected calibration error, unless told otherwise."""
SCALES = (0.02, 50.0)
"""Least and largest factor of logits; a net that needs more says nothing, or everything."""
LEAST_CASES = 20
"""Fewer say too little to fit a curve to."""
_STEPS = 60


@dataclass(frozen=True)
class Affine:
    """What becomes of logits: scale x + shift."""

    scale: float = 1.0
    """1 / temperature; positive, so that the order stays."""
    shift: float = 0.0
    """0 for several classes, whose softmax does not feel it."""

    def __call__(self, logits: Floats) -> Floats:
        """The same shape."""
        return self.scale * np.asarray(logits, np.float64) + self.shift


@dataclass(frozen=True)
class Bin:
    """A part of the probabilities from 0 to 1."""

    count: int
    probability: float
    """Mean."""
    frequency: float
    """How often it came true."""


@dataclass(frozen=True)
class Fit:
    """What calibration did."""

    affine: Affine
    count: int
    """Cases that it was fitted to."""
    bins: int
    """Equal parts of 0 to 1 that the errors are means over."""
    error_before: float
    """Expected calibration error of the probabilities as they were."""
    error: float
    """With the map; that of each half of the cases was fitted on the other half, so that it is no self-praise."""
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]


def softmax(x: Floats) -> Floats:
    """Over the last axis."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def affine(logits: Floats, true: NDArray[np.bool_]) -> Affine:
    """The map of (N,) log-odds that fits (N,) outcomes best.

    Raises:
        DataError: fewer than `LEAST_CASES`, or all alike.
    """
    x, y = np.asarray(logits, np.float64), np.asarray(true, bool)
    yes, no = int(y.sum()), int((~y).sum())
    if len(y) < LEAST_CASES or not yes or not no:
        raise DataError(f"{yes} cases that came true and {no} that did not are too few to calibrate on")
    target = np.where(y, (yes + 1) / (yes + 2), 1 / (no + 2))
    spread = max(float(x.std()), 1e-6)
    z = (x - x.mean()) / spread
    slope, intercept = _newton(z, target)
    scale = slope / spread
    if not SCALES[0] <= scale <= SCALES[1]:
        scale = min(max(scale, SCALES[0]), SCALES[1])
        _, intercept = _newton(z, target, slope=scale * spread)
    return Affine(float(scale), float(intercept - scale * x.mean()))


def temperature(logits: Floats, labels: NDArray[np.integer[Any]]) -> Affine:
    """The factor of (N, C) logits that fits (N,) classes best.

    Raises:
        DataError: fewer than `LEAST_CASES`.
    """
    z, count = np.asarray(logits, np.float64), len(labels)
    if count < LEAST_CASES:
        raise DataError(f"{count} cases are too few to calibrate on")
    target = np.full_like(z, 1 / ((count + 1) * z.shape[1]))
    target[np.arange(count), labels] += count / (count + 1)

    def slope(scale: float) -> float:
        """Of the cross-entropy; rises with the scale, for the cross-entropy is convex in it."""
        return float(((softmax(scale * z) - target) * z).sum())

    low, high = (np.log(bound) for bound in SCALES)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return Affine(float(np.exp((low + high) / 2)))


def reliability(probabilities: Floats, true: NDArray[np.bool_], bins: int = BINS) -> tuple[Bin, ...]:
    """How often (N,) probabilities came true, for each of as many equal parts of 0 to 1 in which there are any."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(true, bool)
    place = np.minimum((p * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    said, came = (np.bincount(place, weights, minlength=bins) for weights in (p, y.astype(float)))
    return tuple(
        Bin(int(n), float(s / n), float(c / n)) for n, s, c in zip(counts, said, came, strict=True) if n
    )


def expected_error(bins: tuple[Bin, ...]) -> float:
    """Mean distance of probability and frequency, weighted by the cases."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.probability - each.frequency) for each in bins) / total


def events(
    logits: Floats,
    true: NDArray[np.bool_],
    *,
    whose: NDArray[np.integer[Any]] | None = None,
    bins: int = BINS,
) -> Fit:
    """Calibrate (N,) log-odds of something that came true or not: presence, a keypoint that is where it is said to be.

    Args:
        logits: log-odds.
        true: what came of them.
        whose: (N,) numbers of whom the cases are of, as one person's keypoints are right or wrong together; none is on
            both sides when the error is estimated. Each case by itself unless given.
        bins: equal parts of 0 to 1.

    Raises:
        DataError: as `affine`.
    """
    return _fit(logits, np.asarray(true, bool), affine, lambda x, y: (sigmoid(x), y), bins, whose)


def classes(logits: Floats, labels: NDArray[np.integer[Any]], *, bins: int = BINS) -> Fit:
    """Calibrate (N, C) logits of N cases that are of one class each; what counts is the likeliest class.

    Raises:
        DataError: as `temperature`.
    """

    def likeliest(x: Floats, y: NDArray[np.integer[Any]]) -> tuple[Floats, NDArray[np.bool_]]:
        return softmax(x).max(axis=-1), x.argmax(axis=-1) == y

    return _fit(logits, labels, temperature, likeliest, bins)


def _fit(
    logits: Floats,
    labels: NDArray[Any],
    fitted: Callable[[Floats, NDArray[Any]], Affine],
    judged: Callable[[Floats, NDArray[Any]], tuple[Floats, NDArray[np.bool_]]],
    bins: int,
    whose: NDArray[np.integer[Any]] | None = None,
) -> Fit:
    logits = np.asarray(logits, np.float64)
    whole = fitted(logits, labels)
    halves = (np.arange(len(labels)) if whose is None else np.asarray(whose)) % 2 == 0
    held_out = np.empty_like(logits)
    for half in (halves, ~halves):
        try:
            held_out[half] = fitted(logits[~half], labels[~half])(logits[half])
        except DataError:  # too few for two halves
            held_out[half] = whole(logits[half])
    before, after = (reliability(*judged(x, labels), bins) for x in (logits, held_out))
    return Fit(whole, len(labels), bins, expected_error(before), expected_error(after), before, after)


def _newton(z: Floats, target: Floats, slope: float | None = None) -> tuple[float, float]:
    """Slope and intercept of logistic regression, whose loss is convex; a given slope stays as it is."""
    a, b = (1.0, 0.0) if slope is None else (slope, 0.0)
    loss = _cross_entropy(a * z + b, target)
    for _ in range(_STEPS):
        p = sigmoid(a * z + b)
        wrong, weight = p - target, np.maximum(p * (1 - p), 1e-12)
        if slope is None:
            gradient = np.array([(wrong * z).sum(), wrong.sum()])
            cross = (weight * z).sum()
            hessian = np.array([[(weight * z * z).sum() + 1e-9, cross], [cross, weight.sum() + 1e-9]])
            step = np.linalg.solve(hessian, gradient)
        else:
            step = np.array([0.0, wrong.sum() / (weight.sum() + 1e-9)])
        for _ in range(_STEPS):  # a full step may leap over the minimum where nearly everything is certain
            tried = _cross_entropy((a - step[0]) * z + b - step[1], target)
            if tried <= loss:
                break
            step = step / 2
        else:
            break
        (a, b), found = (a - step[0], b - step[1]), tried
        if loss - found < 1e-12 * (1 + abs(loss)):
            break
        loss = found
    return float(a), float(b)


def _cross_entropy(x: Floats, target: Floats) -> float:
    return float((np.logaddexp(0, x) - target * x).sum())
