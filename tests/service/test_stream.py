"""Streams with a config over real sockets: the rules of the contract, one by one."""

from __future__ import annotations

import math
from pathlib import Path

import grpc
import numpy as np
import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving, video
from tests.service.video import FRAMES, GARBAGE, Call, clip, config, facts, frame

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FILE = pb.STREAM_MODE_FILE


def codes(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, str]:
    """Status, code and field of an error."""
    details = dict(error.trailing_metadata())
    return error.code(), details.get("reppose-code", ""), details.get("reppose-field", "")


def test_a_file_is_followed_and_calmed(service: serving.Service) -> None:
    answers, error = video.stream(service.target, [config(mode=FILE), *map(frame, range(FRAMES))])
    assert error is None
    opened = answers.pop(0).opened
    assert (opened.model, opened.decoder, opened.smoothing.name) == ("tiny@2", "argmax_shift", "one_euro")
    assert (opened.tracking, opened.mode, opened.resumed) == (True, FILE, False)
    assert [answer.sequence for answer in answers] == list(range(FRAMES))
    tracked = [answer.tracked for answer in answers]
    ids = [[track.id for track in answer.tracks] for answer in tracked]
    assert ids[:30] == [[1]] * 30
    assert ids[-1] == [2]  # who leaps by a person's width is somebody else
    raw = np.stack([video.points(answer.raw.poses[0].keypoints) for answer in tracked])
    smooth = np.stack([video.points(answer.tracks[0].keypoints) for answer in tracked])
    still = slice(20, 30)
    jitter = [np.abs(np.diff(each[still], 2, axis=0)).mean() for each in (raw, smooth)]
    assert jitter[1] < 0.5 * jitter[0]
    assert tracked[0].raw.poses[0].box_source == pb.BOX_SOURCE_FOUND
    assert tracked[5].raw.poses[0].box_source == pb.BOX_SOURCE_REQUEST  # where the person was expected
    for answer in tracked:
        assert 0 < answer.timing.infer_ms < answer.timing.age_ms
        assert answer.timing.queue_ms >= 0 < answer.timing.decode_ms


def test_the_first_frame_is_answered_as_by_itself(service: serving.Service) -> None:
    answers, _ = video.stream(service.target, [config(mode=FILE), frame(0)])
    with grpc.insecure_channel(service.target) as channel:
        alone = pose_pb2_grpc.PoseServiceStub(channel).Estimate(pb.EstimateRequest(image=clip()[0]))
    assert answers[1].tracked.raw == alone


def test_a_stream_without_a_config_stays_what_it_was(service: serving.Service) -> None:
    messages = [frame(3), frame(3, timestamp_s=None), frame(1, GARBAGE)]
    answers, error = video.stream(service.target, messages)
    assert error is None
    assert [(a.sequence, a.WhichOneof("outcome")) for a in answers] == [
        (3, "prediction"), (3, "prediction"), (1, "error"),
    ]  # fmt: skip


def test_in_live_mode_every_frame_is_answered_or_dropped_with_a_reason(service: serving.Service) -> None:
    messages = [frame(number) for number in range(200) if number % 3]
    answers, error = video.stream(service.target, [config(max_age_ms=1e9), *messages])
    assert error is None
    assert answers[0].opened.max_age_ms == 1000
    assert [answer.sequence for answer in answers[1:]] == [message.sequence for message in messages]
    kinds = {answer.WhichOneof("outcome") for answer in answers[1:]}
    assert "tracked" in kinds
    assert kinds <= {"tracked", "dropped"}
    reasons = {answer.dropped.reason for answer in answers if answer.HasField("dropped")}
    assert reasons <= {pb.DROP_REASON_SUPERSEDED, pb.DROP_REASON_DEADLINE}
    assert answers[-1].HasField("tracked") or answers[-1].dropped.reason == pb.DROP_REASON_DEADLINE


