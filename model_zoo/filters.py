"""Smooth the points of a video: exponential moving average and the 1€ filter.

Axes: K points, (K, 2) arrays or any other shape that stays the same from frame to frame; each coordinate is filtered on
its own. Time is handed in as the seconds since the previous frame; there is no clock here. Filter after points are
mapped to the image, else the jitter of the crop gets in, and call `reset` when a track is lost or changes its person.

`steps` turns timestamps into such seconds. The published implementation asks whether a timestamp is true, so it
takes 0.0 for "none" and falls back on the last rate in the frames at and after it. Here 0.0 is a time like any other:
a clip that starts at zero must not be filtered differently from the same clip a second later. `steps` repeats the
published behaviour on demand.

`Ema` and `OneEuro` are the published filters. Where frames are dropped or come late, an average is rather made with
gains that are exact for any interval (`gain`, `gain_over`): it forgets as much over one long interval as over two short
ones.

Sources: Casiez, Roussel and Vogel, CHI 2012 (1€ filter). Differs from the original: 0.0, as said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]


class Ema:
    """Exponential moving average: y = alpha x + (1 - alpha) y_before; the first points pass as they are.

    White noise keeps alpha / (2 - alpha) of its variance; a steady motion is followed (1 - alpha) / alpha frames late.

    Args:
        alpha: share of the new points, above 0 and up to 1; 1 leaves them as they are.
    """

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, got {alpha}")
        self.alpha = alpha
        self._last: Floats | None = None

    def reset(self) -> None:
        """Forget the past."""
        self._last = None

    def __call__(self, points: ArrayLike) -> Floats:
        """Filter one frame; float64, a new array."""
        self._last = blend(points, self._last, self.alpha)
        return self._last.copy()


class OneEuro:
    """1€ filter: an average that lets go the faster a coordinate moves, so that rest is still and motion not late.

    Args:
        min_cutoff: cutoff at rest in Hz; lower is calmer.
        beta: rise of the cutoff with speed, in Hz per unit of the points and second: it depends on that unit.
        derivative_cutoff: cutoff of the speed itself, in Hz.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 0.007, derivative_cutoff: float = 1.0) -> None:
        if not (min_cutoff > 0 and derivative_cutoff > 0 and beta >= 0):
            raise ValueError("cutoffs must be positive and beta not negative")
        self.min_cutoff, self.beta, self.derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self._points: Floats | None = None
        self._speed: Floats | None = None

    def reset(self) -> None:
        """Forget the past."""
        self._points = self._speed = None

    def __call__(self, points: ArrayLike, dt: float) -> Floats:
        """Filter one frame.

        Args:
            points: any shape.
            dt: seconds since the previous frame, above 0; without meaning in the first one, which passes as it is.

        Returns:
            Points like those given; float64, a new array.
        """
        if not dt > 0:
            raise ValueError(f"dt must be positive, got {dt}")
        points = np.asarray(points, np.float64)
        before = points if self._points is None else self._points
        self._speed = blend((points - before) / dt, self._speed, share(self.derivative_cutoff, dt))
        cutoff = self.min_cutoff + self.beta * np.abs(self._speed)
        self._points = blend(points, self._points, share(cutoff, dt))
        return self._points.copy()


def gain(cutoff_hz: Floats | float, dt: Floats | float) -> Floats:
    """Like `share`, and exact: over two intervals as much is let go as over their sum. Each is an array or a number."""
    return -np.expm1(-2 * math.pi * cutoff_hz * dt)


def gain_over(alpha: float, rate_hz: float, dt: ArrayLike) -> Floats:
    """The alpha for an interval of `dt` seconds of an average that has `alpha` at `rate_hz` frames a second."""
    return 1 - (1 - np.float64(alpha)) ** (np.asarray(dt, np.float64) * rate_hz)


def share(cutoff_hz: ArrayLike, dt: float) -> Floats:
    """The alpha by which an average of this cutoff takes in a frame `dt` seconds after the one before."""
    return 1 / (1 + 1 / (2 * math.pi * np.asarray(cutoff_hz, np.float64) * dt))


def blend(points: ArrayLike, last: Floats | None, alpha: ArrayLike) -> Floats:
    """alpha of the points, the rest of the last ones; a copy of the points where there are none yet. float64."""
    points = np.array(points, np.float64)
    return points if last is None else alpha * points + (1 - np.asarray(alpha)) * last


def steps(times_s: Iterable[float], rate_hz: float, *, zero_is_missing: bool = False) -> Sequence[float]:
    """Seconds from frame to frame.

    Args:
        times_s: timestamp of each frame.
        rate_hz: gives the first step, and those until time moves on.
        zero_is_missing: repeat the published filter, which uses no interval that starts or ends at 0.0.

    Returns:
        One positive step per frame. Where time stands still or runs backwards, the step before it is repeated.
    """
    found, step, before = [], 1 / rate_hz, None
    for now in times_s:
        usable = before is not None and not (zero_is_missing and 0.0 in (before, now))
        if usable and now > before:
            step = now - before
        found.append(step)
        before = now
    return found
