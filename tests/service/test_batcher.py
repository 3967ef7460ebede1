"""What holds whatever clients and workers do. Workers here are gates: a batch goes on when the test says so."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import cpus
from service.batcher import Batcher
from service.errors import NotReady, Overloaded, WorkerLost

WAIT_S = 20.0
"""Far more than anything here takes; reached only by a failure."""


class Gate:
    """Work that stands still until it is let through."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.entered = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.let_through.acquire(timeout=WAIT_S)
        return [("answer to", item) for item in items]

    async def wait_until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=WAIT_S)


def run(test: Callable[[], Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(bounded())


def made(work: Callable[[Sequence[Any]], Any], **options: Any) -> Batcher:
    batcher = Batcher(lambda: work, **{"workers": 1, "size": 4, "capacity": 8} | options)
    batcher.start()
    return batcher


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(0, 60),
    workers=st.integers(1, 3),
    size=st.integers(1, 9),
    leavers=st.sets(st.integers(0, 59)),
)
def test_each_gets_its_own_answer_and_a_leaver_harms_nobody(
    count: int, workers: int, size: int, leavers: set[int]
) -> None:
    sizes: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [item * 10 for item in items]

    async def test() -> None:
        batcher = made(work, workers=workers, size=size, capacity=60)
        futures = [batcher.submit(item) for item in range(count)]
        for item in leavers & set(range(count)):
            futures[item].cancel()
        for item, future in enumerate(futures):
            if item in leavers:
                assert future.cancelled()
            else:
                assert await future == item * 10
        assert await batcher.stop(WAIT_S)

    run(test)
    assert all(1 <= taken <= size for taken in sizes)


def test_the_worker_that_worked_last_is_woken_first() -> None:
    opened = itertools.count()

    def open_worker() -> Callable[[Sequence[Any]], list[Any]]:
        number = next(opened)
        return lambda items: [(number, item) for item in items]

    async def test() -> None:
        batcher = Batcher(open_worker, workers=3, size=1, capacity=8)
        batcher.start()
        await until_idle(batcher, 3)
        first, _ = await batcher.submit("warms the cache")
        for item in range(20):
            await until_idle(batcher, 3)
            assert await batcher.submit(item) == (first, item)
        await batcher.stop(WAIT_S)

    run(test)


def test_a_worker_leaves_the_others_their_share() -> None:
    """Also of workers that are busy: what a greedy one took would wait until the whole of its batch is done."""

    async def test() -> None:
        gate = Gate()
        batcher = made(gate, workers=2, size=8, capacity=32)
        firsts = []
        for each in range(2):
            firsts.append(batcher.submit(f"keeps {each} busy"))
            await gate.wait_until_entered()
        rest = [batcher.submit(item) for item in range(30)]
        for left in (30 - 8, 22 - 8, 14 - 8, 6 - 3, 3 - 2, 1 - 1):  # 14 nearly fill two batches
            gate.let_through.release()
            await gate.wait_until_entered()
            assert batcher.depth == left
        gate.let_through.release(2)
        answers = await asyncio.gather(*firsts, *rest)
        assert answers[2:] == [("answer to", item) for item in range(30)]
        assert gate.batches[2] == list(range(8)), "in the order they came"
        await batcher.stop(WAIT_S)

    run(test)


async def until_idle(batcher: Batcher, workers: int) -> None:
    """An answer is there a moment before its worker sleeps again."""
    while len(batcher._asleep) < workers:
        await asyncio.sleep(0.001)


def test_who_leaves_while_waiting_is_never_worked_on() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate)
        first = batcher.submit("first")
        await gate.wait_until_entered()
        leaver, stayer = batcher.submit("leaver"), batcher.submit("stayer")
        leaver.cancel()
        gate.let_through.release(2)
        assert await stayer == ("answer to", "stayer")
        assert await first == ("answer to", "first")
        assert gate.batches == [["first"], ["stayer"]]
        await batcher.stop(WAIT_S)

    run(test)


