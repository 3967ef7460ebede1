"""One stream without its transport: every frame has one outcome, in order, and the newest wins."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import Batcher
from service.errors import DeadlineExceeded, InvalidImage, InvalidRequest, NotReady, Overloaded
from service.streams.contract import Answered, Clocks, Closing, Dropped, DropReason, Failed, Mode
from service.streams.live import ANSWERS_AHEAD, UNREAD
from service.streams.session import Session
from tests.service.streams import made
from tests.service.streams.made import GARBAGE, Model, frame, rest, settle, stream


def run(test: Coroutine) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


def kinds(outcomes) -> list[tuple[int, str]]:
    return [
        (each.sequence, each.reason.value if isinstance(each, Dropped) else type(each).__name__.lower())
        for each in outcomes
    ]


def same(one: Answered, other: Answered) -> bool:
    """To the last bit."""
    return [(a.track_id, a.points.tobytes(), a.scores.tobytes(), a.lag_ms, a.reset) for a in one.poses] == [
        (b.track_id, b.points.tobytes(), b.scores.tobytes(), b.lag_ms, b.reset) for b in other.poses
    ]


def test_the_newest_frame_wins():
    async def test() -> None:
        model = Model()
        one = stream(model.predict)
        await one.put(frame(0, 0.0))
        await settle()  # now it is being computed
        for number in range(1, 6):
            await one.put(frame(number, number / 30))
        model.free()
        one.finish()
        outcomes = await rest(one)
        assert kinds(outcomes) == [
            (0, "answered"),
            *((number, "superseded") for number in range(1, 5)),
            (5, "answered"),
        ]
        assert [data for data, _ in model.asked] == [bytes([0] * 8), bytes([5] + [0] * 7)]

    run(test())


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_as_many_frames_wait_as_the_mailbox_holds(depth):
    async def test() -> None:
        model = Model()
        one = stream(model.predict, mailbox=depth)
        await one.put(frame(0, 0.0))
        await settle()
        for number in range(1, 10):
            await one.put(frame(number, number / 30))
        model.free()
        one.finish()
        answered = [each.sequence for each in await rest(one) if isinstance(each, Answered)]
        assert answered == [0, *range(10 - depth, 10)]

    run(test())


def test_a_file_is_answered_in_full_and_its_sender_waits():
    async def test() -> None:
        model = Model()
        one = stream(model.predict, Mode.FILE, window=4)

        async def send() -> None:
            for number in range(40):
                await one.put(frame(number, number / 30))
            one.finish()

        sender = asyncio.create_task(send())
        await settle()
        assert not sender.done()
        assert len(one._slots) == 4
        model.free()
        assert kinds(await rest(one)) == [(number, "answered") for number in range(40)]
        await sender

    run(test())


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_dropped_or_fails_leaves_no_trace(mode):
    """The answered frames get what they would have got without the others."""

    async def test() -> None:
        model = Model()
        model.free()
        one, plain = stream(model.predict, mode), made.session()
        for number in range(30):
            data = GARBAGE if number % 7 == 3 else None
            await one.put(frame(number, number / 30, data))
            outcome = await one.next_outcome()
            if data is GARBAGE:
                assert isinstance(outcome, Failed)
                assert isinstance(outcome.error, InvalidImage)
                continue
            boxes = plain.plan(number / 30)
            prediction = made.seen(number.to_bytes(8, "little"), boxes)
            poses = plain.update(
                number / 30, prediction.poses, made.SIZE, planned=boxes is not None, sequence=number
            )
            assert same(outcome, Answered(number, prediction, poses, 0.0))
        assert one.session.to_bytes() == plain.to_bytes()
        await one.stop()

    run(test())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 3), st.sampled_from([0.001, 0.03, 0.4]), st.sampled_from("gggbx")),
        st.tuples(st.just("let"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(1, 3)),
        st.tuples(st.just("yield")),
    ),
    max_size=40,
)  # fmt: skip


@given(
    steps=steps,
    mode=st.sampled_from(list(Mode)),
    mailbox=st.integers(1, 3),
    in_flight=st.integers(1, 3),
    tracking=st.booleans(),
    end=st.sampled_from(["finish", "drain", "fail", "drain late"]),
)
def test_every_frame_has_one_outcome_in_order_whatever_comes(steps, mode, mailbox, in_flight, tracking, end):
    async def test() -> None:
        model = Model()
        one = stream(
            model.predict, mode, begin=made.session(tracking=tracking), mailbox=mailbox, in_flight=in_flight,
            window=6,
        )  # fmt: skip
        taken, sequence, time_s = [], 0, 100.0
        puts: list[asyncio.Task] = []
        readers: list[asyncio.Task] = []
        for step, *rest_of in steps:
            if step == "put":
                gap, dt, kind = rest_of
                sequence, time_s = sequence + gap, time_s + dt
                sent = frame(
                    sequence,
                    time_s if kind != "b" else time_s - dt,  # not after the one before: its own error
                    GARBAGE if kind == "x" else None,
                )
                if puts and not puts[-1].done():
                    continue  # there is one reader; it waits
                taken.append(sequence)
                puts.append(asyncio.create_task(one.put(sent)))
            elif step == "let":
                model.let(rest_of[0])
            elif step == "read" and (not readers or readers[-1].done()):
                readers.append(asyncio.create_task(one.next_outcome()))
            await settle()
            images = sum(slot.frame is not None for slot in one._slots)
            limit = mailbox + (1 if tracking else in_flight) if mode is Mode.LIVE else 6
            assert images <= limit
        model.free()
        if readers and not readers[-1].done():
            readers.pop().cancel()
        outcomes = [await task for task in readers]
        if end == "drain late":
            await settle()
        getattr(one, end.partition(" ")[0])(*([InvalidRequest("enough")] if end == "fail" else []))
        for task in puts:
            await task
        outcomes += await rest(one)
        if end.startswith("drain"):
            closing = outcomes.pop()
            assert isinstance(closing, Closing)
            assert isinstance(one.failure, NotReady)
            again = Session.from_bytes(bytes.fromhex(closing.token), made.SIGMAS)
            assert again.to_bytes() == one.session.to_bytes()
            last = [each.sequence for each in outcomes if isinstance(each, Answered)]
            assert closing.sequence == (last[-1] if last else None)
        got = [each.sequence for each in outcomes]
        assert got == taken[: len(got)]
        waited = len(taken) - len(got)  # the last one may have waited for room until the end
        assert waited <= (1 if mode is Mode.FILE else 0)
        if mode is Mode.FILE:
            assert not any(isinstance(each, Dropped) for each in outcomes)
        assert model.most <= (1 if tracking else in_flight)
        await one.stop()

    run(test())


def test_frames_that_are_in_flight_together_are_taken_in_in_their_order():
    """Without tracking a stream may have several; those that are computed first wait for those before them."""

    async def test() -> None:
        gates = {number: asyncio.Event() for number in range(4)}

        async def predict(sent, options, **_):
            await gates[sent.data[0]].wait()
            return made.seen(sent.data, options.boxes)

        one = stream(predict, Mode.FILE, begin=made.session(tracking=False), in_flight=3)
        for number in range(4):
            await one.put(frame(number, number / 30, GARBAGE if number == 1 else bytes([number])))
            gates.setdefault(GARBAGE[0], gates[1])
        one.finish()
        for number in (3, 1, 2, 0):
            await settle()
            gates[number].set()
        assert kinds(await rest(one)) == [(0, "answered"), (1, "failed"), (2, "answered"), (3, "answered")]

    run(test())


def test_sequences_rise():
    async def test() -> None:
        for wrong in (3, 2, 2**63):
            one = stream(Model().predict)
            await one.put(frame(3, 0.0))
            with pytest.raises(InvalidRequest) as refused:
                await one.put(frame(wrong, 0.1, b""))
            assert refused.value.field == "sequence"
            await one.stop()

    run(test())


def test_sequences_rise_over_a_resumption():
    async def test() -> None:
        before = made.session()
        before.update(5.0, made.seen(b"").poses, made.SIZE, planned=False, sequence=7)
        one = stream(Model().predict, begin=Session.from_bytes(before.to_bytes(), made.SIGMAS))
        with pytest.raises(InvalidRequest, match="7 follows 7"):
            await one.put(frame(7, 6.0))
        await one.put(frame(8, 6.0))
        await one.stop()

    run(test())


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("wrong", [10.0, 9.5, math.nan, math.inf, -math.inf, 1e300])
def test_a_frame_out_of_time_has_an_error_of_its_own(wrong, mode):
    async def test() -> None:
        model = Model()
        model.free()
        one = stream(model.predict, mode)
        outcomes = []
        for number, time_s in enumerate((10.0, wrong, 10.1)):
            await one.put(frame(number, time_s))
            outcomes.append(await one.next_outcome())
        assert kinds(outcomes) == [(0, "answered"), (1, "failed"), (2, "answered")]
        assert outcomes[1].error.field == "timestamp_s"
        await one.stop()

    run(test())


def test_a_clock_that_was_set_back_ends_the_stream():
    async def test() -> None:
        one = stream(Model().predict)
        await one.put(frame(0, 10.0))
        with pytest.raises(InvalidRequest, match=r"9\.0 follows 10\.0"):
            await one.put(frame(1, 9.0))
        await one.stop()

    run(test())


def test_timestamps_are_there_or_not():
    async def test() -> None:
        for first, second in ((None, 1.0), (1.0, None)):
            one = stream(Model().predict)
            await one.put(frame(0, first))
            with pytest.raises(InvalidRequest, match="all frames"):
                await one.put(frame(1, second))
            await one.stop()
        file = stream(Model().predict, Mode.FILE)
        with pytest.raises(InvalidRequest, match="file"):
            await file.put(frame(0))
        await file.stop()

    run(test())


def test_without_timestamps_the_time_of_arrival_counts_even_where_the_clock_stands_still():
    async def test() -> None:
        wall = iter([1000.0, 1000.0, 999.9, 1000.5])
        model = Model()
        model.free()
        one = stream(model.predict, clocks=Clocks(time.monotonic, lambda: next(wall)))
        times = []
        for number in range(4):
            await one.put(frame(number))
            assert isinstance(await one.next_outcome(), Answered)
            times.append(one.session.time_s)
        assert times[0] == 1000.0
        assert times[3] == 1000.5
        assert (np.diff(times) > 0).all()
        await one.stop()

    run(test())


@pytest.mark.parametrize(
    ("error", "live"),
    [(Overloaded("full"), "overloaded"), (DeadlineExceeded("late"), "deadline"), (NotReady("stops"), "failed")],
)  # fmt: skip
def test_load_drops_live_frames_only(error, live):
    async def test() -> None:
        async def predict(*_, **asked):
            assert asked["wait_for_room"] is (mode is Mode.FILE)
            assert math.isfinite(asked["deadline_s"]) is (mode is Mode.LIVE)
            raise error

        for mode in Mode:
            one = stream(predict, mode)
            await one.put(frame(1, 1.0))
            one.finish()
            assert kinds(await rest(one)) == [(1, live if mode is Mode.LIVE else "failed")]

    run(test())


def test_a_frame_that_waited_for_too_long_is_not_computed():
    async def test() -> None:
        model, now = Model(), [0.0]
        one = stream(model.predict, max_age_s=0.5, clocks=Clocks(lambda: now[0], time.time))
        await one.put(frame(0, 0.0))
        await settle()
        await one.put(frame(1, 0.1))
        now[0] = 0.5
        model.free()
        one.finish()
        outcomes = await rest(one)
        assert kinds(outcomes) == [(0, "answered"), (1, "deadline")]
        assert outcomes[1].age_s == 0.5
        assert len(model.asked) == 1

    run(test())


def test_nothing_is_computed_for_a_client_that_does_not_read_and_nothing_grows():
    async def test() -> None:
        model = Model()
        model.free()
        one = stream(model.predict)

        async def send() -> None:
            for number in range(2000):
                await one.put(frame(number, number / 30))
                await settle()

        sender = asyncio.create_task(send())
        while len(one._slots) < UNREAD:
            await asyncio.sleep(0)
        await settle()
        assert not sender.done()
        assert len(model.asked) == ANSWERS_AHEAD
        assert sum(slot.frame is not None for slot in one._slots) == 1
        read = [await one.next_outcome() for _ in range(300)]
        assert [each.sequence for each in read] == list(range(300))
        sender.cancel()
        await one.stop()

    run(test())


def test_draining_answers_what_is_computed_and_drops_what_waits():
    async def test() -> None:
        model = Model()
        one = stream(model.predict)
        await one.put(frame(0, 0.0))
        await settle()
        await one.put(frame(1, 0.1))
        one.drain()
        await one.put(frame(2, 0.2))  # comes too late
        model.free()
        outcomes = await rest(one)
        assert kinds(outcomes[:2]) == [(0, "answered"), (1, DropReason.DRAINING.value)]
        assert isinstance(outcomes[2], Closing)
        assert outcomes[2].sequence == 0

    run(test())


def test_where_people_were_expected_is_looked_at_and_elsewhere_where_the_frame_has_another_size():
    async def test() -> None:
        sizes = [made.SIZE, made.SIZE, (240, 320)]
        asked = []

        async def predict(sent, options, **_):
            asked.append((sent.data[0], options.boxes is not None))
            return made.seen(sent.data, options.boxes, sizes[sent.data[0]])

        one = stream(predict)
        for number in range(3):
            await one.put(frame(number, number / 30))
            assert isinstance(await one.next_outcome(), Answered)
        assert asked == [(0, False), (1, True), (2, True), (2, False)]
        await one.stop()

    run(test())


def test_boxes_of_the_client_count():
    async def test() -> None:
        model = Model()
        model.free()
        one = stream(model.predict)
        for number in range(2):
            await one.put(frame(number, number / 30, boxes=((1.0, 2.0, 30.0, 40.0),)))
            await one.next_outcome()
        assert [options.boxes for _, options in model.asked] == [((1.0, 2.0, 30.0, 40.0),)] * 2
        await one.stop()

    run(test())


def test_a_token_is_the_session_after_that_very_frame():
    async def test() -> None:
        model = Model()
        model.free()
        one = stream(model.predict)
        plain = made.session()
        for number in range(5):
            await one.put(frame(number, number / 30, want_token=number == 3))
            outcome = await one.next_outcome()
            boxes = plain.plan(number / 30)
            plain.update(
                number / 30, outcome.prediction.poses, made.SIZE, planned=boxes is not None, sequence=number
            )
            expected = plain.to_bytes().hex() if number == 3 else None
            assert outcome.token == expected
        await one.stop()

    run(test())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fast_camera_takes_nothing_from_slow_ones(workers):
    """One camera at twenty times the rate of the others, at more than capacity."""
    slow, cost_s = 7, 0.004

    async def test() -> None:
        def work(jobs):
            time.sleep(cost_s * len(jobs))
            return [made.seen(data, boxes) for data, boxes in jobs]

        batcher = Batcher(lambda: work, workers=workers, size=4, capacity=64)
        batcher.start()

        async def predict(sent, options, *, wait_for_room, deadline_s):
            return await batcher.submit((sent.data, options.boxes), deadline_s)

        async def camera(every_s: float) -> int:
            one = stream(predict)

            async def send() -> None:
                number = 0
                while time.monotonic() < ends_s:
                    await one.put(frame(number, 1.0 + number / 30))
                    number += 1
                    await asyncio.sleep(every_s)
                one.finish()

            sender = asyncio.create_task(send())
            outcomes = await rest(one)
            await sender
            assert [each.sequence for each in outcomes] == list(range(len(outcomes)))
            return sum(isinstance(each, Answered) for each in outcomes)

        fair_s = (slow + 1) * cost_s / workers  # between two frames of one camera, where all get the same
        ends_s = time.monotonic() + 2.0
        answered = await asyncio.gather(camera(fair_s / 40), *(camera(fair_s / 2) for _ in range(slow)))
        await batcher.stop(10)
        assert min(answered) >= 0.8 * sum(answered) / len(answered), answered

    run(test())
