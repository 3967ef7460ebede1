"""One thread runs the net for all workers: everybody gets their own rows, and faults stay where they belong."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import runner
from service.core import Core, build_core
from service.errors import InvalidImage, NotReady, WorkerLost
from service.pipeline import Device
from service.settings import BatchSettings, ModelSettings, Settings
from service.types import Frame, Options, Prediction
from tests import tiny_model
from tests.service.conftest import Scene
from tests.service.test_endurance import MOST_PX, Shipped
from tests.service.test_predictor import with_core

WAIT_S = 20.0
"""Far more than anything here takes; reached only by a failure."""


class Net:
    """Answers each crop by its first number, times ten; stands still as long as a test wants."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.sizes.append(len(crops))
        assert self.may_go.wait(WAIT_S)
        if (crops == 99).any():
            raise ValueError("99")
        return crops[:, 0].astype(np.int64) * 10


def crops_of(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint8)[:, None]


def made(**options: Any) -> Device:
    return Device(**{"size": 4, "window_s": 0.0, "ran": lambda count: None, "stuck_s": WAIT_S} | options)


@settings(max_examples=30)
@given(
    asked=st.lists(st.lists(st.integers(0, 98), min_size=1, max_size=4), max_size=12),
    window_s=st.sampled_from([0.0, 0.002]),
)
def test_each_gets_its_own_rows(asked: list[list[int]], window_s: float) -> None:
    nets, ran = (Net(), Net()), []
    device = made(window_s=window_s, ran=ran.append)

    def ask(index: int) -> tuple[list[int], int]:
        answer, together = device.call(nets[index % 2], crops_of(*asked[index]))
        return answer.tolist(), together

    with ThreadPoolExecutor(max(1, len(asked))) as threads:
        answers = list(threads.map(ask, range(len(asked))))
    device.close()
    assert [answer for answer, _ in answers] == [[10 * number for number in numbers] for numbers in asked]
    assert sorted(nets[0].sizes + nets[1].sizes) == sorted(ran)
    assert all(len(numbers) <= together <= 4 for numbers, (_, together) in zip(asked, answers, strict=True))
    assert sum(ran) == sum(map(len, asked))


def while_it_is_busy(device: Device, net: Net, *asked: tuple[Net, np.ndarray]) -> list[Any]:
    """Queue calls in this order behind one that holds the net; their answers, or errors."""
    net.may_go.clear()
    outcomes: dict[int, Any] = {}

    def ask(number: int, other: Net, crops: np.ndarray) -> None:
        try:
            outcomes[number] = device.call(other, crops)[0].tolist()
        except Exception as error:
            outcomes[number] = error

    threads = []
    for number, (other, crops) in enumerate([(net, crops_of(1)), *asked]):
        threads.append(threading.Thread(target=ask, args=(number, other, crops)))
        threads[-1].start()
        while not net.sizes or device.depth < number:
            time.sleep(0.001)
    net.may_go.set()
    for thread in threads:
        thread.join(WAIT_S)
    return [outcomes[number] for number in range(1, len(threads))]


def test_calls_become_one_up_to_its_size_and_only_of_the_same_net() -> None:
    net, other, device = Net(), Net(), made()
    outcomes = while_it_is_busy(
        device, net, (net, crops_of(2, 3)), (other, crops_of(4)), (net, crops_of(5, 6)), (net, crops_of(7))
    )
    device.close()
    assert outcomes == [[20, 30], [40], [50, 60], [70]]
    assert (net.sizes, other.sizes) == ([1, 4, 1], [1])


def test_a_failed_call_fails_who_shared_it_and_no_others() -> None:
    net, device = Net(), made(size=2)
    one, bad, two, three = while_it_is_busy(
        device, net, *((net, crops_of(number)) for number in (2, 99, 4, 5))
    )
    device.close()
    assert [str(one), str(bad)] == ["99", "99"]
    assert (two, three) == ([40], [50])


def test_the_first_waits_for_company_and_not_longer_than_the_window() -> None:
    net, device = Net(), made(window_s=WAIT_S / 2, size=2)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(device.call, net, crops_of(number)) for number in (1, 2)]
        assert [each.result(WAIT_S / 4)[1] for each in both] == [2, 2]  # full, so nobody waited any longer
    device.close()
    alone = made(window_s=0.05)
    began_s = time.monotonic()
    assert alone.call(net, crops_of(3))[1] == 1
    assert time.monotonic() - began_s >= 0.05
    alone.close()


def test_closing_releases_who_waits_and_ends_the_thread() -> None:
    net, device = Net(), made(name="closing")
    net.may_go.clear()
    with ThreadPoolExecutor(2) as threads:
        runs = threads.submit(device.call, net, crops_of(1))
        while not net.sizes:
            time.sleep(0.001)
        waits = threads.submit(device.call, net, crops_of(2))
        while not device.depth:
            time.sleep(0.001)
        device.close()
        with pytest.raises(NotReady):
            waits.result(WAIT_S)
        net.may_go.set()
        assert runs.result(WAIT_S)[0].tolist() == [10]
    with pytest.raises(NotReady):
        device.call(net, crops_of(3))
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join(WAIT_S)
            assert not thread.is_alive()