def test_who_leaves_makes_room() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, capacity=1)
        first = batcher.submit("first")
        await gate.wait_until_entered()
        leaver = batcher.submit("leaver")
        patient = asyncio.create_task(batcher.submit_with_room("patient"))
        await asyncio.sleep(0)
        leaver.cancel()
        answer = await patient
        assert batcher.depth == 1
        gate.let_through.release(2)
        assert await answer == ("answer to", "patient")
        await first
        await batcher.stop(WAIT_S)

    run(test)


def test_who_leaves_while_worked_on_does_not_disturb_the_others() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate)
        batcher.submit("blocks")
        await gate.wait_until_entered()
        leaver, stayer = batcher.submit("leaver"), batcher.submit("stayer")
        gate.let_through.release()
        await gate.wait_until_entered()
        leaver.cancel()
        gate.let_through.release()
        assert await stayer == ("answer to", "stayer")
        await batcher.stop(WAIT_S)

    run(test)


def test_a_full_queue_refuses_at_once_and_serves_again_later() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, capacity=2)
        batcher.submit(0)
        await gate.wait_until_entered()
        waiting = [batcher.submit(1), batcher.submit(2)]
        assert batcher.depth == 2
        with pytest.raises(Overloaded, match="2 requests"):
            batcher.submit(3)
        gate.let_through.release(3)
        assert await asyncio.gather(*waiting) == [("answer to", 1), ("answer to", 2)]
        assert await batcher.submit(4) == ("answer to", 4)
        await batcher.stop(WAIT_S)

    run(test)


def test_those_who_wait_for_room_come_in_order() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, size=1, capacity=1)
        batcher.submit("blocks")
        await gate.wait_until_entered()
        batcher.submit("fills")

        async def patient(number: int) -> Any:
            return await (await batcher.submit_with_room(number))

        waiting = [asyncio.create_task(patient(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert batcher.depth == 1
        gate.let_through.release(7)
        assert await asyncio.gather(*waiting) == [("answer to", number) for number in range(5)]
        assert gate.batches == [["blocks"], ["fills"], [0], [1], [2], [3], [4]]
        await batcher.stop(WAIT_S)

    run(test)


def test_waiting_for_room_can_be_given_up() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, capacity=1)
        batcher.submit("blocks")
        await gate.wait_until_entered()
        filler = batcher.submit("fills")
        gone, patient = (asyncio.create_task(batcher.submit_with_room(name)) for name in ("gone", "patient"))
        await asyncio.sleep(0)
        gone.cancel()
        gate.let_through.release(3)
        await filler
        assert await (await patient) == ("answer to", "patient")
        await batcher.stop(WAIT_S)

    run(test)


@pytest.mark.parametrize("fault", [ValueError("broken"), SystemExit(3), StopIteration()])
def test_a_failed_batch_fails_its_own_and_no_others(fault: BaseException) -> None:
    def work(items: Sequence[str]) -> list[str]:
        if "bad" in items:
            raise fault
        return list(items)

    async def test() -> None:
        batcher = made(work)
        with pytest.raises((ValueError, RuntimeError, WorkerLost)):
            await batcher.submit("bad")
        assert await batcher.submit("good") == "good"
        await batcher.stop(WAIT_S)

    run(test)


def test_one_bad_item_fails_alone() -> None:
    def work(items: Sequence[int]) -> list[int | Exception]:
        return [ValueError(str(item)) if item % 2 else item for item in items]

    async def test() -> None:
        batcher = made(work)
        answers = await asyncio.gather(*(batcher.submit(item) for item in range(4)), return_exceptions=True)
        assert answers[::2] == [0, 2]
        assert [str(answer) for answer in answers[1::2]] == ["1", "3"]
        await batcher.stop(WAIT_S)

    run(test)


def test_a_wrong_number_of_answers_is_an_error_and_not_a_wait() -> None:
    async def test() -> None:
        batcher = made(lambda items: [])
        with pytest.raises(RuntimeError, match="1 items got 0 answers"):
            await batcher.submit(1)
        await batcher.stop(WAIT_S)

    run(test)


def test_batches_fill_while_the_worker_is_busy_and_never_beyond_their_size() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, size=3)
        futures = [batcher.submit(0)]
        await gate.wait_until_entered()
        futures += [batcher.submit(item) for item in range(1, 8)]
        gate.let_through.release(4)
        await asyncio.gather(*futures)
        assert gate.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]
        await batcher.stop(WAIT_S)

    run(test)


