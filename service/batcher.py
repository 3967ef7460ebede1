"""Many clients' items -> batches for a few worker threads; one answer for each.

Items wait in one bounded queue. Each worker takes its share of what is there, as if all workers came for theirs now,
and at most a full batch; it works on it, and hands all answers back to the event loop in one call. There is no timer:
an item that finds an idle worker starts at once, and under load batches fill by themselves while the workers are busy.
To take the share alone costs nothing where the queue fills all batches, and below that saves much waiting: items that
a greedy worker would hold until the whole of its batch is done are begun by the next one.
Of several idle workers the one that worked last is woken: its memory is still in its processor's cache, and the other
processor is left to the event loop.

What holds whatever happens:
- every item gets its own answer or its own error, once;
- a client may leave at any moment: an item cancelled while it waits is never worked on, and nobody else notices;
- an error of a batch is the answer of that batch's items and of no others;
- a full queue refuses at once, and so does one that is too long for an item's deadline, by what items have cost of
  late; an item whose deadline passes is answered then, and not worked on if it still waits;
- a worker that hangs, or whose thread dies, is given up: its batch gets an error, a fresh worker takes its place, and
  what it may still answer later is thrown away. A thread cannot be killed, so one that hangs for good keeps its memory.

All methods belong to the event loop's thread; only the workers run elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from service.errors import DeadlineExceeded, NotReady, Overloaded, WorkerLost
from service.logs import facts, log

Item = TypeVar("Item")
Answer = TypeVar("Answer")

Work = Callable[[Sequence[Item]], Sequence[Answer | Exception]]
"""Answers a batch: one answer or error per item, in order."""


NEWEST_SHARE = 0.1
"""How much the newest batch counts in the learned cost of an item."""
PLENTY = 0.75
"""A queue with so much of what would fill everybody's batches is shared out in full ones: the rest is on its way."""
STUCK_COSTS = 10.0
"""A batch that takes this many times the learned cost of a full one, and `stuck_s` at least, will not end."""


