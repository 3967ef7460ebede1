"""What the numbers and times of a stream's frames must be: the rules of the contract that need no model."""

from __future__ import annotations

import math
from collections.abc import Callable

from service.errors import InvalidRequest
from service.streams.contract import MAX_SEQUENCE, StreamFrame
from service.streams.session import MAX_TIME_S

BACK_S = 1.0
"""A frame that was taken so much before the one before it means that the clock was set back."""
_TICK_S = 1e-6
"""Least interval between frames that are timed by their arrival."""


def check_sequence(sequence: int, before: int | None) -> int:
    """The number of a frame, if it may come after the one of `before`.

    Raises:
        InvalidRequest: it does not rise, or is too large.
    """
    if not (-1 if before is None else before) < sequence <= MAX_SEQUENCE:
        after = "" if before is None else f" follows {before}"
        raise InvalidRequest(f"sequence must rise from 0 up to 2^63 - 1: {sequence}{after}", "sequence")
    return sequence


class Order:
    """The order of one stream's frames.

    Args:
        sequence: of the last frame of what is continued; None for a new stream.
        time_s: when that one was taken.
        wall: what time it is, for frames without a timestamp.
        may_be_untimed: frames may come without timestamps.
    """

    def __init__(
        self, sequence: int | None, time_s: float | None, wall: Callable[[], float], *, may_be_untimed: bool
    ) -> None:
        self._sequence, self._time_s = sequence, time_s
        self._wall, self._may_be_untimed = wall, may_be_untimed
        self._timed: bool | None = None

    def take(self, frame: StreamFrame) -> tuple[float, InvalidRequest | None]:
        """When the next frame was taken, and what is wrong with that: an error of this frame alone.

        Raises:
            InvalidRequest: the contract is broken; the stream ends.
        """
        self._sequence = check_sequence(frame.sequence, self._sequence)
        before, time_s = self._time_s, frame.timestamp_s
        if self._timed is not None and self._timed is not (time_s is not None):
            raise InvalidRequest("either all frames of a stream have a timestamp, or none", "timestamp_s")
        self._timed = time_s is not None
        if time_s is None:
            if not self._may_be_untimed:
                raise InvalidRequest("frames of a file need timestamps", "timestamp_s")
            time_s = self._wall()
            if before is not None and before - BACK_S < time_s <= before:
                time_s = before + _TICK_S
        if not (math.isfinite(time_s) and abs(time_s) <= MAX_TIME_S):
            return time_s, InvalidRequest("a timestamp must be a finite number of seconds", "timestamp_s")
        if before is not None and time_s <= before:
            fault = InvalidRequest(f"time must move on: {time_s!r} follows {before!r}", "timestamp_s")
            if time_s <= before - BACK_S:
                raise fault
            return time_s, fault
        self._time_s = time_s
        return time_s, None