def test_stop_answers_what_waits_and_takes_nothing_more() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, size=1, capacity=2)
        futures = [batcher.submit(0)]
        await gate.wait_until_entered()
        futures += [batcher.submit(1), batcher.submit(2)]
        patient = asyncio.create_task(batcher.submit_with_room(3))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(batcher.stop(WAIT_S))
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            batcher.submit(4)
        with pytest.raises(NotReady):
            await patient
        gate.let_through.release(3)
        assert await stopping
        assert [future.result() for future in futures] == [("answer to", item) for item in range(3)]

    run(test)


def test_stop_releases_those_whom_a_stuck_worker_would_keep_waiting() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = made(gate, size=1)
        stuck = batcher.submit("stuck")
        await gate.wait_until_entered()
        behind = batcher.submit("behind")
        assert not await batcher.stop(0.05)
        for future in (stuck, behind):
            with pytest.raises(NotReady):
                await future
        gate.let_through.release()
        await asyncio.to_thread(lambda: None)

    run(test)


def test_a_batcher_that_was_not_started_refuses() -> None:
    batcher = Batcher(lambda: lambda items: items, workers=1, size=1, capacity=1)
    with pytest.raises(NotReady):
        batcher.submit(1)


def test_a_worker_that_cannot_open_is_an_error_of_the_start() -> None:
    def cannot() -> Any:
        raise MemoryError("no room for a batch")

    async def test() -> None:
        with pytest.raises(MemoryError):
            Batcher(cannot, workers=2, size=1, capacity=1).start()

    run(test)


def test_the_observer_hears_how_long_each_item_waited() -> None:
    heard: list[Sequence[float]] = []

    class Observer:
        def batch_taken(self, waited_s: Sequence[float]) -> None:
            heard.append(waited_s)

        def worker_replaced(self, reason: str) -> None:
            raise AssertionError(reason)

        refused = worker_replaced

    async def test() -> None:
        batcher = made(lambda items: items, observer=Observer())
        await asyncio.gather(*(batcher.submit(item) for item in range(5)))
        await batcher.stop(WAIT_S)

    run(test)
    assert sum(map(len, heard)) == 5
    assert all(0 <= waited < WAIT_S for batch in heard for waited in batch)


def test_each_worker_keeps_to_its_processor() -> None:
    mine = cpus.affinity()

    async def test() -> None:
        batcher = made(lambda items: [os.sched_getaffinity(0)] * len(items), processors=mine[:1])
        assert await batcher.submit("where") == {mine[0]}
        await batcher.stop(WAIT_S)

    run(test)
    assert cpus.affinity() == mine
    with pytest.raises(ValueError, match="2 workers"):
        Batcher(lambda: lambda items: items, workers=2, size=1, capacity=1, processors=mine[:1])


class Lives:
    """Opens workers that hang at the item `hang` until they are let go, and counts what becomes of them."""

    def __init__(self) -> None:
        self.opened = 0
        self.replaced: list[str] = []
        self.let_go = threading.Event()
        self.came_back = threading.Semaphore(0)

    def open(self) -> Callable[[Sequence[Any]], list[Any]]:
        self.opened += 1
        number = self.opened

        def work(items: Sequence[Any]) -> list[Any]:
            if "hang" in items:
                assert self.let_go.wait(WAIT_S)
                self.came_back.release()
            if "die" in items:
                raise SystemExit("the end of this thread")
            return [(item, number) for item in items]

        return work

    def batch_taken(self, waited_s: Sequence[float]) -> None:
        pass

    def worker_replaced(self, reason: str) -> None:
        self.replaced.append(reason)

    def batcher(self, **options: Any) -> Batcher:
        options = {"workers": 1, "size": 1, "capacity": 8, "stuck_s": 0.3, "observer": self} | options
        batcher = Batcher(self.open, **options)
        batcher.start()
        return batcher


