"""From recordings to the table: raw, and after every smoother, how calm, how late and how far from the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_zoo.scores import SURE_SCORE
from service.jitter import measure
from service.jitter.motion import KnownClip
from service.jitter.recording import Recording, smooth
from service.streams import smoothers
from service.types import Floats

SURE_SHARE = 0.8
"""A joint is measured that is sure in at least this share of the frames."""
FEWEST_JOINTS = 5
SHORTEST_S = 2.0
"""Shortest part of a video that is measured."""
MOVING = 0.15
"""A joint that moves by more than this many of the person's lengths a second is in motion; for videos."""
SPAN_S = 0.5
"""Over which such a speed is taken."""
FEWEST_MOVING = 10
"""A joint with fewer frames in motion says nothing about the lag."""
GOAL_CUT, GOAL_LAG = 0.7, 1.0
"""Share of the jitter at rest that the default smoother must remove, and frames that it may be late in motion."""


@dataclass(frozen=True)
class Row:
    """One smoother on clips of one kind; means over the clips."""

    group: str
    smoother: str
    clips: int
    rest: float
    """Jitter at rest, in 1/1000 of the person's length."""
    cut: float
    """Share of it that the smoother removed."""
    moving: float
    """Jitter in motion."""
    lag_frames: float
    """Lag in motion behind the raw points."""
    worst_frames: float
    """Of the clip that is latest."""
    lag_ms: float
    estimated_frames: float
    """Lag in motion as the smoother itself says it."""
    error: float
    """Mean distance from the truth, in 1/1000 of the person's length; NaN without truth."""


@dataclass(frozen=True)
class _Measured:
    rest: float
    moving: float
    lag_frames: float
    lag_ms: float
    estimated_frames: float
    error: float


def synthetic(
    clips: Sequence[KnownClip], recordings: Sequence[list[Recording]], made: Mapping[str, smoothers.Smoother]
) -> tuple[list[Row], int]:
    """A row for each rate and smoother, and how many clips were left out because nobody was followed all through."""
    groups: dict[str, dict[str, list[_Measured]]] = {}
    left_out = 0
    for clip, found in zip(clips, recordings, strict=True):
        subject = _subject(clip, found)
        if subject is None:
            left_out += 1
            continue
        group = groups.setdefault(f"{clip.rate_hz} fps", {name: [] for name in made})
        for name, smoother in made.items():
            group[name].append(_against_truth(clip, *subject, smoother))
    return [row for group, measured in groups.items() for row in _rows(group, measured)], left_out


def filmed(group: str, recordings: Iterable[Recording], made: Mapping[str, smoothers.Smoother]) -> list[Row]:
    """A row for each smoother on the people of one video; none where nobody was followed for long enough."""
    measured: dict[str, list[_Measured]] = {name: [] for name in made}
    for recording in recordings:
        joints = _sure(recording)
        if len(joints) >= FEWEST_JOINTS and np.ptp(recording.times) >= SHORTEST_S:
            for name, smoother in made.items():
                measured[name].append(_against_itself(recording, joints, smoother))
    return _rows(group, measured) if any(measured.values()) else []


def table(rows: Sequence[Row]) -> str:
    """The rows as text; jitter and error in 1/1000 of the person's length."""
    lines = [
        f"{'clips':24} {'smoother':10} {'n':>3} {'rest':>7} {'cut':>6} {'motion':>7} "
        f"{'lag':>6} {'worst':>6} {'lag ms':>7} {'says':>6} {'error':>7}"
    ]
    for row in rows:
        lines.append(
            f"{row.group:24} {row.smoother:10} {row.clips:3d} {row.rest:7.2f} {row.cut:6.1%} {row.moving:7.2f} "
            f"{row.lag_frames:6.2f} {row.worst_frames:6.2f} {row.lag_ms:7.1f} {row.estimated_frames:6.2f} "
            + (f"{row.error:7.1f}" if np.isfinite(row.error) else f"{'-':>7}")
        )
    return "\n".join(lines)


def misses(rows: Sequence[Row]) -> list[str]:
    """Where the default smoother misses its goal, in words."""
    return [
        f"{row.group}: {row.cut:.1%} of the jitter removed, {row.lag_frames:.2f} frames late"
        for row in rows
        if row.smoother == smoothers.DEFAULT and (row.cut < GOAL_CUT or row.lag_frames > GOAL_LAG)
    ]