class Observer(Protocol):
    """Hears about the queue; called from worker threads."""

    def batch_taken(self, waited_s: Sequence[float]) -> None:
        """A batch left the queue; each of its items had waited this long."""

    def refused(self, reason: str) -> None:
        """An item will not be worked on: the queue is `full`, the answer would be `late`, the deadline has `expired` or
        the client is `gone`; called from any thread."""

    def worker_replaced(self, reason: str) -> None:
        """A worker was given up because it is `stuck` or `died`; called from the event loop."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    future: asyncio.Future[Answer]
    since_s: float
    deadline_s: float


@dataclass(slots=True, eq=False)
class _Worker(Generic[Item, Answer]):
    number: int
    work: Work[Item, Answer]
    processor: int | None
    thread: threading.Thread | None = None
    woken: threading.Lock = field(default_factory=threading.Lock)
    """Held, but for the moment in which it is woken."""
    current: tuple[Sequence[_Waiting[Item, Answer]], float] | None = None
    """The batch it is at, and since when; replaced as a whole, so that it may be read at any time."""
    abandoned: bool = False


class Batcher(Generic[Item, Answer]):
    """One queue and its workers.

    Args:
        open_worker: called once per worker, when the batcher starts and when one is replaced; what it returns is used
            by that worker alone.
        workers: number of threads.
        size: most items of a batch.
        capacity: most waiting items.
        processors: one for each worker to be tied to, or empty.
        observer: hears about batches and workers.
        stuck_s: a worker that has been at a batch for this long, and for many times what a batch costs, is given up.
        name: stands in thread names.
    """

    def __init__(
        self,
        open_worker: Callable[[], Work[Item, Answer]],
        *,
        workers: int,
        size: int,
        capacity: int,
        processors: Sequence[int] = (),
        observer: Observer | None = None,
        stuck_s: float = 30.0,
        name: str = "batcher",
    ) -> None:
        if processors and len(processors) != workers:
            raise ValueError(f"{workers} workers need as many processors, got {len(processors)}")
        self.capacity = capacity
        self._open_worker = open_worker
        self._size = size
        self._processors = tuple(processors) or (None,) * workers
        self._observer = observer
        self._stuck_s = stuck_s
        self._name = name
        self._queue: deque[_Waiting[Item, Answer]] = deque()
        self._lock = threading.Lock()
        self._asleep: list[_Worker[Item, Answer]] = []
        self._idle = 0
        self._item_s: float | None = None
        self._stopping = False
        self._unanswered: set[asyncio.Future[Answer]] = set()
        self._hopeful: deque[asyncio.Future[None]] = deque()
        self._workers: list[_Worker[Item, Answer]] = []
        self._watch: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def depth(self) -> int:
        """Items that wait; those being worked on are not among them."""
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """How long the slowest worker has been at its present batch; much more than usual means that it hangs."""
        now = time.monotonic()
        return now - min((now, *(at[1] for worker in self._workers if (at := worker.current))))

    def start(self) -> None:
        """Open the workers and start their threads. Raises whatever `open_worker` raises."""
        self._loop = asyncio.get_running_loop()
        opened = [self._open_worker() for _ in self._processors]
        for number, (work, processor) in enumerate(zip(opened, self._processors, strict=True)):
            self._workers.append(self._started(number, work, processor))
        self._watch = self._loop.call_later(self._stuck_s / 4, self._look_after)

    def submit(self, item: Item, deadline_s: float = math.inf) -> asyncio.Future[Answer]:
        """Queue an item. Cancel the future to take it back.

        Args:
            item: for the workers.
            deadline_s: by `time.monotonic`; from then on the answer is DeadlineExceeded.

        Raises:
            NotReady: the batcher does not run.
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline has passed, or will have by the time that what waits is done.
        """
        try:
            return self._queued(item, deadline_s)
        except Overloaded:
            self._tell_refused("full")
            raise

    def _queued(self, item: Item, deadline_s: float) -> asyncio.Future[Answer]:
        """As `submit`, but tells nobody of a full queue."""
        if self._loop is None or self._stopping:
            raise NotReady("the service is stopping" if self._stopping else "the service is starting")
        now = time.monotonic()
        waiting = _Waiting(item, self._loop.create_future(), now, deadline_s)
        with self._lock:
            if len(self._queue) >= self.capacity:
                raise Overloaded(f"{self.capacity} requests are waiting already; try again a little later")
            if now + self._expected_s() >= deadline_s:
                self._tell_refused("late")
                raise DeadlineExceeded("the answer would come after the deadline of the request")
            self._queue.append(waiting)
            self._wake()
        self._unanswered.add(waiting.future)
        waiting.future.add_done_callback(lambda _: self._done(waiting))
        if deadline_s < math.inf:
            timer = self._loop.call_later(deadline_s - now, self._expire, waiting.future)
            waiting.future.add_done_callback(lambda _: timer.cancel())
        return waiting.future

    async def submit_with_room(self, item: Item, deadline_s: float = math.inf) -> asyncio.Future[Answer]:
        """Queue an item as soon as there is room, first come first served.

        Raises:
            NotReady, DeadlineExceeded: as `submit` does.
        """
        while True:
            try:
                return self._queued(item, deadline_s)
            except Overloaded:
                room = asyncio.get_running_loop().create_future()
                self._hopeful.append(room)
                await room

    async def stop(self, timeout_s: float) -> bool:
        """Take nothing more, answer what waits, end the threads.

        Args:
            timeout_s: after this long, what is still unanswered fails with NotReady.

        Returns:
            Whether everything was answered.
        """
        with self._lock:
            self._stopping = True
            while self._asleep:
                self._wake()
        self._let_in()
        waiting = list(self._unanswered)
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        with self._lock:
            self._queue.clear()
        late = [future for future in waiting if not future.done()]
        for future in late:
            future.set_exception(NotReady("the service stopped before it came to this request"))
        if self._watch is not None:
            self._watch.cancel()
        if not late:  # a worker that is stuck is left to end with the process
            ends_s = time.monotonic() + timeout_s
            for worker in self._workers:
                await asyncio.to_thread(worker.thread.join, max(0.0, ends_s - time.monotonic()))
        return not late

    def _expected_s(self) -> float:
        """How long one more item will take. With a worker at leisure nothing: so a wrong guess can be unlearned."""
        if self._item_s is None or (self._idle and not self._queue):
            return 0.0
        ahead, workers = len(self._queue), len(self._processors)
        with_it = min(self._size, math.ceil((ahead + 1) / workers))
        return (ahead / workers + with_it) * self._item_s

    def _started(self, number: int, work: Work[Item, Answer], processor: int | None) -> _Worker[Item, Answer]:
        worker = _Worker(number, work, processor)
        worker.woken.acquire()
        worker.thread = threading.Thread(
            target=self._run, args=(worker,), name=f"{self._name}-{number}", daemon=True
        )
        worker.thread.start()
        return worker

    def _look_after(self) -> None:
        """Give up the workers that hang. Runs on the event loop, several times per `stuck_s`."""
        self._watch = self._loop.call_later(self._stuck_s / 4, self._look_after)
        limit_s = max(self._stuck_s, STUCK_COSTS * self._size * (self._item_s or 0.0))
        for worker in list(self._workers):
            current = worker.current
            if current is not None and time.monotonic() - current[1] >= limit_s:
                self._give_up(worker, "stuck", current)
        self._fill_places()

    def _give_up(
        self,
        worker: _Worker[Item, Answer],
        reason: str,
        seen: tuple[Sequence[_Waiting[Item, Answer]], float] | None = None,
    ) -> None:
        """Answer a lost worker's batch, and open another worker.

        Args:
            worker: the lost one.
            reason: `stuck` or `died`.
            seen: for one that is stuck: at what. Not given up if it has gone on since.
        """
        with self._lock:
            current = worker.current
            if worker.abandoned or (seen is not None and current is not seen):
                return
            worker.abandoned = True
        frame = sys._current_frames().get(worker.thread.ident)
        where = "".join(traceback.format_stack(frame)) if reason == "stuck" and frame else None
        log.error("worker replaced", extra=facts(batcher=self._name, reason=reason, where=where))
        for waiting in current[0] if current else ():
            if not waiting.future.done():
                waiting.future.set_exception(WorkerLost(f"the worker that had this request: {reason}"))
        if self._observer is not None:
            self._observer.worker_replaced(reason)
        self._fill_places()
        self._let_in()

    def _fill_places(self) -> None:
        """Open a worker in the place of each that was given up; what cannot be opened now is tried again later."""
        for place, lost in enumerate(self._workers):
            if lost.abandoned:
                try:
                    self._workers[place] = self._started(lost.number, self._open_worker(), lost.processor)
                except Exception as error:
                    log.error("no worker could be opened", exc_info=error)

    def _run(self, worker: _Worker[Item, Answer]) -> None:
        """The life of a worker's thread; however it ends early, the event loop hears of it."""
        try:
            self._serve(worker)
        except BaseException as error:
            log.error("a worker's thread ends", exc_info=error)
            self._on_loop(self._give_up, worker, "died")

    def _serve(self, worker: _Worker[Item, Answer]) -> None:
        if worker.processor is not None:
            with contextlib.suppress(
                OSError
            ):  # the processor was taken from us since; running is what counts
                os.sched_setaffinity(0, {worker.processor})
        while batch := self._take(worker):
            started = worker.current[1]
            left_by: BaseException | None = None
            answers: Sequence[Answer | Exception]
            try:
                if self._observer is not None:
                    self._observer.batch_taken([started - waiting.since_s for waiting in batch])
                answers = worker.work([waiting.item for waiting in batch])
                if len(answers) != len(batch):
                    raise RuntimeError(f"{len(batch)} items got {len(answers)} answers")
            except Exception as error:
                answers = [error] * len(batch)
            except BaseException as error:  # would end the event loop if it were raised there
                left_by = error
                answers = [WorkerLost(f"the worker was left by {error!r}")] * len(batch)
            worker.current = None
            if not self._on_loop(self._deliver, worker, batch, answers, time.monotonic() - started):
                return
            if left_by is not None:
                raise left_by
            batch = answers = ()  # not kept until the next ones come

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> bool:
        """Have the event loop make a call; False where it is closed, and with it everyone who waited."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return False
        return True

    def _take(self, worker: _Worker[Item, Answer]) -> list[_Waiting[Item, Answer]]:
        """The next batch; empty when there will be no more for this worker."""
        with self._lock:
            while True:
                if worker.abandoned:
                    return []
                while not self._queue and not self._stopping:
                    self._sleep(worker)
                if not self._queue:
                    return []
                workers = len(self._processors)
                plenty = len(self._queue) >= PLENTY * self._size * workers
                share = self._size if plenty else math.ceil(len(self._queue) / workers)
                batch: list[_Waiting[Item, Answer]] = []
                now = time.monotonic()
                while self._queue and len(batch) < share:
                    waiting = self._queue.popleft()
                    if waiting.future.done():
                        continue
                    if now < waiting.deadline_s:
                        batch.append(waiting)
                    else:
                        self._tell_refused("expired")
                if self._queue:
                    self._wake()
                if batch:
                    worker.current = (batch, now)
                    return batch

    def _wake(self) -> None:
        """Wake the worker that fell asleep last, where there is one. With the lock held."""
        if self._asleep:
            self._asleep.pop().woken.release()

    def _sleep(self, worker: _Worker[Item, Answer]) -> None:
        """Wait to be woken, without the lock that is held. Until it has it again, the worker counts as idle."""
        self._asleep.append(worker)
        self._idle += 1
        self._lock.release()
        try:
            worker.woken.acquire()
        finally:
            self._lock.acquire()
            self._idle -= 1

    def _deliver(
        self,
        worker: _Worker[Item, Answer],
        batch: Sequence[_Waiting[Item, Answer]],
        answers: Sequence[Answer | Exception],
        spent_s: float,
    ) -> None:
        if worker.abandoned:  # its batch has been answered
            return
        each_s = spent_s / len(batch)
        known_s = each_s if self._item_s is None else self._item_s
        self._item_s = known_s + NEWEST_SHARE * (each_s - known_s)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.future.done():
                continue
            if isinstance(answer, StopIteration):  # which a future cannot hold
                waiting.future.set_exception(RuntimeError(f"the worker raised {answer!r}"))
            elif isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)
        self._let_in()

    def _expire(self, future: asyncio.Future[Answer]) -> None:
        if not future.done():
            future.set_exception(DeadlineExceeded("the deadline of the request has passed"))

    def _done(self, waiting: _Waiting[Item, Answer]) -> None:
        self._unanswered.discard(waiting.future)
        if waiting.future.cancelled() or isinstance(waiting.future.exception(), DeadlineExceeded):
            with self._lock, contextlib.suppress(ValueError):  # not there: a worker has it already
                self._queue.remove(waiting)
                self._tell_refused("gone" if waiting.future.cancelled() else "expired")
            self._let_in()

    def _tell_refused(self, reason: str) -> None:
        if self._observer is not None:
            self._observer.refused(reason)

    def _let_in(self) -> None:
        """Wake all who wait for room, in order; those who find none line up again in the same order."""
        while self._hopeful:
            room = self._hopeful.popleft()
            if not room.done():
                room.set_result(None)
