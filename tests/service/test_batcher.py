"""What holds whatever clients and workers do. Workers here are gates: a batch goes on when the test says so."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import cpus
from service.batcher import Batcher
from service.errors import NotReady, Overloaded

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
        with pytest.raises((ValueError, RuntimeError)):
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
