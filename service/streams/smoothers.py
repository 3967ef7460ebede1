"""The filters that a stream may choose by name, and how others are added.

A smoother is a pure step: the new points and what it remembers go in, calmer points and the new memory come out. When
to hold a joint, when to start afresh and where the memory is kept is not its business; see `smoothing.py`.

One comes from this package or from any installed distribution that lists it under `reppose.smoothers`:

    [project.entry-points."reppose.smoothers"]
    mine = "my_package.my_module:MySmoother"

Axes: K keypoints, points (K, 2) in pixels of the frame, memory (R, K, 2) with the R of the smoother.

Sources: Casiez, Roussel and Vogel, CHI 2012 (1€ filter). `OneEuro` differs from it in four ways: its unit of length is
the person, so that `beta` means the same for every camera; both coordinates of a joint share one cutoff, so that a
turned picture gives turned points; its gains are exact for any interval (`filters.gain`), so that a dropped frame does
not change what it settles at; and it tells motion from noise: it learns how much each joint trembles, and looks at what
all joints do together, which trembles little.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model_zoo import filters
from service.errors import InvalidRequest
from service.types import Floats

Complexes = NDArray[np.complexfloating[Any, Any]]

ENTRY_POINT_GROUP = "reppose.smoothers"
NONE = "none"
DEFAULT = "one_euro"
MAX_NAME = 64
"""Longest name that is looked at."""
MAX_ROWS = 8
"""Most rows of memory: the state of a stream must stay small."""

_TREMBLE, _TREMBLE_S = 0.015, 0.5
"""Noise of a joint that is seen for the first time, in lengths of the person; time constant of learning it."""

_LEAST_GAIN = 1e-6
"""A gain below this is that of a joint that is held."""

_LEAST_MOTION = 1e-12
"""A squared speed below this is none."""

_FEWEST_TOGETHER = 4
"""So many sure joints say how all move together."""

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What one frame made of the points."""

    points: Floats
    """(K, 2) smoothed, in pixels."""
    memory: Floats
    """(R, K, 2) for the next frame; row 0 holds the smoothed points."""
    lag_s: Floats
    """(K,) by how many seconds a joint in motion is late."""
    motion: Floats | None = None
    """(K,) by what a joint's lag counts in that of the person: its squared speed, as free of noise as is known; None:
    that of its smoothed point."""


class Smoother(Protocol):
    """One filter with its settings; holds no state of any stream."""

    rows: int
    """R, the rows of its memory, 1 to 8; the same for its whole life."""

    def begin(self, points: Floats) -> Floats:
        """Memory (R, K, 2) of joints that are seen for the first time at these points; each joint on its own."""
        ...

    def step(self, points: Floats, memory: Floats, dt: float, weights: Floats, size: float) -> Step:
        """Take in one frame; never writes to its arguments.

        Args:
            points: (K, 2) in pixels.
            memory: as `begin` or the step before made it, rounded to float32.
            dt: seconds since the frame before, above 0.
            weights: (K,) 0 to 1: how much of the interval counts for a joint. 0 must leave it where it was.
            size: length of the person in pixels, above 0.
        """
        ...


class Nothing:
    """Leaves the points as they are."""

    rows = 1

    def begin(self, points: Floats) -> Floats:
        """The points."""
        return points[None]

    def step(self, points: Floats, memory: Floats, dt: float, weights: Floats, size: float) -> Step:
        """The new points; those of weight 0 stay."""
        kept = np.where(weights[:, None] > 0, points, memory[0])
        return Step(kept, kept[None], np.zeros(len(points)))


class Ema:
    """Exponential moving average.

    Args:
        alpha: share of the new points at `rate_hz` frames a second, above 0 and up to 1.
        rate_hz: the rate that `alpha` is meant for; other intervals get the share that forgets as fast.
    """

    rows = 1

    def __init__(self, alpha: float = 0.5, rate_hz: float = 30.0) -> None:
        _check(0 < alpha <= 1, "alpha", "above 0 and at most 1", alpha)
        _check(0 < rate_hz <= 1000, "rate_hz", "above 0 and at most 1000", rate_hz)
        self._alpha, self._rate_hz = alpha, rate_hz

    def begin(self, points: Floats) -> Floats:
        """The points."""
        return points[None]

    def step(self, points: Floats, memory: Floats, dt: float, weights: Floats, size: float) -> Step:
        """Move by `alpha` per frame of the reference rate."""
        alpha = filters.gain_over(self._alpha, self._rate_hz, dt * weights)
        smoothed = filters.blend(points, memory[0], alpha[:, None])
        return Step(smoothed, smoothed[None], _lag_s(alpha, dt))