def test_a_net_that_hangs_is_left_and_another_thread_goes_on() -> None:
    net, device = Net(), made(stuck_s=0.2)
    net.may_go.clear()
    with pytest.raises(WorkerLost):
        device.call(net, crops_of(1))
    fine = Net()
    assert device.call(fine, crops_of(2))[0].tolist() == [20]
    net.may_go.set()  # what it says now is nobody's any more
    assert [device.call(fine, crops_of(number))[0].tolist() for number in range(5)] == [
        [10 * number] for number in range(5)
    ]
    device.close()


def pipelined(**more: Any) -> BatchSettings:
    return BatchSettings(mode="pipelined", workers=4, pin="off", **more)


def test_it_answers_as_the_fused_core_does(tiny_bundle_root: Path, scene: Scene) -> None:
    asked = [
        Options(boxes=(scene.box,)),
        Options(),
        Options(boxes=(scene.box, (0.0, 0.0, 400.0, 480.0)), decoder="dark"),
        Options(boxes=(scene.box,), compare=True),
        Options(boxes=(scene.box,), heatmaps=True, decoder="dsnt"),
    ] * 4

    async def ask(core: Core) -> list[Prediction]:
        frame = Frame(scene.png)
        return await asyncio.gather(*(core.predictor.predict(frame, each) for each in asked))

    fused = with_core(tiny_bundle_root, ask)
    merged = with_core(tiny_bundle_root, ask, batch=pipelined(window_ms=20, size=4))
    for one, other in zip(fused, merged, strict=True):
        assert (one.decoder, one.size, len(one.poses)) == (other.decoder, other.size, len(other.poses))
        for a, b in zip(one.poses, other.poses, strict=True):
            assert (a.box, a.box_source) == (b.box, b.box_source)
            np.testing.assert_allclose(a.points, b.points, rtol=0, atol=1.01e-3)  # rounded to 1/1000
            np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=1.01e-4)
    assert max(each.timing.batch for each in merged) > 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_shared_calls_of_the_shipped_model_give_what_lone_ones_do(precision: str) -> None:
    shipped = Shipped(precision)
    device = made(size=8, window_s=0.05)
    with ThreadPoolExecutor(16) as threads:
        found = list(
            threads.map(lambda row: shipped.found([row], True, lambda *a: device.call(*a)[0]), range(16))
        )
    device.close()
    for row, points in enumerate(found):
        np.testing.assert_allclose(points[0], shipped.alone[0][row], rtol=0, atol=MOST_PX)


def test_leavers_broken_frames_and_faults_of_the_net_harm_nobody_else(
    tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, options = Frame(scene.png), Options(boxes=(scene.box,))

    async def test(core: Core) -> list[Any]:
        def ask(frame: Frame = good) -> asyncio.Task[Prediction]:
            return asyncio.ensure_future(core.predictor.predict(frame, options))

        asked = [ask(), ask(Frame(b"no image")), ask(), ask(), ask()]
        await asyncio.sleep(0)
        asked[2].cancel()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, broken, left, *others = with_core(tiny_bundle_root, test, batch=pipelined(window_ms=5))
    assert isinstance(broken, InvalidImage)
    assert isinstance(left, asyncio.CancelledError)
    for each in (first, *others):
        assert np.abs(each.poses[0].points - scene.joints).max() < 5

    run = runner.Runner.run
    faults = iter([True])

    def fails_once(self: runner.Runner, crops: np.ndarray) -> np.ndarray:
        if next(faults, False):
            raise MemoryError("no room")
        return run(self, crops)

    async def fail(core: Core) -> Prediction:
        monkeypatch.setattr(runner.Runner, "run", fails_once)
        with pytest.raises(MemoryError):
            await core.predictor.predict(good, options)
        return await core.predictor.predict(good, options)

    answer = with_core(tiny_bundle_root, fail, batch=pipelined())
    assert np.abs(answer.poses[0].points - scene.joints).max() < 5


@pytest.mark.parametrize(("mode", "merges"), [("auto", False), ("fused", False), ("pipelined", True)])
def test_the_mode_is_chosen_by_a_setting_and_the_provider(
    mode: str, merges: bool, tiny_bundle_root: Path, scene: Scene
) -> None:
    """On the processor, which is all there is here, auto is fused."""

    async def test(core: Core) -> list[str]:
        await core.predictor.predict(Frame(scene.png), Options())
        return [thread.name for thread in threading.enumerate()]

    names = with_core(tiny_bundle_root, test, batch=BatchSettings(mode=mode, workers=1, pin="off"))
    assert ("tiny@1-net" in names) is merges


def test_a_model_that_leaves_takes_its_thread_along(tmp_path: Path, scene: Scene) -> None:
    tiny_model.write(tmp_path, name="leaving")
    named = Settings(models=ModelSettings(roots=(tmp_path,), default="leaving"), batch=pipelined())

    async def test() -> None:
        core = build_core(named)
        await core.load(named)
        await core.predictor.predict(Frame(scene.png), Options())
        assert await core.stop(WAIT_S)

    asyncio.run(test())
    for thread in threading.enumerate():
        if thread.name.startswith("leaving"):
            thread.join(WAIT_S)
            assert not thread.is_alive()
