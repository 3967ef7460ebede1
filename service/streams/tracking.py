"""Follow people through a video without looking for them in every frame.

`plan` says before a frame where to look: the boxes in which the people of the last frames must be by now, or the whole
frame where nobody is followed. `update` takes what was found and says who is who. A tracker keeps no clock: time is the
moment a frame was taken, in seconds, and only moves forward.

The box of the next frame is laid around the joints that were sure in the last second, moved by the person's velocity
and widened by what that may be wrong by. It grows at once and shrinks slowly: a box that trembles makes the points
tremble, and one that leaves joints out because the last frame did not show them would never find them again.

Confidence is the mean score of the surer half of the joints, so that who is half in the picture can be followed. A
person is followed from `acquire` on and given up below `lose`; between the two nothing changes. Who is given up is
looked for on the whole frame, and is the same person if found where expected within `keep_s`.

Axes: K keypoints; points (K, 2) in pixels of the frame, scores (K,) 0 to 1; boxes x, y, width, height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_zoo import geometry
from service.streams import matching
from service.streams.smoothing import MIN_STEP_S
from service.types import Box, Floats

MAX_ID = 2**32 - 1
_SIDES_PX = (2.0, 50_000.0)
"""Least and largest side of a box, and the largest speed in pixels a second: nothing that is real is near them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When to follow and how wide to look."""

    acquire: float = 0.5
    """Confidence from which a pose is a person to follow."""
    lose: float = 0.35
    """Confidence below which a person is given up."""
    keep_s: float = 1.0
    """How long a person who is not found is remembered."""
    alike: float = 0.15
    """Least similarity of a pose to a person."""
    same: float = 0.8
    """Two followed people who are more alike than this are one: the later one is dropped."""
    growth: float = 1.2
    """From the extent of the joints to that of the person; as where the service finds a person by itself."""
    floor: float = 0.25
    """Least side of a box, as a share of the longer one: an arm that points at the camera is still a person."""
    lead: float = 0.5
    """How much of the way since the last frame is added to the box."""
    velocity_s: float = 0.1
    """Time constant of the velocity."""
    size_s: float = 0.25
    """Time constant of the box's size where it shrinks; it grows at once."""
    joint_s: float = 1.0
    """Time constant in which the score of a joint fades that is not sure any more."""
    people: int = 32
    """Most people who are followed at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One person who is followed. All arrays are float32 and finite."""

    id: int
    """1 and up; never used again in the stream."""
    time_s: float
    """When this person was last sure to be seen."""
    confident: bool
    """Whether this person was sure to be seen in the last frame that was looked at."""
    points: Floats
    """(K, 2) when last seen; a joint that was not sure then is where it was last sure, moved along."""
    scores: Floats
    """(K,) when last seen, or when last sure and faded since."""
    centre: Floats
    """(2,) of the person's box when last seen."""
    extent: Floats
    """(2,) width and height of that box."""
    velocity: Floats
    """(2,) of its centre, pixels a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One pose of a frame."""

    box: Box
    """The person's box."""
    points: Floats
    """(K, 2)."""
    scores: Floats
    """(K,)."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """What a tracker remembers."""

    next_id: int = 1
    """Identity of the next new person."""
    size: tuple[int, int] | None = None
    """(height, width) of the last frame."""
    tracks: tuple[Track, ...] = ()
    """Oldest first."""


def confidence(scores: Floats) -> float:
    """Mean of the surer half of (K,) scores."""
    ordered = np.sort(np.asarray(scores, np.float64))
    return float(ordered[len(ordered) // 2 :].mean())


class Tracker:
    """Follows the people of one stream.

    Args:
        sigmas: (K,) of the skeleton, see `model_zoo.skeletons`.
        rules: as above.
        state: to go on from; must fit the skeleton.
    """

    def __init__(
        self, sigmas: Sequence[float], rules: Rules = Rules(), state: TrackerState = TrackerState()
    ) -> None:
        self._sigmas = np.asarray(sigmas, np.float64)
        self._rules = rules
        self.state = state
        """As after the last `update`; immutable."""

    def plan(self, time_s: float) -> tuple[Box, ...] | None:
        """Where to look in a frame taken at `time_s`: one box per person, or None for the whole frame.

        Every box overlaps the last frame's area. It is for frames of that size: look at the whole of another one.
        """
        boxes = []
        for track in self.state.tracks:
            ahead = time_s - track.time_s
            if track.confident and 0 <= ahead <= self._rules.keep_s:
                wider = self._rules.lead * np.abs(track.velocity) * ahead
                box = _box(track.centre + track.velocity * ahead, track.extent + wider)
                if self._is_inside(box):
                    boxes.append(tuple(np.round(box, 3).tolist()))
        return tuple(boxes) or None

    def update(
        self, time_s: float, poses: Sequence[Found], size: tuple[int, int], *, planned: bool
    ) -> list[int | None]:
        """Take in what was found in a frame.

        Args:
            time_s: when the frame was taken; after all before it.
            poses: what was found, whether in planned boxes, in boxes of the client or on the whole frame.
            size: (height, width) of the frame; another one than before is another camera, and nobody is known.
            planned: the boxes were those of `plan`: who is not found in them is lost, and two may have met.

        Returns:
            The identity of each pose; None for one that is nobody sure.
        """
        rules = self._rules
        known = self.state.tracks if self.state.size in (None, size) else ()
        tracks = [track for track in known if 0 <= time_s - track.time_s <= rules.keep_s]
        looks = [self._look(pose) for pose in poses]
        ids: list[int | None] = [None] * len(poses)
        after = {track.id: replace(track, confident=False) if planned else track for track in tracks}
        for row, column in self._pairs(tracks, looks, time_s):
            track, look = tracks[row], looks[column]
            ids[column] = track.id
            seen = look.placed and confidence(look.scores) >= rules.lose
            after[track.id] = (
                self._seen(track, poses[column], time_s) if seen else replace(track, confident=False)
            )
        next_id = self.state.next_id
        for index, look in enumerate(looks):
            new = ids[index] is None and look.placed and confidence(look.scores) >= rules.acquire
            if new and len(after) < rules.people and next_id <= MAX_ID:
                ids[index] = next_id
                after[next_id] = _track(next_id, time_s, look, look.extent, np.zeros(2))
                next_id += 1
        if planned:
            self._merge(after)
        self.state = TrackerState(next_id, size, tuple(after.values()))
        return ids

    def _look(self, pose: Found) -> _Look:
        """Where the person of a pose is: about the sure joints, else where it was looked for."""
        sure = pose.scores >= matching.SURE_SCORE
        placed = bool(sure.sum() >= matching.SURE_JOINTS)
        box = geometry.box_of_points(pose.points[sure]) if placed else np.array(pose.box, np.float64)
        extent = box[2:] * (self._rules.growth if placed else 1.0)
        extent = np.clip(np.maximum(extent, self._rules.floor * extent.max()), *_SIDES_PX)
        return _Look(pose.points, pose.scores, box[:2] + box[2:] / 2, extent, placed)

    def _pairs(self, tracks: Sequence[Track], looks: Sequence[_Look], time_s: float) -> list[tuple[int, int]]:
        if not tracks or not looks:
            return []
        moved = [track.velocity.astype(np.float64) * (time_s - track.time_s) for track in tracks]
        alike = matching.similarities(_people(tracks, moved), _people(looks), self._sigmas)
        return matching.assign(alike, self._rules.alike)

    def _seen(self, track: Track, pose: Found, time_s: float) -> Track:
        dt = time_s - track.time_s
        if dt <= 0:
            raise ValueError(f"time must move on: {time_s} follows {track.time_s}")
        dt = max(dt, MIN_STEP_S)
        faded = track.scores.astype(np.float64) * math.exp(-dt / self._rules.joint_s)
        unsure = (pose.scores < matching.SURE_SCORE) & (faded > pose.scores)
        both = (pose.scores >= matching.SURE_SCORE) & (track.scores >= matching.SURE_SCORE)
        steps = np.sort(pose.points[both] - track.points[both], axis=0)
        moved = steps[len(steps) // 2] if len(steps) else np.zeros(2)
        points = np.where(unsure[:, None], track.points + moved, pose.points)
        look = self._look(Found(pose.box, points, np.where(unsure, faded, pose.scores)))
        follow = -math.expm1(-dt / self._rules.velocity_s)
        velocity = track.velocity + ((look.centre - track.centre) / dt - track.velocity) * follow
        shrunk = track.extent + (look.extent - track.extent) * -math.expm1(-dt / self._rules.size_s)
        return _track(track.id, time_s, look, np.maximum(look.extent, shrunk), velocity)

    def _merge(self, after: dict[int, Track]) -> None:
        """Drop the later one of two that look at one person."""
        seen = [track for track in after.values() if track.confident]
        if len(seen) < 2:
            return
        same = matching.similarities(_people(seen), _people(seen), self._sigmas) > self._rules.same
        for later, track in enumerate(seen):
            if any(same[earlier, later] and seen[earlier].id in after for earlier in range(later)):
                del after[track.id]

    def _is_inside(self, box: Floats) -> bool:
        if self.state.size is None:
            return True
        height, width = self.state.size
        low, high = box[:2], box[:2] + box[2:]
        return bool((high > 0).all() and (low < np.array([width - 1, height - 1])).all())


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A pose and the box that belongs to it."""

    points: Floats
    scores: Floats
    centre: Floats
    extent: Floats
    placed: bool
    """Enough joints are sure to say where the person is."""


def _track(number: int, time_s: float, look: _Look, extent: Floats, velocity: Floats) -> Track:
    """A person seen now; all rounded to float32, so that writing it down loses nothing."""
    limited = np.clip(velocity, -_SIDES_PX[1], _SIDES_PX[1])
    arrays = (look.points, look.scores, look.centre, extent, limited)
    return Track(number, time_s, True, *(np.asarray(each, np.float32) for each in arrays))


def _people(those: Sequence[Track | _Look], moved: Sequence[Floats] | None = None) -> matching.People:
    by = np.zeros((len(those), 2)) if moved is None else np.stack(moved)
    extents = np.stack([each.extent for each in those]).astype(np.float64)
    centres = np.stack([each.centre for each in those]) + by
    points = np.stack([each.points for each in those]) + by[:, None]
    boxes = np.concatenate([centres - extents / 2, extents], axis=-1)
    return matching.People(boxes, points, np.stack([each.scores for each in those]))


def _box(centre: Floats, extent: Floats) -> Floats:
    """(4,) float64 box of these (2,) centre and sides."""
    centre, extent = centre.astype(np.float64), extent.astype(np.float64)
    return np.concatenate([centre - extent / 2, extent])