def test_a_worker_that_hangs_is_replaced_and_what_it_says_later_is_thrown_away() -> None:
    async def test() -> None:
        lives = Lives()
        batcher = lives.batcher(name="hanging")
        hangs, behind = batcher.submit("hang"), batcher.submit("behind")
        with pytest.raises(WorkerLost):
            await hangs
        assert await behind == ("behind", 2)  # by a fresh worker, while the first still hangs
        assert (lives.opened, lives.replaced, batcher.busy_s) == (2, ["stuck"], 0)
        lives.let_go.set()
        assert await asyncio.to_thread(lives.came_back.acquire, timeout=WAIT_S)
        answers = [await batcher.submit(item) for item in range(20)]
        assert answers == [(item, 2) for item in range(20)]  # the one that came back takes nothing more
        assert isinstance(hangs.exception(), WorkerLost)
        while sum(thread.name.startswith("hanging") for thread in threading.enumerate()) > 1:
            await asyncio.sleep(0.01)  # and its thread ends
        assert await batcher.stop(WAIT_S)

    run(test)


def test_a_batch_that_is_slow_as_ever_is_not_taken_for_one_that_hangs() -> None:
    """What batches have cost of late counts, not the setting alone."""

    async def test() -> None:
        lives = Lives()

        def slow(items: Sequence[float]) -> list[float]:
            time.sleep(items[0])
            return list(items)

        batcher = Batcher(lambda: slow, workers=1, size=1, capacity=8, stuck_s=1.0, observer=lives)
        batcher.start()
        assert [await batcher.submit(spent_s) for spent_s in (0.5, 1.5)] == [0.5, 1.5]
        assert await batcher.stop(WAIT_S)
        assert lives.replaced == []

    run(test)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_whose_thread_dies_is_replaced_and_its_batch_answered(workers: int) -> None:
    async def test() -> None:
        lives = Lives()
        batcher = lives.batcher(workers=workers, stuck_s=WAIT_S)
        for count in range(1, 4):
            with pytest.raises(WorkerLost, match="end of this thread"):
                await batcher.submit("die")
            while len(lives.replaced) < count:
                await asyncio.sleep(0)
            assert (await batcher.submit("next"))[0] == "next"
        assert lives.replaced == ["died"] * 3
        assert lives.opened == workers + 3
        assert await batcher.stop(WAIT_S)

    run(test)


def test_a_worker_that_cannot_be_opened_again_at_once_is_opened_later() -> None:
    async def test() -> None:
        lives = Lives()
        broken = iter([False, True, True])

        def open_worker() -> Any:
            if next(broken, False):
                raise MemoryError("no room for a batch")
            return lives.open()

        batcher = Batcher(open_worker, workers=1, size=1, capacity=8, stuck_s=0.3, observer=lives)
        batcher.start()
        dies, behind = batcher.submit("die"), batcher.submit("behind")
        with pytest.raises(WorkerLost):
            await dies
        assert await behind == ("behind", 2)
        assert lives.replaced == ["died"]
        assert await batcher.stop(WAIT_S)

    run(test)


def test_stop_ends_although_a_worker_hangs() -> None:
    async def test() -> None:
        lives = Lives()
        batcher = lives.batcher()
        hangs, behind = batcher.submit("hang"), batcher.submit("behind")
        assert await batcher.stop(WAIT_S)  # the watch goes on while it drains
        assert isinstance(hangs.exception(), WorkerLost)
        assert behind.result() == ("behind", 2)

        left = lives.batcher(stuck_s=1000.0)
        leaver = left.submit("hang")
        while not left.busy_s:
            await asyncio.sleep(0.01)
        leaver.cancel()
        assert await left.stop(0.05)  # nobody waits for the one that hangs
        lives.let_go.set()

    run(test)
