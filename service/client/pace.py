"""How often a live stream sends: as often as the service keeps up with, found by trying (AIMD).

The rate rises steadily while frames are looked at soon after they arrive, and falls by a factor when one has waited
for long or was dropped (Chiu and Jain 1989). What counts is how long a frame waited at the service, which is its age
less what was done for it: a slow model is no overload.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """The settings of a pace."""

    start_hz: float = 15.0
    """At the beginning."""
    least_hz: float = 1.0
    """Never slower, so that it is noticed when there is room again."""
    most_hz: float = 60.0
    """Never faster."""
    rise_hz: float = 2.0
    """By how much the rate rises in a second."""
    fall: float = 0.7
    """What is left of the rate after a frame that came too late."""
    waited_ms: float = 50.0
    """A frame that waited for longer came too late."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not (
            0 < self.least_hz <= self.start_hz <= self.most_hz and self.rise_hz > 0 and 0 < self.fall < 1
        ):
            raise ValueError(f"rates must be positive, start_hz between the others, fall below 1: {self}")


class Pace:
    """When the next frame may be sent.

    Args:
        rates: the settings.
        clock: as `time.monotonic`.
    """

    def __init__(self, rates: Rates | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates, self._clock = rates or Rates(), clock
        self.rate_hz = self._rates.start_hz
        """Frames a second, at present."""
        self._next_s = clock()
        self._sent = self._known = -1

    def wait_s(self) -> float:
        """How long to wait before the next frame is sent."""
        return max(0.0, self._next_s - self._clock())

    def sent(self, sequence: int) -> None:
        """A frame goes out; numbers rise."""
        # From when it was due, or a late wake-up would lower the rate; but what was not sent in a pause is not made up.
        due_s = max(self._next_s, self._clock() - 1 / self.rate_hz)
        self._next_s, self._sent = due_s + 1 / self.rate_hz, sequence

    def answered(self, sequence: int, waited_ms: float) -> None:
        """A frame was looked at after it had waited at the service for so long."""
        if waited_ms > self._rates.waited_ms:
            self.dropped(sequence)
        else:
            # Answers come at the rate itself, so this adds up to `rise_hz` in a second.
            self.rate_hz = min(self._rates.most_hz, self.rate_hz + self._rates.rise_hz / self.rate_hz)

    def dropped(self, sequence: int) -> None:
        """The service dropped a frame because there was too much to do."""
        if sequence > self._known:  # or it was sent before the last fall, and says nothing new
            self.rate_hz = max(self._rates.least_hz, self.rate_hz * self._rates.fall)
            self._known = self._sent
