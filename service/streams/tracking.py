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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_zoo.scores import SURE_JOINTS, SURE_SCORE
from service.streams import matching
from service.streams.smoothers import as_complex
from service.streams.smoothing import MIN_STEP_S
from service.types import Box, Floats

Pair = Sequence[float]
"""Along x and along y."""

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
    surer = sorted(scores.tolist())[len(scores) // 2 :]
    return sum(surer) / len(surer)


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
                box = self._ahead(track, ahead)
                if self._is_inside(box):
                    boxes.append(box)
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
        pairs = dict(self._pairs(tracks, looks, time_s))
        after: dict[int, Track] = {}
        for row, track in enumerate(tracks):
            look = looks[pairs[row]] if row in pairs else None
            if look is not None:
                ids[pairs[row]] = track.id
            if look is not None and look.placed and look.confidence >= rules.lose:
                track = self._seen(track, look, time_s)
            elif look is not None or planned:
                track = replace(track, confident=False)
            after[track.id] = track
        next_id = self.state.next_id
        for index, look in enumerate(looks):
            new = ids[index] is None and look.placed and look.confidence >= rules.acquire
            if new and len(after) < rules.people and next_id <= MAX_ID:
                ids[index] = next_id
                after[next_id] = _track(next_id, time_s, look, look.extent, (0.0, 0.0))
                next_id += 1
        if planned:
            self._merge(after)
        self.state = TrackerState(next_id, size, tuple(after.values()))
        return ids

    def _look(self, pose: Found | _Look) -> _Look:
        """Where the person of a pose is: about the sure joints, else where it was looked for."""
        sure = pose.scores >= SURE_SCORE
        placed = np.count_nonzero(sure) >= SURE_JOINTS
        x, y, width, height = pose.box
        growth = 1.0
        if placed:
            across, down = pose.points.compress(sure, axis=0).T.tolist()
            x, y = min(across), min(down)
            width, height = max(across) - x, max(down) - y
            growth = self._rules.growth
        least = max(self._rules.floor * growth * max(width, height), _SIDES_PX[0])
        extent = tuple(min(max(growth * side, least), _SIDES_PX[1]) for side in (width, height))
        centre = (x + width / 2, y + height / 2)
        return _Look(
            pose.box, pose.points, pose.scores, sure, centre, extent, placed, confidence(pose.scores)
        )

    def _pairs(self, tracks: Sequence[Track], looks: Sequence[_Look], time_s: float) -> list[tuple[int, int]]:
        if not tracks or not looks:
            return []
        moved = [[speed * (time_s - track.time_s) for speed in track.velocity.tolist()] for track in tracks]
        if len(tracks) == len(looks) == 1:  # as in most frames; arrays of one person are slow
            alike = matching.similarity(_person(tracks[0], moved[0]), _person(looks[0]), self._sigmas)
            return [(0, 0)] if alike >= self._rules.alike else []
        alike = matching.similarities(_people(tracks, moved), _people(looks), self._sigmas)
        return matching.assign(alike, self._rules.alike)

    def _seen(self, track: Track, look: _Look, time_s: float) -> Track:
        dt = time_s - track.time_s
        if dt <= 0:
            raise ValueError(f"time must move on: {time_s} follows {track.time_s}")
        dt = max(dt, MIN_STEP_S)
        faded = track.scores.astype(np.float64) * math.exp(-dt / self._rules.joint_s)
        unsure = ~look.sure & (faded > look.scores)
        if np.count_nonzero(unsure):
            both = look.sure & (track.scores >= SURE_SCORE)
            steps = np.sort(look.points[both] - track.points[both], axis=0)
            moved = steps[len(steps) // 2] if len(steps) else 0.0
            points = np.where(unsure[:, None], track.points + moved, look.points)
            look = self._look(Found(look.box, points, np.where(unsure, faded, look.scores)))
        follow = -math.expm1(-dt / self._rules.velocity_s)
        shrink = -math.expm1(-dt / self._rules.size_s)
        extent, velocity = [], []
        for axis, (centre, side, speed) in enumerate(_floats(track)):
            velocity.append(speed + ((look.centre[axis] - centre) / dt - speed) * follow)
            extent.append(max(look.extent[axis], side + (look.extent[axis] - side) * shrink))
        return _track(track.id, time_s, look, extent, velocity)

    def _merge(self, after: dict[int, Track]) -> None:
        """Drop the later one of two that look at one person."""
        seen = [track for track in after.values() if track.confident]
        if len(seen) < 2:
            return
        same = matching.similarities(_people(seen), _people(seen), self._sigmas) > self._rules.same
        for later, track in enumerate(seen):
            if any(same[earlier, later] and seen[earlier].id in after for earlier in range(later)):
                del after[track.id]

    def _ahead(self, track: Track, ahead_s: float) -> Box:
        """The box of a person so long after they were last seen."""
        (x, width), (y, height) = (
            (centre + speed * ahead_s, side + self._rules.lead * abs(speed) * ahead_s)
            for centre, side, speed in _floats(track)
        )
        return round(x - width / 2, 3), round(y - height / 2, 3), round(width, 3), round(height, 3)

    def _is_inside(self, box: Box) -> bool:
        if self.state.size is None:
            return True
        (height, width), (x, y, across, down) = self.state.size, box
        return x + across > 0 and y + down > 0 and x < width - 1 and y < height - 1


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A pose and the box that belongs to it."""

    box: Box
    """Where it was looked for."""
    points: Floats
    scores: Floats
    sure: Floats
    """(K,) bool."""
    centre: Pair
    extent: Pair
    placed: bool
    """Enough joints are sure to say where the person is."""
    confidence: float


def _track(number: int, time_s: float, look: _Look, extent: Pair, velocity: Pair) -> Track:
    """A person seen now; all rounded to float32, so that writing it down loses nothing."""
    limited = [min(max(speed, -_SIDES_PX[1]), _SIDES_PX[1]) for speed in velocity]
    arrays = (look.points, look.scores, look.centre, extent, limited)
    return Track(number, time_s, True, *(np.asarray(each, np.float32) for each in arrays))


def _floats(track: Track) -> Iterable[tuple[float, float, float]]:
    """Centre, extent and velocity along x and along y: of two numbers arrays are slow."""
    return zip(track.centre.tolist(), track.extent.tolist(), track.velocity.tolist(), strict=True)


def _person(one: Track | _Look, moved: Pair = (0.0, 0.0)) -> matching.Person:
    (x, y), (width, height) = map(float, one.centre), map(float, one.extent)
    box = (x + moved[0] - width / 2, y + moved[1] - height / 2, width, height)
    return matching.Person(box, as_complex(one.points) + complex(*moved), one.scores)


def _people(those: Sequence[Track | _Look], moved: Sequence[Pair] | None = None) -> matching.People:
    by = np.zeros((len(those), 2)) if moved is None else np.array(moved)
    extents = np.array([each.extent for each in those], np.float64)
    centres = np.array([each.centre for each in those], np.float64) + by
    points = np.array([each.points for each in those], np.float64) + by[:, None]
    boxes = np.concatenate([centres - extents / 2, extents], axis=-1)
    return matching.People(boxes, points, np.array([each.scores for each in those]))
