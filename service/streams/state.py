"""What is kept of a stream between two frames, and the same as bytes.

The bytes are small (about a kilobyte for one person), carry their version and a checksum, and are believed nothing when
they are read: lengths, ranges and finiteness are checked, so that damaged bytes are an error and never a strange pose.
Writing and reading lose nothing: the arrays are float32 already, see `smoothing.py` and `tracking.py`.

Layout, little-endian; version 2 where anything was said beside keypoints, else 1:

    "RPS" version:u8  length:u16 config:JSON  time:f64 sequence+1:u64  next_id:u32 height:u32 width:u32 tracks:u16
    per track: id:u32 flags:u8 time:f64 points:f32[K,2] scores:f32[K] centre:f32[2] extent:f32[2] velocity:f32[2]
        where smoothed: time:f64 size:f32 memory:f32[R,K,2] raw:f32[K,2] ages:f32[K] scores:f32[K]
        where something was said: time:f64 presence:f32 (NaN for none) present:u8 outputs:u8
            per output of classes: classes:u16 chosen:u16 means:f32[C]
    crc32:u32 of all before
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_zoo.manifest import MOST_OUTPUTS
from model_zoo.outputs import MOST_CLASSES
from service.errors import BrokenSession
from service.streams import smoothers
from service.streams.said import Said
from service.streams.smoothing import FORGOTTEN, SmoothState
from service.streams.tracking import MAX_ID, Track, TrackerState
from service.types import Floats

VERSIONS = (1, 2)
"""What is read; the first that has what a session holds is written, so that older replicas read it too."""
MAX_BYTES = 4 * 1024 * 1024
"""No session is longer: 32 people of 1024 keypoints under a smoother of 8 rows take 3 MB. Longer bytes are not looked
at."""
_MAGIC = b"RPS"
_CONFIDENT, _SMOOTHED, _SAID = 1, 2, 4
_FLAGS = {1: _CONFIDENT | _SMOOTHED, 2: _CONFIDENT | _SMOOTHED | _SAID}
"""Those that each version has."""
_FAR = 1e15
"""No number of a state is so large."""
_MAX_SIDE = 1_000_000
_MAX_SEQUENCE = 2**63 - 1


class SessionConfig(BaseModel):
    """What a stream was opened with; fixed for its whole life."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1, max_length=200)]
    """`name@version`."""
    keypoints: Annotated[int, Field(ge=1, le=1024)]
    """K of the model."""
    smoothing: Annotated[str, Field(max_length=smoothers.MAX_NAME)] = smoothers.DEFAULT
    """Name of the smoother."""
    parameters: Annotated[dict[Annotated[str, Field(max_length=64)], float], Field(max_length=16)] = {}
    """Settings of the smoother; its own defaults where they are left out."""
    tracking: bool = True
    """Follow people from frame to frame, instead of looking for one in each whole frame."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionState:
    """Everything that the next frame needs."""

    time_s: float | None = None
    """When the last frame was taken; None before the first."""
    sequence: int | None = None
    """The client's number of the last frame, where it gave one."""
    tracker: TrackerState = field(default_factory=TrackerState)
    smoothing: Mapping[int, SmoothState] = field(default_factory=dict)
    """By identity; of people who are in `tracker` as well."""
    said: Mapping[int, Said] = field(default_factory=dict)
    """The same of what is said beside keypoints."""


def to_bytes(config: SessionConfig, state: SessionState) -> bytes:
    """Write a session down."""
    head = config.model_dump_json().encode()
    height, width = state.tracker.size or (0, 0)
    parts = [
        _MAGIC,
        bytes([VERSIONS[bool(state.said)]]),
        struct.pack("<H", len(head)),
        head,
        struct.pack(
            "<dQIIIH",
            math.nan if state.time_s is None else state.time_s,
            0 if state.sequence is None else state.sequence + 1,
            state.tracker.next_id,
            height,
            width,
            len(state.tracker.tracks),
        ),
    ]
    for track in state.tracker.tracks:
        smoothed = state.smoothing.get(track.id)
        heard = state.said.get(track.id)
        flags = _CONFIDENT * track.confident + _SMOOTHED * (smoothed is not None)
        flags += _SAID * (heard is not None)
        parts.append(struct.pack("<IBd", track.id, flags, track.time_s))
        parts += map(_raw, (track.points, track.scores, track.centre, track.extent, track.velocity))
        if smoothed is not None:
            parts.append(struct.pack("<df", smoothed.time_s, smoothed.size))
            parts += map(_raw, (smoothed.memory, smoothed.raw, smoothed.ages_s, smoothed.scores))
        if heard is not None:
            presence = math.nan if heard.presence is None else heard.presence
            parts.append(struct.pack("<dfBB", heard.time_s, presence, heard.present, len(heard.classes)))
            for means, chosen in heard.classes:
                parts += struct.pack("<HH", len(means), chosen), _raw(means)
    body = b"".join(parts)
    return body + struct.pack("<I", zlib.crc32(body))


