"""Calm the points of one person in a video: when to trust a joint, when to hold it, and when to start afresh.

A pure function, `smooth`: the state before, a time and the points go in, calmer points and the state after come out.
Time is the moment the frame was taken, in seconds on any clock that only moves forward; intervals between frames are
free.

- A joint counts by its score: below `Rules.hold_below` it stays where it was, from `trust_from` on it counts in full.
- A held joint keeps its last sure score for `hold_s`, loses it over `fade_s`, and is then forgotten: what the model
  says of it passes as it is until it is sure again.
- After a gap of more than `gap_s`, or where half of the sure joints leap further than anybody moves (a cut, or another
  person), everything is forgotten.

The state is rounded to float32 at every step, so that writing it down loses nothing: who continues from a copy gets bit
by bit what they would have got.

Axes: K keypoints; points (K, 2) in pixels of the frame, scores (K,) 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from service.streams.smoothers import Smoother, as_complex
from service.types import Floats

MIN_STEP_S = 1e-4
"""Frames that are closer together count as this far apart: a speed must stay a number."""
FORGOTTEN = -1.0
"""The age of a joint that nothing is remembered of."""


class Reset(StrEnum):
    """Why the past was forgotten."""

    GAP = "gap"
    """Too long without a frame of this person."""
    JUMP = "jump"
    """A cut, or another person."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When to trust, to hold and to forget. Lengths are shares of the person's length."""

    hold_below: float = 0.15
    """A joint with a score below this is held."""
    trust_from: float = 0.35
    """A joint with at least this score counts in full; between the two it counts in part."""
    hold_s: float = 0.2
    """How long a held joint keeps its score."""
    fade_s: float = 0.3
    """How long its score takes to fade after that."""
    gap_s: float = 0.5
    """A longer pause between two frames is a new beginning."""
    jump: float = 0.25
    """A median leap of the sure joints beyond this, and beyond what `speed` allows, is a new beginning."""
    speed: float = 3.0
    """Lengths a second that a person may move."""
    size_s: float = 0.3
    """Time constant of the person's length."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothState:
    """What is remembered of one person. All arrays are float32 and finite."""

    time_s: float
    """When the last frame was taken."""
    size: float
    """Length of the person in pixels; 0 while no joint was ever sure. A float32 number."""
    memory: Floats
    """(R, K, 2) of the smoother."""
    raw: Floats
    """(K, 2) points of the last frame as the model gave them."""
    ages_s: Floats
    """(K,) seconds since a joint was last sure, FORGOTTEN where nothing is remembered."""
    scores: Floats
    """(K,) score of each joint when it was last sure."""


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """The answer to one frame."""

    points: Floats
    """(K, 2) float64."""
    scores: Floats
    """(K,) float64."""
    lag_s: float
    """By how much the moving joints are late, as the filter's gains say."""
    lag_frames: float
    """The same in intervals since the frame before; 0 in the first frame."""
    reset: Reset | None
    """Why the past was forgotten before this frame; None where it was not, or there was none."""