class OneEuro:
    """1€ filter: rest is still, motion is not late.

    Args:
        min_cutoff: cutoff at rest in Hz; lower is calmer.
        beta: rise of the cutoff in Hz with a speed of one person's length a second.
        derivative_cutoff: cutoff of the speed itself in Hz.
        noise: a speed counts by what it exceeds this many times that which noise alone would show.
    """

    rows = 5

    def __init__(
        self,
        min_cutoff: float = 0.2,
        beta: float = 60.0,
        derivative_cutoff: float = 1.2,
        noise: float = 4.5,
    ) -> None:
        _check(0 < min_cutoff <= 1000, "min_cutoff", "above 0 and at most 1000", min_cutoff)
        _check(0 <= beta <= 1e6, "beta", "between 0 and a million", beta)
        _check(
            0 < derivative_cutoff <= 1000, "derivative_cutoff", "above 0 and at most 1000", derivative_cutoff
        )
        _check(0 <= noise <= 1000, "noise", "between 0 and 1000", noise)
        self._min_cutoff, self._beta = min_cutoff, beta
        self._derivative_cutoff, self._noise = derivative_cutoff, noise

    def begin(self, points: Floats) -> Floats:
        """The points, at rest, of unknown noise."""
        memory = np.zeros((self.rows, *points.shape))
        memory[0] = memory[2] = points
        return memory

    def step(self, points: Floats, memory: Floats, dt: float, weights: Floats, size: float) -> Step:
        """Follow the faster, the faster a joint moves.

        The rows of the memory: smoothed points; their speed; the points as they came; their last step, in pixels a
        second; how much they tremble in pixels, with the length of that last step in seconds (0: there was none).
        """
        at, after = as_complex(points), np.empty((self.rows, len(points)), np.complex128)
        last, speed, raw, pace, rest = as_complex(memory)
        known = weights * dt
        came = at - raw
        tremble = self._tremble(came - pace * dt, rest.real, rest.imag, dt, known, size)
        keep = filters.gain(self._derivative_cutoff, known)
        away = at - last
        speed = speed + keep * (away / dt - speed)
        noise = 2 * (self._noise / dt) ** 2 * (tremble * tremble * keep / (2 - keep))
        motion = abs(speed) ** 2
        beyond = np.maximum(motion - noise, _together(last, speed, weights, noise))
        moving = np.sqrt(np.maximum(beyond, 0.0))
        alpha = filters.gain(self._min_cutoff + self._beta / size * moving, known)
        after[0] = smoothed = last + alpha * away
        after[1], after[2], after[3] = speed, at, came / dt
        after[4].real, after[4].imag = tremble, dt
        rows = as_points(after)
        # How far behind it is, not how far it would be in steady motion: gains are small while a joint turns back.
        late = ((at - smoothed) * speed.conj()).real
        return Step(rows[0], rows, np.maximum(late, 0.0) / np.maximum(motion, _LEAST_MOTION), motion)

    @staticmethod
    def _tremble(
        missed: Complexes, tremble: Floats, before: Floats, dt: float, known: Floats, size: float
    ) -> Floats:
        """(K,) standard deviation of each coordinate's noise, from how far steady motion missed the new points.

        Steady motion extrapolates the last step: what it misses by is noise, times what the two steps make of it. The
        variance is learnt, not the mean distance: a joint that mostly rests and now and then jumps, as that of a net
        which cannot decide between two answers, shows as much speed as its jumps make, and they are rare and large.
        """
        first = before <= 0
        learn = -np.expm1(known / -_TREMBLE_S)
        if np.count_nonzero(first):
            tremble = np.where(first, _TREMBLE * size, tremble)
            before = np.where(first, dt, before)
            learn[first] = 0.0
        ratio = dt / before
        # by the mean square of a vector of such noise
        each = (missed.real**2 + missed.imag**2) / (4 * (1 + ratio + ratio * ratio))
        variance = tremble * tremble
        return np.sqrt(variance + learn * (each - variance))