def from_bytes(data: bytes) -> tuple[SessionConfig, SessionState]:
    """Read what `to_bytes` wrote.

    Raises:
        BrokenSession: the bytes are damaged, of another version, or say what no session can be.
        InvalidRequest: the session's smoother is not installed here.
    """
    if not len(_MAGIC) + 5 <= len(data) <= MAX_BYTES or not data.startswith(_MAGIC):
        raise BrokenSession("these bytes are no session")
    if (version := data[len(_MAGIC)]) not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise BrokenSession(f"the session is of version {version}; this service reads {known}")
    body = data[:-4]
    if struct.unpack("<I", data[-4:])[0] != zlib.crc32(body):
        raise BrokenSession("the session is damaged")
    reader = _Reader(body, len(_MAGIC) + 1)
    try:
        config = SessionConfig.model_validate_json(reader.take(reader.unpack("<H")[0]))
    except ValidationError as error:
        raise BrokenSession("the session's configuration cannot be read") from error
    rows = smoothers.make(config.smoothing, config.parameters).rows
    state = _read_state(reader, config.keypoints, rows, _FLAGS[version])
    _check(reader.at == len(body), "there are bytes left over")
    return config, state


def _read_state(reader: _Reader, count: int, rows: int, flags: int) -> SessionState:
    time_s, sequence, next_id, height, width, people = reader.unpack("<dQIIIH")
    _check(sequence <= _MAX_SEQUENCE, "sequence")
    _check(1 <= next_id <= MAX_ID + 1 and people < next_id, "identities")
    _check((height > 0) == (width > 0) and max(height, width) <= _MAX_SIDE, "size of the frame")
    fresh = math.isnan(time_s)
    _check(math.isfinite(time_s) or (fresh and not people), "time")
    tracks, smoothing, said = [], {}, {}
    for _ in range(people):
        track, smoothed, heard = _read_track(reader, count, rows, flags)
        _check((tracks[-1].id if tracks else 0) < track.id < next_id, "order of the identities")
        times = (track.time_s, *(each.time_s for each in (smoothed, heard) if each is not None))
        _check(max(times) <= time_s, "order of the times")
        tracks.append(track)
        if smoothed is not None:
            smoothing[track.id] = smoothed
        if heard is not None:
            said[track.id] = heard
    size = (height, width) if height else None
    return SessionState(
        None if fresh else time_s,
        sequence - 1 if sequence else None,
        TrackerState(next_id, size, tuple(tracks)),
        smoothing,
        said,
    )


def _read_track(
    reader: _Reader, count: int, rows: int, known: int
) -> tuple[Track, SmoothState | None, Said | None]:
    number, flags, time_s = reader.unpack("<IBd")
    _check(not flags & ~known and math.isfinite(time_s), "track")
    track = Track(
        number,
        time_s,
        bool(flags & _CONFIDENT),
        points=reader.array(count, 2),
        scores=reader.array(count, low=0.0, high=1.0),
        centre=reader.array(2),
        extent=reader.array(2, low=1.0),
        velocity=reader.array(2),
    )
    smoothed = _read_smoothed(reader, count, rows) if flags & _SMOOTHED else None
    return track, smoothed, _read_said(reader) if flags & _SAID else None


def _read_said(reader: _Reader) -> Said:
    time_s, presence, present, outputs = reader.unpack("<dfBB")
    _check(math.isfinite(time_s) and (math.isnan(presence) or 0 <= presence <= 1), "presence")
    _check(present <= 1 and outputs <= MOST_OUTPUTS, "presence")
    classes = []
    for _ in range(outputs):
        count, chosen = reader.unpack("<HH")
        _check(chosen < count <= MOST_CLASSES, "classes")
        classes.append((reader.array(count, low=0.0, high=1.0), chosen))
    return Said(time_s, None if math.isnan(presence) else presence, bool(present), tuple(classes))


def _read_smoothed(reader: _Reader, count: int, rows: int) -> SmoothState:
    time_s, size = reader.unpack("<df")
    _check(math.isfinite(time_s) and 0 <= size <= _FAR, "smoothing")
    smoothed = SmoothState(
        time_s,
        size,
        memory=reader.array(rows, count, 2),
        raw=reader.array(count, 2),
        ages_s=reader.array(count, low=FORGOTTEN),
        scores=reader.array(count, low=0.0, high=1.0),
    )
    _check(bool(((smoothed.ages_s >= 0) | (smoothed.ages_s == FORGOTTEN)).all()), "age of a joint")
    return smoothed


class _Reader:
    """Takes numbers off bytes, and no more than there are."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def take(self, length: int) -> bytes:
        _check(self.at + length <= len(self._data), "it ends too soon")
        self.at += length
        return self._data[self.at - length : self.at]

    def unpack(self, form: str) -> tuple:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def array(self, *shape: int, low: float = -_FAR, high: float = _FAR) -> Floats:
        """A float32 array of finite numbers from `low` to `high`, which nobody can write to."""
        found = np.frombuffer(self.take(4 * math.prod(shape)), "<f4").astype(np.float32).reshape(shape)
        _check(bool(((found >= low) & (found <= high)).all()), "a number is out of range")
        found.flags.writeable = False
        return found


def _raw(array: Floats) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()


def _check(right: bool, what: str) -> None:
    if not right:
        raise BrokenSession(f"the session cannot be read: {what}")