def test_what_is_wrong_with_a_frame_is_its_own_answer(service: serving.Service) -> None:
    plain, _ = video.stream(service.target, [config(mode=FILE), *(frame(n) for n in (0, 1, 8, 9))])
    messages = [
        config(mode=FILE),
        frame(0),
        frame(1),
        frame(2, GARBAGE),
        pb.EstimateStreamRequest(sequence=3, timestamp_s=100.1),
        frame(4, model="tiny"),
        frame(5, boxes=[pb.Box()]),
        frame(6, timestamp_s=100.05),
        frame(7, timestamp_s=math.nan),
        frame(8),
        frame(9),
    ]
    answers, error = video.stream(service.target, messages)
    assert error is None
    assert [answer.sequence for answer in answers[1:]] == list(range(10))
    failed = {answer.sequence: answer.error for answer in answers if answer.HasField("error")}
    assert {number: (each.code, each.field) for number, each in failed.items()} == {
        2: ("invalid_image", "image"),
        3: ("invalid_request", "frame"),
        4: ("invalid_request", "model"),
        5: ("invalid_boxes", "boxes"),
        6: ("invalid_request", "timestamp_s"),
        7: ("invalid_request", "timestamp_s"),
    }
    good = [facts(answer) for answer in answers[1:] if answer.HasField("tracked")]
    assert good == [facts(answer) for answer in plain[1:]]  # the others left no trace


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([config(mode=FILE), config()], "config"),
        ([config(mode=FILE), frame(0), config(), frame(1)], "config"),
        ([frame(0), config(mode=FILE)], "config"),
        ([config(mode=FILE), frame(0), frame(0, timestamp_s=101)], "sequence"),
        ([config(mode=FILE), frame(5), frame(4, timestamp_s=101)], "sequence"),
        ([config(mode=FILE), frame(0), frame(2**63, b"", timestamp_s=101)], "sequence"),
        ([config(mode=FILE), frame(0), frame(1, timestamp_s=99)], "timestamp_s"),
        ([config(mode=FILE), frame(0), frame(1, timestamp_s=None)], "timestamp_s"),
        ([config(mode=FILE), frame(0, timestamp_s=None)], "timestamp_s"),
    ],
)
def test_what_breaks_the_contract_ends_the_stream(messages, field, service: serving.Service) -> None:
    answers, error = video.stream(service.target, [*messages, frame(77, timestamp_s=200)])
    assert codes(error) == (INVALID, "invalid_request", field)
    good = [message for message in messages if message.HasField("frame")]
    answered = [answer.sequence for answer in answers if not answer.HasField("opened")]
    before = len(good) - (field != "config")  # the wrong frame itself is not answered
    assert answered == [message.sequence for message in good[: 1 if field == "config" else before]]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"model": "absent"}, "unknown_model", "model"),
        ({"decoder": "absent"}, "unknown_decoder", "decoder"),
        ({"smoothing": pb.Smoothing(name="absent")}, "invalid_request", "smoothing"),
        ({"smoothing": pb.Smoothing(name="ema", parameters={"alpha": 2})}, "invalid_request", "parameters"),
        ({"smoothing": pb.Smoothing(parameters={"min_cutoff": math.nan})}, "invalid_request", "parameters"),
        ({"smoothing": pb.Smoothing(name="ema", parameters={"beta": 2})}, "invalid_request", "parameters"),
        ({"session": "a/b"}, "invalid_request", "session"),
        ({"session": "x" * 65}, "invalid_request", "session"),
        ({"resume_token": "nonsense"}, "invalid_token", "resume_token"),
        ({"mailbox": -1}, "invalid_request", "mailbox"),
        ({"mailbox": 17}, "invalid_request", "mailbox"),
        ({"max_age_ms": -1}, "invalid_request", "max_age_ms"),
        ({"max_age_ms": math.nan}, "invalid_request", "max_age_ms"),
        ({"mode": 7}, "invalid_request", "mode"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields, code, field, service: serving.Service) -> None:
    answers, error = video.stream(service.target, [config(**fields), frame(0)])
    assert answers == []
    assert codes(error) == (INVALID, code, field)


