"""Jitter, lag and error of tracks of points.

Axes: T frames, K joints, tracks (T, K, 2) in pixels; size is the length of the person in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from service.types import Floats

SHIFTS = np.linspace(-2.0, 5.0, 141)
"""Delays that are tried, in frames."""


def jitter(track: Floats, size: Floats | float, chosen: Floats | None = None) -> float:
    """Mean length of the second difference, as a share of the person's length.

    Args:
        track: (T, K, 2); less the truth where that is known, whose own acceleration is no jitter.
        size: of the person, one number or (T,).
        chosen: (T,) or (T, K) bool, a second difference counts where all three of its frames are chosen.
    """
    bends = (
        np.linalg.norm(np.diff(track, n=2, axis=0), axis=-1) / np.broadcast_to(size, len(track))[1:-1, None]
    )
    if chosen is not None:
        bends = bends[chosen[:-2] & chosen[1:-1] & chosen[2:]]
    return float(bends.mean()) if bends.size else 0.0


def lag_frames(track: Floats, delayed: Callable[[float], Floats], chosen: Floats) -> float:
    """By how many frames a track is late: the delay of the reference that explains it best, by least squares.

    Args:
        track: (T, K, 2).
        delayed: frames -> the reference (T, K, 2) that many frames late. A constant distance of each joint is allowed.
        chosen: (T,) bool, the frames to compare.

    Returns:
        The best of `SHIFTS`, refined by a parabola through its neighbours.
    """
    costs = []
    for shift in SHIFTS:
        apart = (track - delayed(float(shift)))[chosen]
        costs.append(float(((apart - apart.mean(axis=0)) ** 2).sum()))
    best = int(np.argmin(costs))
    if not 0 < best < len(SHIFTS) - 1:
        return float(SHIFTS[best])
    before, here, after = costs[best - 1 : best + 2]
    bend = before - 2 * here + after
    offset = (before - after) / (2 * bend) if bend > 0 else 0.0
    return float(SHIFTS[best] + offset * (SHIFTS[1] - SHIFTS[0]))


def interpolated(track: Floats) -> Callable[[float], Floats]:
    """A reference for `lag_frames` out of a track itself: straight lines between its frames."""

    def delayed(shift: float) -> Floats:
        at = np.clip(np.arange(len(track)) - shift, 0, len(track) - 1)
        low = np.minimum(at.astype(int), len(track) - 2)
        part = (at - low)[:, None, None]
        return track[low] * (1 - part) + track[low + 1] * part

    return delayed


def error(track: Floats, truth: Floats, size: float) -> float:
    """Mean distance from the truth, as a share of the person's length."""
    return float(np.linalg.norm(track - truth, axis=-1).mean() / size)