def _together(points: Complexes, speed: Complexes, weights: Floats, noise: Floats) -> Floats | float:
    """(K,) squared speed of each joint in what all joints do together, less what noise alone would show there.

    All together they shift, turn and grow: one complex number times the place of a joint does the last two. That is
    fitted by least squares, where a joint counts the less the more it trembles, and it trembles much less than any
    joint alone. `noise` (K,) is the squared speed that the tremble of each joint would show.
    """
    sure = (weights >= 1) & (noise > 0)
    if np.count_nonzero(sure) < _FEWEST_TOGETHER:
        return 0.0
    counts = np.divide(1.0, noise, out=np.zeros(len(noise)), where=sure)
    total = float(np.add.reduce(counts))
    away = points - counts.dot(points) / total
    pull = counts * away
    spread = np.vdot(pull, away).real
    if not spread > 0:
        return 0.0
    shared = counts.dot(speed) / total + np.vdot(pull, speed) / spread * away
    return abs(shared) ** 2 - (1 / total + abs(away) ** 2 / spread)


def as_complex(points: Floats) -> Complexes:
    """Points (..., 2) as complex numbers (...) x + iy; a view where they are float64 and contiguous.

    A turn is a product then, a length is `abs`, and a weight per point needs no second axis: fewer and quicker calls,
    which is what the time of a frame goes into.
    """
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[..., 0]


def as_points(numbers: Complexes) -> Floats:
    """The reverse of `as_complex`; a view, the numbers being contiguous."""
    return numbers.view(np.float64).reshape(*numbers.shape, 2)


Factory = Callable[..., Smoother]
"""Settings by keyword, all of them numbers -> a smoother; ValueError or TypeError where they make no sense."""

SMOOTHERS: Mapping[str, Factory] = {NONE: Nothing, "ema": Ema, "one_euro": OneEuro}
"""The smoothers of this package by name."""


@cache
def plug_ins() -> Mapping[str, EntryPoint]:
    """What installed distributions offer beside `SMOOTHERS`; looked for once, see `plug_ins.cache_clear`.

    One that takes a name of `SMOOTHERS`, or that another plug-in took first, is left out and logged.
    """
    found: dict[str, EntryPoint] = {}
    for offered in entry_points(group=ENTRY_POINT_GROUP):
        if offered.value.startswith(f"{__name__}:"):
            continue  # this package's own, listed so that others can see the group in use
        if offered.name in SMOOTHERS or offered.name in found:
            _log.warning("smoother %r of %s is left out: the name is taken", offered.name, offered.value)
            continue
        found[offered.name] = offered
    return found


def names() -> list[str]:
    """What a stream may name."""
    return sorted({*SMOOTHERS, *plug_ins()})


def make(name: str, parameters: Mapping[str, float]) -> Smoother:
    """The smoother of this name with these settings.

    Raises:
        InvalidRequest: nobody offers it, its plug-in cannot be used, or the settings are not its own.
    """
    name = name[:MAX_NAME]
    factory: Factory | None = SMOOTHERS.get(name)
    if factory is None:
        if name not in plug_ins():
            known = ", ".join(names())
            raise InvalidRequest(f"unknown smoother {name!r}; known: {known}", "smoothing")
        try:
            factory = plug_ins()[name].load()
        except Exception as error:  # it is somebody else's code
            raise InvalidRequest(f"smoother {name!r} cannot be loaded: {error!r}", "smoothing") from error
    _check_names(name, factory, parameters)
    try:
        made = factory(**parameters)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"smoother {name!r}: {error}", "parameters") from error
    if not 1 <= made.rows <= MAX_ROWS:
        raise InvalidRequest(
            f"smoother {name!r} wants {made.rows} rows of memory, of 1 to {MAX_ROWS}", "smoothing"
        )
    return made


def _check_names(name: str, factory: Factory, parameters: Mapping[str, float]) -> None:
    """Raises InvalidRequest where a smoother has no such parameters, or needs others."""
    try:
        known = inspect.signature(factory).parameters.values()
    except (ValueError, TypeError):  # a plug-in that does not say what it takes
        return
    if any(each.kind is each.VAR_KEYWORD for each in known):
        return
    known = [each for each in known if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    allowed = ", ".join(each.name for each in known) or "none"
    for strange in sorted(parameters.keys() - {each.name for each in known}):
        raise InvalidRequest(
            f"smoother {name!r} has no parameter {strange!r}; its parameters: {allowed}", "parameters"
        )
    for each in known:
        if each.default is each.empty and each.name not in parameters:
            raise InvalidRequest(
                f"smoother {name!r} needs the parameter {each.name!r}; its parameters: {allowed}",
                "parameters",
            )


def _check(right: bool, name: str, allowed: str, value: float) -> None:
    if not right or not math.isfinite(value):
        raise ValueError(f"{name} must be {allowed}, got {value}")


def _lag_s(alpha: Floats, dt: float) -> Floats:
    """(K,) how late an average with these gains follows a steady motion; a joint that is held never arrives."""
    return dt / np.maximum(alpha, _LEAST_GAIN) - dt