def smooth(
    smoother: Smoother,
    state: SmoothState | None,
    time_s: float,
    points: Floats,
    scores: Floats,
    rules: Rules = Rules(),
) -> tuple[Smoothed, SmoothState]:
    """Take in one frame of one person.

    Args:
        smoother: the filter; the same one for the whole life of a state.
        state: from the frame before, or None for a new person.
        time_s: when the frame was taken; above the state's.
        points: (K, 2), finite.
        scores: (K,) 0 to 1.
        rules: as above.

    Raises:
        ValueError: time does not move on.
    """
    points, scores = np.asarray(points, np.float64), np.asarray(scores, np.float64)
    weights = ((scores - rules.hold_below) / (rules.trust_from - rules.hold_below)).clip(0.0, 1.0)
    trusted, sure = weights > 0, weights >= 1
    reset = None
    if state is not None:
        if not time_s > state.time_s:
            raise ValueError(f"time must move on: {time_s} follows {state.time_s}")
        reset = _reset(state, time_s, points, sure, rules)
    if state is None or reset is not None:
        return _begin(smoother, time_s, points, scores, trusted, sure, reset)
    dt = max(time_s - state.time_s, MIN_STEP_S)
    size = _size(state.size, points.compress(sure, axis=0), dt, rules)
    memory = state.memory.astype(np.float64)
    unknown = state.ages_s == FORGOTTEN
    if np.count_nonzero(unknown):
        memory = np.where(unknown[:, None], smoother.begin(points), memory)
    step = smoother.step(points, memory, dt, weights, max(size, 1.0))
    if np.count_nonzero(trusted) == len(trusted):  # as in most frames
        smoothed, shown, sure_scores, ages = step.points, scores, scores, np.zeros(len(scores))
    else:
        sure_scores = np.where(trusted, scores, state.scores)
        ages = np.where(trusted, 0.0, np.where(unknown, FORGOTTEN, state.ages_s + dt))
        ages[ages > rules.hold_s + rules.fade_s] = FORGOTTEN
        left = (1 - (ages - rules.hold_s) / rules.fade_s).clip(0.0, 1.0)
        shown = np.where(ages > 0, np.maximum(scores, state.scores * left), scores)
        smoothed = np.where((ages == FORGOTTEN)[:, None], points, step.points)
    if (motion := step.motion) is None:
        moved = step.points - memory[0]
        motion = np.vecdot(moved, moved)
    lag_s = _mean_lag(step.lag_s, motion * sure)
    after = SmoothState(
        time_s,
        size,
        step.memory.astype(np.float32),
        points.astype(np.float32),
        ages.astype(np.float32),
        sure_scores.astype(np.float32),
    )
    return Smoothed(smoothed, shown, lag_s, lag_s / dt, None), after


def length_of(points: Floats) -> float:
    """About the length of a standing person with these (N, 2) joints, in their unit, whichever way it is turned.

    The spread of the joints about their centre, times that factor that gives a line of joints its own length.
    """
    if len(points) < 2:
        return 0.0
    away = as_complex(points)
    away = away - away.sum() / len(points)
    return math.sqrt(12 * np.vdot(away, away).real / len(points))


def _begin(smoother, time_s, points, scores, trusted, sure, reset) -> tuple[Smoothed, SmoothState]:
    state = SmoothState(
        time_s,
        float(np.float32(length_of(points[sure]))),
        smoother.begin(points).astype(np.float32),
        points.astype(np.float32),
        np.where(trusted, 0.0, FORGOTTEN).astype(np.float32),
        scores.astype(np.float32),
    )
    return Smoothed(points.copy(), scores.copy(), 0.0, 0.0, reset), state


def _reset(state: SmoothState, time_s: float, points: Floats, sure: Floats, rules: Rules) -> Reset | None:
    dt = time_s - state.time_s
    if dt > rules.gap_s:
        return Reset.GAP
    leaps = abs(as_complex(points) - as_complex(state.raw)).compress(sure & (state.ages_s == 0))
    if len(leaps) < 3 or state.size <= 0:
        return None
    leaps.sort()
    leap = float(leaps[len(leaps) // 2])  # np.median takes ten times as long for so few
    return Reset.JUMP if leap > (rules.jump + rules.speed * dt) * state.size else None


def _size(before: float, sure: Floats, dt: float, rules: Rules) -> float:
    now = length_of(sure)
    if now <= 0:
        return before
    if before <= 0:
        return float(np.float32(now))
    return float(np.float32(before + (now - before) * -math.expm1(-dt / rules.size_s)))


def _mean_lag(lag_s: Floats, moved: Floats) -> float:
    """Of all joints, by the square of how far each moved: it matters to nobody how late a joint is that rests."""
    total = float(np.add.reduce(moved))
    return float(lag_s.dot(moved)) / total if total > 0 else 0.0
