"""What somebody does for a while: angles, place and height as smooth functions of time, with pauses between movements.

World: metres, z up, the floor at 0. A body that is not turned faces -y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats
from trainer.synth import anatomy, hand_pose, keyposes, motion, pose
from trainer.synth.body import Body, BodyModel
from trainer.synth.single import Actor, Figure

Rng = np.random.Generator
Angles = Callable[[float], Floats]
"""Seconds to (D,) degrees of `anatomy.NAMES`."""

WALK_MPS, RUN_MPS = (0.9, 1.7), (2.2, 4.0)
"""Speeds."""
WALK_STRIDE_M, RUN_STRIDE_M = 1.4, 2.1
"""Way of one whole cycle of somebody who is 1.7 m tall."""
_UPRIGHT = np.flatnonzero(np.abs(keyposes.TILTS).max(axis=1) < 1)
_SWAY_DEG, _SWAY_HZ = 1.2, (0.15, 0.5)
_SOFT_M, _TOUCHING = 0.005, 15
"""How smoothly the lowest of the feet changes over to the other, and how many vertices touch the floor."""


@dataclass(frozen=True)
class Act:
    """Somebody and what it does."""

    actor: Actor
    angles: Angles
    hands: tuple[Floats, Floats]
    """Degrees of `hand_pose.NAMES`, left and right."""
    turn: float
    """Radians about z."""
    start: Floats
    """(2,) metres at time 0."""
    velocity: Floats
    """(2,) metres per second."""
    lift: Callable[[float], float]
    """Seconds to metres that the feet are above the floor."""

    def at(self, time_s: float) -> Figure:
        """As it is at a time."""
        taken = pose.with_hands(
            pose.of_angles(self.angles(time_s), np.array([0.0, 0.0, self.turn])), *self.hands
        )
        body = self.actor.rest.posed(taken.rotations, taken.root)
        place = self.start + self.velocity * time_s
        moved = body.moved([*place, self.lift(time_s) - _lowest(body)])
        return self.actor.wearing(moved)


def draw(rng: Rng, actor: Actor, middle: Floats, seconds: float) -> Act:
    """Anything that people do on their feet; half way through the time it is done at (2,) `middle`."""
    what = rng.choice(4, p=(0.28, 0.12, 0.25, 0.35))
    velocity, lift = np.zeros(2), _nothing
    turn = float(rng.uniform(-np.pi, np.pi))
    if what < 2:
        cycle, speeds, stride = (
            (motion.walk, WALK_MPS, WALK_STRIDE_M) if what == 0 else (motion.run, RUN_MPS, RUN_STRIDE_M)
        )
        speed, phase = rng.uniform(*speeds), rng.random()
        velocity = speed * np.array([np.sin(turn), -np.cos(turn)])
        rate = speed / (stride * float(np.ptp(actor.rest.vertices[:, 2])) / 1.7)
        angles = _Steady(cycle, rate, phase)
    elif what == 2:
        name = str(rng.choice(["squat", "sit", "jump", "wave"]))
        paced = _Paused(motion.CYCLES[name], rng.uniform(0.9, 2.2), rng.uniform(0.3, 1.2), rng.uniform(0, 1))
        angles = paced
        if name == "jump":
            lift = _Jump(paced, rng.uniform(0.1, 0.4))
    else:
        angles = _Sequence(rng, seconds)
    swaying = _Swaying(angles, rng)
    hands = hand_pose.sample_hand_angles(rng), hand_pose.sample_hand_angles(rng)
    return Act(actor, swaying, hands, turn, middle - velocity * seconds / 2, velocity, lift)


def _nothing(_: float) -> float:
    return 0.0


@dataclass(frozen=True)
class _Steady:
    cycle: Angles
    rate: float
    phase: float

    def __call__(self, time_s: float) -> Floats:
        return self.cycle(self.phase + self.rate * time_s)


@dataclass(frozen=True)
class _Paused:
    """A cycle, a pause, and again."""

    cycle: Angles
    moves_s: float
    rests_s: float
    began: float
    """Share of a round that is over at the beginning."""

    def phase(self, time_s: float) -> float:
        whole = self.moves_s + self.rests_s
        within = (time_s + self.began * whole) % whole
        return float(min(within / self.moves_s, 1.0)) % 1.0

    def __call__(self, time_s: float) -> Floats:
        return self.cycle(self.phase(time_s))


@dataclass(frozen=True)
class _Jump:
    paced: _Paused
    high: float

    def __call__(self, time_s: float) -> float:
        share = np.clip((self.paced.phase(time_s) - 0.32) / 0.36, 0, 1)
        return float(self.high * np.sin(np.pi * share) ** 2)


class _Sequence:
    """From one pose to another, each held for a while."""

    def __init__(self, rng: Rng, seconds: float) -> None:
        poses, times = [_key(rng)], [0.0]
        while times[-1] < seconds:
            times.append(times[-1] + rng.uniform(0.2, 1.2))  # held
            poses.append(poses[-1])
            times.append(times[-1] + rng.uniform(0.35, 1.1))  # on the way
            poses.append(_key(rng))
        self._poses, self._times = np.array(poses), np.array(times)

    def __call__(self, time_s: float) -> Floats:
        after = int(np.clip(np.searchsorted(self._times, time_s), 1, len(self._times) - 1))
        start, end = self._times[after - 1], self._times[after]
        share = np.clip((time_s - start) / (end - start), 0, 1)
        share = share * share * (3 - 2 * share)
        return self._poses[after - 1] + (self._poses[after] - self._poses[after - 1]) * share


def _key(rng: Rng) -> Floats:
    angles = keyposes.ANGLES[rng.choice(_UPRIGHT)]
    return anatomy.mirrored(angles) if rng.random() < 0.5 else angles


class _Swaying:
    """Nobody does anything exactly as written, nor is anybody ever quite still."""

    def __init__(self, angles: Angles, rng: Rng) -> None:
        count = len(anatomy.NAMES)
        self._angles, self._off = angles, rng.normal(0, 4, count)
        self._size, self._rate = rng.normal(0, _SWAY_DEG, count), rng.uniform(*_SWAY_HZ, count)
        self._phase = rng.uniform(0, 2 * np.pi, count)

    def __call__(self, time_s: float) -> Floats:
        sway = self._size * np.sin(2 * np.pi * self._rate * time_s + self._phase)
        return anatomy.within(self._angles(time_s) + self._off + sway)


def _lowest(body: Body) -> float:
    """About the height of the lowest sole: a smooth minimum, so that weight goes over from foot to foot."""
    z = body.vertices[_soles(body.model), 2].astype(np.float64)
    least = z.min()
    return float(least - _SOFT_M * np.log(np.exp((least - z) / _SOFT_M).sum() / _TOUCHING))


@lru_cache(maxsize=2)
def _soles(model: BodyModel) -> NDArray[np.intp]:
    """Vertices of the feet."""
    feet = [i for i, name in enumerate(model.bone_names) if name.startswith(("foot", "toe"))]
    return np.flatnonzero(np.isin(model.part_of_vertex, feet))
