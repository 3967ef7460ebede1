"""One open stream: which frames are computed, which are dropped, and in which order they are answered.

    put -> mailbox -> runner(s): plan, predict, smooth -> slots in order -> next_outcome

A transport calls `put` for every frame it reads and `next_outcome` for every answer it can write; neither knows the
other's pace. What holds whatever happens:

- every frame that `put` took gets one outcome, and outcomes come in the order of the frames;
- at most `in_flight` frames of a stream are in the model's queue, so that a fast camera has no larger share of it than
  a slow one: the queue is first come, first served;
- nothing grows without limit: a live stream keeps `mailbox` images, and takes nothing more after `UNREAD` unread
  outcomes; a file stream takes nothing more after `window` of them;
- an image whose answer nobody reads is not computed: runners wait while `ANSWERS_AHEAD` answers are unread.

Transport-free; the clocks are handed in. All methods belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service import status, tracing
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.streams.contract import (
    Answered,
    Clocks,
    Closing,
    Dropped,
    DropReason,
    Failed,
    Mode,
    Opened,
    Outcome,
    StreamFrame,
)
from service.streams.looking import Predict, look
from service.streams.order import Order
from service.streams.session import Session

UNREAD = 256
"""Most outcomes of a live stream that nobody has read yet, waiting frames included."""
ANSWERS_AHEAD = 4
"""Answers that may be unread before the next frame is computed."""


class Observer(Protocol):
    """Is told what happens, for metrics."""

    def frame(self, outcome: Outcome) -> None:
        """A frame has its outcome."""
        ...


@dataclass(eq=False, slots=True)
class _Slot:
    """One frame on its way."""

    frame: StreamFrame | None
    arrived_s: float
    time_s: float
    done: asyncio.Future[None]
    """Done when it has its outcome."""
    outcome: Outcome | None = None


class Stream:
    """One stream.

    Args:
        session: what is remembered.
        opened: how it was opened.
        predict: answers frames.
        sign: the session as a token.
        clocks: what time it is.
        observer: is told of every frame.
        in_flight: most frames in the model's queue; with tracking always 1, for it needs every answer before it can
            look at the next frame.
        window: most unanswered frames in file mode.
        max_boxes: most boxes that `predict` takes.
    """

    def __init__(
        self,
        session: Session,
        opened: Opened,
        predict: Predict,
        *,
        sign: Callable[[Session], str],
        clocks: Clocks,
        observer: Observer,
        in_flight: int = 1,
        window: int = 16,
        max_boxes: int = 32,
    ) -> None:
        self.session = session
        self.opened = opened
        self.failure: Exception | None = None
        """Why the stream ended; None where the client ended it."""
        self.moved_s = clocks.monotonic()
        """When the client last sent a message or read an outcome."""
        self.ended_s: float | None = None
        """When the last frame was taken; None while more may come."""
        self.counts: dict[str, int] = {}
        """Frames by outcome: `answered`, `failed`, `dropped`."""
        self._predict, self._sign, self._clocks, self._observer = predict, sign, clocks, observer
        self._max_boxes = max_boxes
        self._live = opened.mode is Mode.LIVE
        self._most = UNREAD if self._live else window
        self._mailbox: deque[_Slot] = deque()
        self._slots: deque[_Slot] = deque()
        self._written: _Slot | None = None
        self._ahead = 0
        self._open = True
        self._draining = False
        self._order = Order(session.sequence, session.time_s, clocks.wall, may_be_untimed=self._live)
        self._last: asyncio.Future[None] | None = None
        self._room, self._work, self._ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        count = 1 if opened.tracking else in_flight
        self._trace = tracing.current()
        self._runners = [asyncio.create_task(self._run()) for _ in range(count)]

    async def put(self, frame: StreamFrame) -> None:
        """Take a frame; waits while there are too many outcomes that nobody has read. Ignored after the end.

        Raises:
            InvalidRequest: it breaks the contract; end the stream by `fail`.
        """
        while self._open and len(self._slots) >= self._most:
            self._room.clear()
            await self._room.wait()
        if not self._open:
            return
        self.moved_s = arrived_s = self._clocks.monotonic()
        time_s, fault = self._order.take(frame)
        slot = _Slot(frame, arrived_s, time_s, asyncio.get_running_loop().create_future())
        self._slots.append(slot)
        if frame.error is not None or fault is not None:
            self._settle(slot, Failed(frame.sequence, frame.error or fault))
            return
        self._mailbox.append(slot)
        while self._live and len(self._mailbox) > self.opened.mailbox:
            self._drop(self._mailbox.popleft(), DropReason.SUPERSEDED)
        self._work.set()

    def touch(self) -> None:
        """The client was heard of."""
        self.moved_s = self._clocks.monotonic()

    def finish(self) -> None:
        """There are no more frames; what was taken is answered."""
        if self._open:
            self._open, self.ended_s = False, self._clocks.monotonic()
        for event in (self._room, self._work, self._ready):
            event.set()

    def fail(self, error: Exception) -> None:
        """End the stream with this error, after what was taken is answered."""
        if self.failure is None:
            self.failure = error
        self.finish()

    def drain(self) -> None:
        """End the stream because the service stops: with a token, and NotReady."""
        if self.failure is None:
            self._draining = True
            while self._live and self._mailbox:
                self._drop(self._mailbox.popleft(), DropReason.DRAINING)
        self.fail(NotReady("the service is stopping"))

    async def stop(self) -> None:
        """Compute nothing more, and answer only what has its outcome; `session` stays as it is then."""
        self.finish()
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._mailbox.clear()
        self._slots = deque(slot for slot in self._slots if slot.outcome is not None)
        self._ready.set()

    async def next_outcome(self) -> Outcome | None:
        """The next outcome, when the one before was written; None at the end of the stream, see `failure`."""
        if self._written is not None:
            if isinstance(self._written.outcome, Answered):
                self._ahead -= 1
                self._work.set()
            self._written = None
            self._slots.popleft()
            self._room.set()
            self.touch()
        while True:
            if self._slots and (slot := self._slots[0]).outcome is not None:
                self._written = slot
                return slot.outcome
            if not self._open and not self._slots:
                if not self._draining:
                    return None
                self._draining = False
                return Closing(self._sign(self.session), self.session.sequence)
            self._ready.clear()
            await self._ready.wait()

    async def _run(self) -> None:
        while (slot := await self._take()) is not None:
            before, self._last = self._last, slot.done
            trace = None
            if self._trace is not None:
                trace = self._trace.follow("frame", time.perf_counter() - self._age_s(slot))
            outcome = await self._answer(slot, before)
            if trace is not None:
                trace.end(_told(outcome))
            if isinstance(outcome, Answered):
                self._ahead += 1
            self._settle(slot, outcome)

    async def _take(self) -> _Slot | None:
        """The next frame to compute; None when there will be none."""
        while True:
            if self._mailbox and self._ahead < ANSWERS_AHEAD:
                return self._mailbox.popleft()
            if not self._open and not self._mailbox:
                return None
            self._work.clear()
            await self._work.wait()

    async def _answer(self, slot: _Slot, before: asyncio.Future[None] | None) -> Outcome:
        """Compute a frame, and take it in after the one `before` it was."""
        frame, failed = slot.frame, None
        deadline_s = slot.arrived_s + self.opened.max_age_s if self._live else math.inf
        try:
            if self._clocks.monotonic() >= deadline_s:
                raise DeadlineExceeded("the frame waited for too long")
            prediction, planned = await look(
                self.session,
                self.opened,
                self._predict,
                frame,
                slot.time_s,
                wait_for_room=not self._live,
                deadline_s=deadline_s,
                max_boxes=self._max_boxes,
            )
        except Exception as error:
            failed = error
        if before is not None and not before.done():
            await asyncio.shield(before)  # or being stopped would cancel the other frame's future
        if failed is None:
            began_s = time.perf_counter()
            try:
                poses = self.session.update(
                    slot.time_s, prediction.poses, prediction.size, planned=planned, sequence=frame.sequence
                )
            except Exception as error:
                failed = error
        if failed is None:
            smooth_s = tracing.spent("smooth", began_s)
            token = self._sign(self.session) if frame.want_token else None
            return Answered(frame.sequence, prediction, poses, self._age_s(slot), token, smooth_s)
        reason = _why_dropped(failed) if self._live else None
        if reason is None:
            return Failed(frame.sequence, failed)
        return Dropped(frame.sequence, reason, self._age_s(slot))

    def _drop(self, slot: _Slot, reason: DropReason) -> None:
        self._settle(slot, Dropped(slot.frame.sequence, reason, self._age_s(slot)))

    def _settle(self, slot: _Slot, outcome: Outcome) -> None:
        slot.outcome = outcome
        slot.frame = None  # the image has done its duty
        slot.done.set_result(None)
        kind = type(outcome).__name__.lower()
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._observer.frame(outcome)
        self._ready.set()

    def _age_s(self, slot: _Slot) -> float:
        return self._clocks.monotonic() - slot.arrived_s


def _told(outcome: Outcome) -> str:
    """In a trace."""
    if isinstance(outcome, Failed):
        return status.status_of(outcome.error).code
    return outcome.reason.value if isinstance(outcome, Dropped) else status.OK


def _why_dropped(error: Exception) -> DropReason | None:
    if isinstance(error, Overloaded):
        return DropReason.OVERLOADED
    return DropReason.DEADLINE if isinstance(error, DeadlineExceeded) else None
