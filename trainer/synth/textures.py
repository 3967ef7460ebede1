"""Grain of all sorts, to be cut from: photographs are rough to the last pixel, painted surfaces are not.

Photographs of people, seen at 128x96, have twice the energy in their finest details that painted places have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Grain = NDArray[np.float32]
Rng = np.random.Generator

_SIDE = 768
_SEED = 20
_COARSEST = 3.0
"""Most that a grain is magnified."""


def grained(image: Image, rng: Rng) -> Image:
    """The picture with one grain over it, darker and lighter, everywhere or in patches."""
    height, width = image.shape[:2]
    factor = max(float(np.exp(rng.uniform(0, np.log(_COARSEST)))), height / _SIDE, width / _SIDE)
    tall, wide = int(height / factor), int(width / factor)
    grain = _bank(int(rng.integers(len(_GRAINS))))
    top, left = rng.integers(_SIDE - tall + 1), rng.integers(_SIDE - wide + 1)
    part = grain[top : top + tall, left : left + wide]
    part = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    strength = float(rng.uniform(0.08, 0.45))
    if rng.random() < 0.4:
        where = cv2.resize(rng.random((3, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        part = part * where
    return cv2.multiply(image, cv2.merge([1 + strength * part] * 3), dtype=cv2.CV_8U)


def _clouds(rng: Rng) -> Grain:
    """Noise with equal energy in all octaves but the coarsest: rough ground, foliage from afar."""
    total = np.zeros((_SIDE, _SIDE), np.float32)
    for cells in (24, 48, 96, 192, 384, 768):
        grid = rng.standard_normal((cells, cells), np.float32)
        total += cv2.resize(grid, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    return total


def _strewn(rng: Rng) -> Grain:
    """Leaves, pebbles and chips that lie on each other."""
    total = np.zeros((_SIDE, _SIDE), np.float32)
    for _ in range(14000):
        at, axes = rng.integers(0, _SIDE, 2).tolist(), rng.integers(1, 7, 2).tolist()
        cv2.ellipse(total, at, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.normal()), -1)
    return total


def _blades(rng: Rng) -> Grain:
    """Grass, straw and hair: short strokes that mostly go one way."""
    total = np.zeros((_SIDE, _SIDE), np.float32)
    for _ in range(16000):
        at = rng.integers(0, _SIDE, 2)
        way = (rng.normal(0, 3), rng.normal(-7, 3))
        end = (at + np.round(way)).astype(int)
        cv2.line(total, at.tolist(), end.tolist(), float(rng.normal()), int(rng.integers(1, 3)))
    return total


def _woven(rng: Rng) -> Grain:
    """Threads, nets and wire: two sets of lines, not quite regular."""
    across, along = (
        cv2.GaussianBlur(rng.standard_normal((1, _SIDE)).astype(np.float32), (0, 0), 0.8) for _ in range(2)
    )
    period = np.sin(np.arange(_SIDE) * 0.9)[None].astype(np.float32)
    total = (across * 2 + period) + (along * 2 + period).T
    return total + 0.5 * rng.standard_normal((_SIDE, _SIDE), np.float32)


_GRAINS: tuple[Callable[[Rng], Grain], ...] = (_clouds, _strewn, _blades, _woven)


@cache
def _bank(which: int) -> Grain:
    """(_SIDE, _SIDE), mean 0 and deviation 1, never beyond 2.5; the same in every process."""
    grain = _GRAINS[which](np.random.default_rng([_SEED, which]))
    grain = (grain - grain.mean()) / grain.std()
    return np.clip(grain, -2.5, 2.5)