def test_a_session_outlives_its_stream_and_is_what_it_was(service: serving.Service) -> None:
    whole, _ = video.stream(service.target, [config(mode=FILE), *map(frame, range(20))])
    first, _ = video.stream(service.target, [config(mode=FILE, session="two"), *map(frame, range(10))])
    rest, _ = video.stream(service.target, [config(mode=FILE, session="two"), *map(frame, range(10, 20))])
    opened = rest[0].opened
    assert (opened.resumed, opened.last_sequence) == (True, 9)
    assert opened.last_timestamp_s == 100 + 9 / video.RATE_HZ
    assert [facts(each) for each in first[1:] + rest[1:]] == [facts(each) for each in whole[1:]]
    _, error = video.stream(service.target, [config(session="two"), frame(19, timestamp_s=200)])
    assert codes(error) == (INVALID, "invalid_request", "sequence")
    for fields, field in [
        ({"model": "tiny@1"}, "model"),
        ({"smoothing": pb.Smoothing(name="none")}, "smoothing"),
        ({"tracking": False}, "tracking"),
    ]:
        _, error = video.stream(service.target, [config(session="two", **fields)])
        assert codes(error) == (INVALID, "invalid_request", field)


def test_who_opens_a_session_again_gets_it_from_the_stream_that_has_it(service: serving.Service) -> None:
    with Call(service.target, config(session="mine", mode=FILE)) as old:
        assert not old.read().opened.resumed
        assert old.ask(frame(0)).HasField("tracked")
        with Call(service.target, config(session="mine", mode=FILE)) as new:
            assert new.read().opened.last_sequence == 0
            _, error = old.rest()
            assert codes(error) == (grpc.StatusCode.ABORTED, "session_conflict", "session")
            assert new.ask(frame(1)).tracked.tracks[0].id == 1


def test_a_token_is_sent_when_asked_for_and_continues(service: serving.Service) -> None:
    whole, _ = video.stream(service.target, [config(mode=FILE), *map(frame, range(12))])
    messages = [config(mode=FILE), *(frame(number, want_token=number == 5) for number in range(8))]
    answers, _ = video.stream(service.target, messages)
    tokens = [answer.tracked.resume_token for answer in answers[1:]]
    assert [bool(token) for token in tokens] == [number == 5 for number in range(8)]
    again, error = video.stream(
        service.target, [config(mode=FILE, resume_token=tokens[5]), *map(frame, range(6, 12))]
    )
    assert error is None
    assert (again[0].opened.resumed, again[0].opened.last_sequence) == (True, 5)
    assert [facts(each) for each in again[1:]] == [facts(each) for each in whole[7:]]


def drained(call: Call) -> tuple[list[pb.EstimateStreamResponse], pb.EstimateStreamResponse]:
    """What was answered, and the last message, of a stream that the service ended."""
    answers, error = call.rest()
    assert codes(error)[:2] == (grpc.StatusCode.UNAVAILABLE, "not_ready")
    assert answers[-1].HasField("closing")
    return answers[:-1], answers[-1]


KEYS = {"REPPOSE_SESSIONS__TOKEN_KEYS": "a key that both servers have"}


@pytest.mark.parametrize("mode", [FILE, pb.STREAM_MODE_LIVE])
def test_a_stream_whose_server_stops_goes_on_elsewhere_to_the_last_bit(mode, tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, **KEYS) as other:
        whole, _ = video.stream(other.target, [config(mode=FILE), *map(frame, range(FRAMES))])
        service = serving.Service(tiny_bundle_root, **KEYS)
        try:
            service.wait_for("ready")
            with Call(service.target, config(mode=mode)) as call:
                assert call.read().HasField("opened")
                begun = [call.ask(frame(number)) for number in range(12)]
                service.terminate()
                if mode == FILE:
                    call.send(*map(frame, range(12, FRAMES)))
                answered, closing = drained(call)
            assert service.ended() == 0, service.text
        finally:
            service.process.kill()
            service.ended()
        answered = begun + answered
        assert [answer.sequence for answer in answered] == list(range(len(answered)))
        assert closing.closing.has_sequence
        assert closing.sequence == answered[-1].sequence
        again, error = video.stream(
            other.target,
            [
                config(mode=FILE, resume_token=closing.closing.resume_token),
                *map(frame, range(len(answered), FRAMES)),
            ],
        )
        assert error is None
        assert again[0].opened.last_sequence == closing.sequence
        assert [facts(each) for each in answered + again[1:]] == [facts(each) for each in whole[1:]]


