"""One thread that makes all calls of a net, for many threads that prepare crops: what a GPU wants.

On a processor the worker that cut the crops runs the net as well (`stages.Stages` alone): the cores are the device,
and a hop to another thread costs more than it brings. A GPU stands still while crops are cut, and costs nearly the same
for eight crops as for one. So there are more workers than cores, each of which waits here for its answer while others
decode and warp; and the calls of several workers become one, up to a full batch, for which the first waits no longer
than `window_s`.

The workers are those of `batcher`, with all that it promises; each has one call here at a time, so the queue is bounded
by their number.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field

import numpy as np

from service.errors import NotReady, WorkerLost
from service.heads import Answers
from service.logs import facts, log
from service.types import Floats, Image

Answer = Floats | Answers
"""Of N crops; a slice of it is that of a part of them."""
Net = Callable[[Image], Answer]
"""(N, h, w, 3) crops to N answers."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    net: Net
    crops: Image
    since_s: float
    answer: futures.Future[tuple[Answer, int]] = field(default_factory=futures.Future)


class Device:
    """What runs the net of one model. Its methods may be called from many threads.

    Args:
        size: most crops of one call of the net.
        window_s: longest that a call waits for company.
        ran: told how many crops each call of the net had.
        stuck_s: a call of the net that takes this long will not end: it fails, and another thread goes on.
        name: stands in the name of the thread.
    """

    def __init__(
        self, *, size: int, window_s: float, ran: Callable[[int], None], stuck_s: float, name: str = "device"
    ) -> None:
        self._size = size
        self._window_s = window_s
        self._ran = ran
        self._stuck_s = stuck_s
        self._name = name
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._current: tuple[Sequence[_Call], float] | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """Calls that wait; those that the net is at are not among them."""
        return len(self._waiting)

    def call(self, net: Net, crops: Image) -> tuple[Answer, int]:
        """Call the net, maybe together with others who call the same.

        Args:
            net: two are the same if they are equal.
            crops: (N, h, w, 3), at most `size`; left alone until this returns.

        Returns:
            The N answers, and how many crops were in that call of the net.

        Raises:
            NotReady: the device was closed.
            WorkerLost: the net does not come back.
            Exception: whatever the net raises; all who shared that call get it.
        """
        call = _Call(net, crops, time.monotonic())
        with self._changed:
            if self._closed:
                raise NotReady("the model is no longer served")
            if self._thread is None:
                self._start()
            self._waiting.append(call)
            self._changed.notify_all()
        while not futures.wait((call.answer,), self._stuck_s).done:
            self._look_after()
        return call.answer.result()

    def close(self) -> None:
        """Take no more calls, and fail those that wait."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for call in left:
            call.answer.set_exception(NotReady("the model is no longer served"))

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def _look_after(self) -> None:
        """Give the thread up if it hangs, answer those who wait for it, and go on with another one."""
        with self._changed:
            if self._current is None or time.monotonic() - self._current[1] < self._stuck_s:
                return
            (calls, _), self._current = self._current, None
            self._start()
        log.error("the net does not come back: another thread goes on", extra=facts(device=self._name))
        for call in calls:
            call.answer.set_exception(WorkerLost("the net does not come back"))

    def _serve(self) -> None:
        while calls := self._gather():
            answer: Answer | None = None
            fault: BaseException | None = None
            try:
                crops = calls[0].crops if len(calls) == 1 else np.concatenate([each.crops for each in calls])
                answer = calls[0].net(crops)
                if len(answer) != len(crops):
                    raise RuntimeError(f"{len(crops)} crops got {len(answer)} answers")
                self._ran(len(crops))
            except BaseException as error:  # belongs to who called, whatever it is
                fault = error
            with self._changed:
                if self._thread is not threading.current_thread():
                    return  # it was given up, and they have been answered
                self._current = None
            start = 0
            for call in calls:
                if fault is not None:
                    call.answer.set_exception(fault)
                else:
                    end = start + len(call.crops)
                    call.answer.set_result((answer[start:end], len(crops)))
                    start = end

    def _gather(self) -> list[_Call]:
        """Calls of the same net, up to a full batch; empty when there will be no more for this thread."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._waiting and not self._closed:
                first = self._waiting[0]
                left_s = first.since_s + self._window_s - time.monotonic()
                alike = [each for each in self._waiting if each.net == first.net]
                if left_s > 0 and sum(len(each.crops) for each in alike) < self._size:
                    self._changed.wait(left_s)
                    continue
                calls: list[_Call] = []
                count = 0
                for each in alike:
                    count += len(each.crops)
                    if calls and count > self._size:
                        break
                    calls.append(each)
                for each in calls:
                    self._waiting.remove(each)
                self._current = (calls, time.monotonic())
                return calls
            return []
