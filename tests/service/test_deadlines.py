"""What cannot be answered in time is refused on entry, and what expires while it waits is never worked on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import httpx
import pytest

from service.batcher import Batcher
from service.errors import DeadlineExceeded, Overloaded
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving
from tests.service.conftest import Scene

WAIT_S = 20.0
"""Far more than anything here takes; reached only by a failure."""


class Gate:
    """Work that stands still until it is let through, and takes at least as long as it is told to."""

    def __init__(self, least_s: float = 0.0) -> None:
        self.worked_on: list[Any] = []
        self.entered = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)
        self._least_s = least_s

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.worked_on += items
        self.entered.release()
        assert self.let_through.acquire(timeout=WAIT_S)
        time.sleep(self._least_s)
        return list(items)

    async def wait_until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=WAIT_S)


def run(test: Callable[[Batcher[str, str], Gate], Any], gate: Gate, **options: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            batcher = Batcher(lambda: gate, **{"workers": 1, "size": 1, "capacity": 8} | options)
            batcher.start()
            await test(batcher, gate)
            gate.let_through.release(100)
            await batcher.stop(WAIT_S)

    asyncio.run(bounded())


@pytest.mark.parametrize("ahead", [0.0, -1.0, -math.inf])
def test_a_deadline_that_has_passed_is_refused(ahead: float) -> None:
    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        with pytest.raises(DeadlineExceeded):
            batcher.submit("late", time.monotonic() + ahead)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit_with_room("late", time.monotonic() + ahead)
        assert batcher.depth == 0

    run(test, Gate())


def test_far_deadlines_change_nothing() -> None:
    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        gate.let_through.release(2)
        assert await batcher.submit("a", time.monotonic() + 1000) == "a"
        assert await batcher.submit("b", math.inf) == "b"

    run(test, Gate())


def test_what_expires_while_it_waits_is_answered_and_never_worked_on() -> None:
    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        first = batcher.submit("first")
        await gate.wait_until_entered()
        expires, stays = batcher.submit("expires", time.monotonic() + 0.2), batcher.submit("stays")
        with pytest.raises(DeadlineExceeded):  # while the only worker is still busy
            await expires
        assert batcher.depth == 1
        gate.let_through.release(2)
        assert await asyncio.gather(first, stays) == ["first", "stays"]
        assert gate.worked_on == ["first", "stays"]

    run(test, Gate())


def test_what_expires_makes_room() -> None:
    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        batcher.submit("first")
        await gate.wait_until_entered()
        expires = batcher.submit("expires", time.monotonic() + 0.2)
        patient = await batcher.submit_with_room("patient")
        assert isinstance(expires.exception(), DeadlineExceeded)
        gate.let_through.release(2)
        assert await patient == "patient"

    run(test, Gate(), capacity=1)


def test_a_client_is_answered_at_its_deadline_even_by_a_worker_that_hangs() -> None:
    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        hangs = batcher.submit("hangs", time.monotonic() + 0.2)
        await gate.wait_until_entered()
        assert batcher.busy_s > 0
        with pytest.raises(DeadlineExceeded):
            await hangs
        gate.let_through.release(2)
        assert await batcher.submit("next") == "next"
        assert batcher.busy_s == 0

    run(test, Gate())


LEAST_S = 0.1


def test_the_learned_cost_refuses_what_cannot_be_done_in_time() -> None:
    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        gate.let_through.release()
        await batcher.submit("teaches what a batch costs")
        batcher.submit("blocks")
        for _ in range(2):
            await gate.wait_until_entered()
        batcher.submit("waits")
        batcher.submit("waits too")
        with pytest.raises(DeadlineExceeded, match="would come after"):
            batcher.submit("third of three batches", time.monotonic() + 2.5 * LEAST_S)
        assert batcher.depth == 2
        expected = batcher.submit("has time", time.monotonic() + 1000)
        gate.let_through.release(4)
        assert await expected == "has time"

    run(test, Gate(LEAST_S))


def test_the_learned_cost_is_that_of_an_item_whatever_the_batches() -> None:
    """Single items teach what full batches will cost: of four, four times as much."""

    def work(items: Sequence[str]) -> list[str]:
        if "gate" in items:
            entered.set()
            assert opened.wait(WAIT_S)
        else:
            time.sleep(LEAST_S * len(items))
        return list(items)

    entered, opened = threading.Event(), threading.Event()

    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            batcher = Batcher(lambda: work, workers=1, size=4, capacity=8)
            batcher.start()
            for _ in range(3):
                await batcher.submit("one")
            gate = batcher.submit("gate")
            assert await asyncio.to_thread(entered.wait, WAIT_S)
            batch = [batcher.submit("in a batch of four") for _ in range(3)]
            with pytest.raises(DeadlineExceeded, match="would come after"):
                batcher.submit("the fourth", time.monotonic() + 3.5 * LEAST_S)
            opened.set()
            await asyncio.gather(gate, *batch)
            await batcher.stop(WAIT_S)

    asyncio.run(bounded())


def test_an_idle_worker_is_always_given_a_chance() -> None:
    """Else one slow batch would make the service refuse all clients with shorter deadlines, for ever."""

    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        gate.let_through.release(2)
        await batcher.submit("was slow")
        admitted = None
        while admitted is None:  # the worker has answered, but may still be on its way back to the queue
            await asyncio.sleep(0.001)
            with contextlib.suppress(DeadlineExceeded):
                admitted = batcher.submit("hopeful", time.monotonic() + 0.9 * LEAST_S)
        with pytest.raises(DeadlineExceeded, match="has passed"):
            await admitted

    run(test, Gate(LEAST_S))


def test_a_failing_observer_fails_its_batch_and_leaves_the_worker_alive() -> None:
    class Observer:
        def batch_taken(self, waited_s: Sequence[float]) -> None:
            if not gate.worked_on and not heard:
                heard.append(waited_s)
                raise OSError("no room for a metric")

    heard: list[Sequence[float]] = []
    gate = Gate()

    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        gate.let_through.release()
        with pytest.raises(OSError, match="no room"):
            await batcher.submit("unlucky")
        assert await batcher.submit("next") == "next"

    run(test, gate, observer=Observer())


def post(service: serving.Service, data: bytes, timeout_ms: str) -> httpx.Response:
    headers = {"X-Request-Timeout-Ms": timeout_ms}
    return httpx.post(f"{service.url}/v1/pose", content=data, headers=headers, trust_env=False, timeout=60)


def test_rest_has_a_header_for_it(service: serving.Service, scene: Scene) -> None:
    assert post(service, scene.png, "60000").status_code == 200
    late = post(service, scene.png, "0.001")
    assert late.status_code == 504
    assert json.loads(late.content)["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("wrong", ["", "soon", "nan", "inf", "-1", "0", "1e9"])
def test_rest_refuses_nonsense(wrong: str, service: serving.Service, scene: Scene) -> None:
    response = post(service, scene.png, wrong)
    assert response.status_code == 422
    error = json.loads(response.content)["error"]
    assert (error["code"], error["field"]) == ("invalid_request", "X-Request-Timeout-Ms")


def test_grpc_has_its_own(stub: pose_pb2_grpc.PoseServiceStub, scene: Scene) -> None:
    assert len(stub.Estimate(pb.EstimateRequest(image=scene.png), timeout=60).poses) == 1
    with pytest.raises(grpc.RpcError) as refused:
        stub.Estimate(pb.EstimateRequest(image=scene.png), timeout=1e-6)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_observer_hears_why_an_item_is_not_worked_on() -> None:
    heard: list[str] = []

    class Observer:
        def batch_taken(self, waited_s: Sequence[float]) -> None:
            pass

        def refused(self, reason: str) -> None:
            heard.append(reason)

    async def test(batcher: Batcher[str, str], gate: Gate) -> None:
        first = batcher.submit("held up")
        await gate.wait_until_entered()
        with pytest.raises(DeadlineExceeded):
            batcher.submit("late", time.monotonic())
        assert heard == ["late"]
        with pytest.raises(DeadlineExceeded):
            await batcher.submit("expires", time.monotonic() + 0.05)
        assert heard == ["late", "expired"]
        leaves = batcher.submit("leaves")
        leaves.cancel()
        await asyncio.sleep(0)
        assert heard == ["late", "expired", "gone"]
        waiting = [batcher.submit("waits") for _ in range(batcher.capacity)]
        with pytest.raises(Overloaded):
            batcher.submit("one too many")
        assert heard == ["late", "expired", "gone", "full"]
        patient = asyncio.create_task(batcher.submit_with_room("patient"))
        await asyncio.sleep(0)
        gate.let_through.release(100)
        await asyncio.gather(first, *waiting, await patient)
        assert heard == ["late", "expired", "gone", "full"]  # who waits for room is not refused

    run(test, Gate(), observer=Observer())