def _subject(clip: KnownClip, found: Sequence[Recording]) -> tuple[Recording, Floats, list[int]] | None:
    """Who was followed all through a clip, their joints that were sure, and which of the truth's these are."""
    if not found:
        return None
    recording = max(found, key=lambda each: len(each.times))
    labelled = [clip.names.index(name) if name in clip.names else -1 for name in recording.keypoints]
    joints = [joint for joint in _sure(recording) if labelled[joint] >= 0]
    if len(recording.times) < 0.95 * len(clip.times) or len(joints) < FEWEST_JOINTS:
        return None
    return recording, np.array(joints), [labelled[joint] for joint in joints]


def _sure(recording: Recording) -> Floats:
    return np.flatnonzero((recording.scores >= SURE_SCORE).mean(axis=0) >= SURE_SHARE)


def _against_truth(
    clip: KnownClip, recording: Recording, joints: Floats, labels: list[int], smoother: smoothers.Smoother
) -> _Measured:
    def delayed(frames: float) -> Floats:
        return clip.truth(recording.times - frames / clip.rate_hz)[:, labels]

    truth, rest = delayed(0.0), clip.is_rest(recording.times)
    track = smooth(recording, smoother)
    points, raw = track.points[:, joints], recording.points[:, joints]
    lag = measure.lag_frames(points, delayed, ~rest) - measure.lag_frames(raw, delayed, ~rest)
    pace = np.square(np.diff(truth, axis=0, prepend=truth[:1])).sum(axis=(1, 2))
    return _Measured(
        measure.jitter(points - truth, clip.size_px, rest) * 1e3,
        measure.jitter(points - truth, clip.size_px, ~rest) * 1e3,
        lag,
        lag * 1e3 / clip.rate_hz,
        float((track.lag_frames * pace).sum() / pace.sum()),
        measure.error(points, truth, clip.size_px) * 1e3,
    )


def _against_itself(recording: Recording, joints: Floats, smoother: smoothers.Smoother) -> _Measured:
    """Without a truth: rest and motion by the raw points' own pace, lag behind the raw points."""
    raw, size = recording.points[:, joints], recording.size
    step_s = float(np.median(np.diff(recording.times)))
    width = min(max(3, round(SPAN_S / step_s) | 1), len(raw) // 2 * 2 - 1)
    padded = np.pad(raw, ((width // 2, width // 2), (0, 0), (0, 0)), mode="edge")
    calm = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).mean(axis=-1)
    speed = np.gradient(calm, step_s, axis=0)
    rest = (
        np.linalg.norm(speed, axis=-1) / size[:, None] < MOVING
    )  # (T, K): a signer's hands move, the head does not
    track = smooth(recording, smoother)
    points = track.points[:, joints]
    lag = _lag_of_each(points, raw, ~rest)
    weight = np.square(speed).sum(axis=(1, 2))
    return _Measured(
        measure.jitter(points, size, rest) * 1e3,
        measure.jitter(points, size, ~rest) * 1e3,
        lag,
        lag * step_s * 1e3,
        float((track.lag_frames * weight).sum() / weight.sum()),
        np.nan,
    )


def _lag_of_each(points: Floats, raw: Floats, moving: Floats) -> float:
    """Mean lag of the joints, by the frames in which they move; NaN where none does."""
    lags, frames = [], moving.sum(axis=0)
    for joint in np.flatnonzero(frames >= FEWEST_MOVING):
        alone = slice(joint, joint + 1)
        behind = measure.interpolated(raw[:, alone])
        lags.append(measure.lag_frames(points[:, alone], behind, moving[:, joint]))
    return float(np.average(lags, weights=frames[frames >= FEWEST_MOVING])) if lags else np.nan


def _rows(group: str, measured: Mapping[str, Sequence[_Measured]]) -> list[Row]:
    raw = np.mean([each.rest for each in measured[smoothers.NONE]])
    rows = []
    for name, all_of in measured.items():
        rest = float(np.mean([each.rest for each in all_of]))
        lags = np.array([each.lag_frames for each in all_of])
        known = np.isfinite(lags)
        rows.append(
            Row(
                group,
                name,
                len(all_of),
                rest,
                1 - rest / raw if raw > 0 else 0.0,
                float(np.mean([each.moving for each in all_of])),
                float(lags[known].mean()) if known.any() else np.nan,
                float(lags[known].max()) if known.any() else np.nan,
                float(np.mean([each.lag_ms for each in np.array(all_of, object)[known]]))
                if known.any()
                else np.nan,
                float(np.mean([each.estimated_frames for each in all_of])),
                float(np.mean([each.error for each in all_of])),
            )
        )
    return rows
