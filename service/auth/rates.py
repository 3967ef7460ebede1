"""How often one client may ask: token buckets for frames and for pixels, and a count of open streams.

A bucket holds up to `burst` tokens and gains `rate` of them each second. `take` asks for tokens that are there, and is
for clients that can be refused. `borrow` takes what is not there yet, and is for senders that are held up by flow
control instead: the bucket goes below zero, and `debt_s` says how long they must be held up.

More than a whole bucket can be asked for at once: an image may have more pixels than the burst. It is granted out of a
full bucket, which then is in debt for the rest. So within t seconds no more than burst + rate t is granted beside the
last grant, whatever is asked for.

Source: the generic cell rate algorithm (ITU-T I.371, annex A) in its form as a leaky bucket.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import RateLimited

MOST_ACCOUNTS = 65_536
"""Clients whose buckets are kept; of those without an open stream the one that has asked for nothing the longest makes
room, and begins anew."""


class Bucket:
    """Tokens of one kind. May be used from many threads.

    Args:
        rate: tokens per second; positive.
        burst: most tokens that it holds; positive. It begins full.
        clock: seconds, such as `time.monotonic`.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate > 0 and burst > 0):
            raise ValueError("rate and burst must be positive")
        self._rate, self._burst, self._clock = rate, burst, clock
        self._level, self._since_s = burst, clock()
        self._lock = threading.Lock()

    def take(self, count: float) -> float:
        """Take tokens, if they are there.

        Returns:
            0 where they were; else seconds after which they will be, if nobody else takes any.
        """
        with self._lock:
            missing = min(count, self._burst) - self._filled()
            if missing > 0:
                return missing / self._rate
            self._level -= count
            return 0.0

    def borrow(self, count: float) -> None:
        """Take tokens, there or not."""
        with self._lock:
            self._level = self._filled() - count

    def debt_s(self) -> float:
        """Seconds until nothing is owed; 0 where nothing is."""
        with self._lock:
            return max(0.0, -self._filled() / self._rate)

    def _filled(self) -> float:
        now_s = self._clock()
        self._level = min(self._burst, self._level + (now_s - self._since_s) * self._rate)
        self._since_s = now_s
        return self._level


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask for; 0 is no limit."""

    frames_per_s: float = 0.0
    frames_burst: float = 0.0
    """0: what comes in one second, and at least 1."""
    pixels_per_s: float = 0.0
    pixels_burst: float = 0.0
    """0: what comes in one second."""
    streams: int = 0

    @property
    def none(self) -> bool:
        """Whether there is no limit at all."""
        return not (self.frames_per_s or self.pixels_per_s or self.streams)


NO_LIMITS = Limits()


@dataclass(slots=True)
class _Streams:
    """Of one client, whatever its limits were when they began."""

    open: int = 0


class Account:
    """What one client has asked for lately.

    Args:
        limits: what it may ask for.
        refused: told the reason of every refusal.
        clock: seconds, such as `time.monotonic`.
        before: the same client's account under other limits, whose streams are open still.
    """

    def __init__(
        self,
        limits: Limits,
        refused: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
        before: Account | None = None,
    ) -> None:
        self.limits = limits
        self._refused = refused
        self._frames = self._pixels = None
        if limits.frames_per_s:
            burst = limits.frames_burst or limits.frames_per_s
            self._frames = Bucket(limits.frames_per_s, max(1.0, burst), clock)
        if limits.pixels_per_s:
            self._pixels = Bucket(
                limits.pixels_per_s, max(1.0, limits.pixels_burst or limits.pixels_per_s), clock
            )
        self._streams = _Streams() if before is None else before._streams

    def frame(self) -> None:
        """A request, or a frame of a live stream. Raises RateLimited."""
        if self._frames is not None:
            self._refuse(self._frames.take(1), "frames_per_s", "requests and frames")

    def pixels(self, count: int) -> None:
        """An image of so many pixels, before it is decoded. Raises RateLimited."""
        if self._pixels is not None:
            self._refuse(self._pixels.take(count), "pixels_per_s", "pixels")

    def lend_pixels(self, count: int) -> None:
        """The same of a sender that is held up afterwards."""
        if self._pixels is not None:
            self._pixels.borrow(count)

    def lend_frame(self) -> float:
        """A frame of a sender that is held up: for so many seconds."""
        if self._frames is not None:
            self._frames.borrow(1)
        return max((each.debt_s() for each in (self._frames, self._pixels) if each is not None), default=0.0)

    @property
    def counts_pixels(self) -> bool:
        """Whether pixels have a limit."""
        return self._pixels is not None

    @property
    def open_streams(self) -> int:
        """How many streams have begun and not ended."""
        return self._streams.open

    def open_stream(self) -> None:
        """A stream begins; whoever calls this must call `close_stream`. Raises RateLimited."""
        if 0 < self.limits.streams <= self._streams.open:
            self._refuse(1.0, "streams", "open streams")
        self._streams.open += 1

    def close_stream(self) -> None:
        """A stream has ended."""
        self._streams.open -= 1

    def _refuse(self, wait_s: float, reason: str, what: str) -> None:
        if wait_s > 0:
            self._refused(reason)
            raise RateLimited(
                f"too many {what} for this client; try again in {wait_s:.3g} s", retry_after_s=wait_s
            )


class Accounts:
    """The accounts of all clients that have limits, as many as `capacity`."""

    def __init__(
        self,
        refused: Callable[[str], None] = lambda reason: None,
        capacity: int = MOST_ACCOUNTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refused, self._capacity, self._clock = refused, capacity, clock
        self._kept: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, owner: str, limits: Limits) -> Account:
        """The account of one client. With other limits it begins anew, but for the streams that are open."""
        account = self._kept.get(owner)
        if account is None:
            self._make_room()
        if account is None or account.limits != limits:
            account = self._kept[owner] = Account(limits, self._refused, self._clock, account)
        self._kept.move_to_end(owner)
        return account

    def _make_room(self) -> None:
        """For one more."""
        for _ in range(len(self._kept)):
            if len(self._kept) < self._capacity:
                return
            owner, longest = self._kept.popitem(last=False)
            if longest.open_streams:
                self._kept[owner] = longest