def test_a_stream_whose_server_dies_goes_on_from_the_last_token_it_asked_for(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, **KEYS) as other:
        whole, _ = video.stream(other.target, [config(mode=FILE), *map(frame, range(FRAMES))])
        service = serving.Service(tiny_bundle_root, **KEYS)
        try:
            service.wait_for("ready")
            with Call(service.target, config(mode=FILE)) as call:
                call.read()
                begun = [call.ask(frame(number, want_token=number % 4 == 3)) for number in range(14)]
                service.process.kill()
                _, error = call.rest()
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            service.process.kill()
            service.ended()
        with_token = [answer for answer in begun if answer.tracked.resume_token]
        last = with_token[-1]
        assert last.sequence == 11
        again, error = video.stream(
            other.target,
            [config(mode=FILE, resume_token=last.tracked.resume_token), *map(frame, range(12, FRAMES))],
        )
        assert error is None
        assert [facts(each) for each in begun[:12] + again[1:]] == [facts(each) for each in whole[1:]]


def test_a_token_of_other_keys_is_none(service: serving.Service, tiny_bundle_root: Path) -> None:
    answers, _ = video.stream(service.target, [config(mode=FILE), frame(0, want_token=True)])
    token = answers[1].tracked.resume_token
    with serving.running(tiny_bundle_root, **KEYS) as other:
        _, error = video.stream(other.target, [config(resume_token=token)])
    assert codes(error) == (INVALID, "invalid_token", "resume_token")


def test_streams_are_counted_bounded_and_ended_when_idle(tiny_bundle_root: Path) -> None:
    few = {"REPPOSE_STREAMS__COUNT": "2", "REPPOSE_STREAMS__IDLE_S": "2", "REPPOSE_SESSIONS__IDLE_S": "2"}
    with serving.running(tiny_bundle_root, **few) as small:
        with Call(small.target, config(session="a")) as one, Call(small.target, config()) as two:
            one.read()
            two.read()
            _, error = video.stream(small.target, [config()])
            assert codes(error)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
            assert one.ask(frame(0)).HasField("tracked")
            assert one.ask(frame(1, GARBAGE)).HasField("error")
            found = video.metrics(small)
            assert found['reppose_streams{transport="grpc"}'] == 2
            assert found['reppose_stream_frames_total{outcome="ok"}'] == 1
            assert found['reppose_stream_frames_total{outcome="invalid_image"}'] == 1
            assert found["reppose_stream_frame_age_seconds_count"] == 1
            for call in (one, two):
                _, error = call.rest()
                assert codes(error)[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        video.until(small, 'reppose_streams{transport="grpc"}', 0)
        video.until(small, "reppose_sessions", 0)  # it was not asked for either
        assert video.metrics(small)['reppose_session_events_total{event="expired"}'] == 1


def test_a_reader_that_reads_nothing_is_cut_off(tiny_bundle_root: Path) -> None:
    """Its answers fill the window of the connection; then nothing moves."""
    few = {"REPPOSE_STREAMS__IDLE_S": "2"}
    with serving.running(tiny_bundle_root, **few) as small:
        with Call(small.target, config(mode=FILE)) as call:
            message = frame(0)
            for number in range(2000):
                message.sequence, message.timestamp_s = number, number / 30
                message.frame.heatmaps = True
                copy = pb.EstimateStreamRequest()
                copy.CopyFrom(message)
                call.send(copy)
            video.until(small, 'reppose_streams{transport="grpc"}', 1)
            video.until(small, 'reppose_streams{transport="grpc"}', 0)
        assert video.metrics(small)['reppose_stream_frames_total{outcome="ok"}'] < 1000
