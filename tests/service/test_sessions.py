"""Video by single requests: a session lives in the store between them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from tests.service import serving, test_websocket, video
from tests.service.video import FRAMES, clip


def post(
    service: serving.Service, session: str, number: int = 0, data: bytes | None = None, **query: Any
) -> httpx.Response:
    headers = {"Content-Type": query.pop("media", "image/png")}
    if "token" in query:
        headers["X-Resume-Token"] = query.pop("token")
    query = {"sequence": number, "timestamp_s": 100 + number / video.RATE_HZ} | query
    return httpx.post(
        f"{service.url}/v1/sessions/{session}/frames",
        content=clip()[number % FRAMES] if data is None else data,
        params={name: value for name, value in query.items() if value is not None},
        headers=headers,
        trust_env=False,
        timeout=60,
    )


def delete(service: serving.Service, session: str) -> httpx.Response:
    return httpx.delete(f"{service.url}/v1/sessions/{session}", trust_env=False, timeout=60)


def facts(answer: dict[str, Any]) -> str:
    return json.dumps([answer["sequence"], answer["raw"], answer["tracks"]], sort_keys=True)


def fault(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error.get("field")


def test_a_session_gets_what_a_stream_gets(service: serving.Service) -> None:
    answers = [post(service, "one", number).json() for number in range(12)]
    whole = test_websocket.file(service, map(test_websocket.frame, range(12)))
    expected = [{"sequence": each["sequence"], **each["tracked"]} for each in whole]
    assert list(map(facts, answers)) == list(map(facts, expected))
    assert [answer["session"]["last_sequence"] for answer in answers] == [None, *range(11)]
    assert [answer["session"]["resumed"] for answer in answers] == [False] + [True] * 11


def test_a_session_goes_on_as_a_stream_and_back(service: serving.Service) -> None:
    whole = test_websocket.file(service, map(test_websocket.frame, range(9)))
    answers = [post(service, "both", number).json() for number in range(3)]
    streamed = test_websocket.file(service, map(test_websocket.frame, range(3, 6)), session="both")
    answers += [{"sequence": each["sequence"], **each["tracked"]} for each in streamed]
    answers += [post(service, "both", number).json() for number in range(6, 9)]
    expected = [{"sequence": each["sequence"], **each["tracked"]} for each in whole]
    assert list(map(facts, answers)) == list(map(facts, expected))


def test_numbers_and_times_are_optional(service: serving.Service) -> None:
    for _ in range(3):
        response = post(service, "bare", sequence=None, timestamp_s=None)
        assert response.status_code == 200
        assert response.json()["sequence"] is None
    assert response.json()["tracks"][0]["id"] == 1


def test_a_token_continues_it_elsewhere(service: serving.Service) -> None:
    whole = [post(service, "original", number, want_token=number == 3).json() for number in range(8)]
    copied = [post(service, "copy", 4, token=whole[3]["resume_token"]).json()]
    copied += [post(service, "copy", number).json() for number in range(5, 8)]
    assert list(map(facts, copied)) == list(map(facts, whole[4:]))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"data": b"garbage"}, (422, "invalid_image", "image")),
        ({"number": 5}, (422, "invalid_request", "sequence")),
        ({"sequence": -1}, (422, "invalid_request", "sequence")),
        ({"number": 6, "timestamp_s": 1}, (422, "invalid_request", "timestamp_s")),
        ({"number": 6, "timestamp_s": "nan"}, (422, "invalid_request", "timestamp_s")),
        ({"number": 6, "model": "absent"}, (422, "invalid_request", "model")),
        ({"number": 6, "smoothing": "ema"}, (422, "invalid_request", "smoothing")),
        ({"number": 6, "parameters": "[1]"}, (422, "invalid_request", "parameters")),
        ({"number": 6, "decoder": "absent"}, (422, "unknown_decoder", "decoder")),
        ({"number": 6, "boxes": "[[0,0,0,0]]"}, (422, "invalid_boxes", "boxes")),
        ({"number": 6, "colour": "red"}, (422, "invalid_request", "colour")),
        ({"number": 6, "token": "nonsense"}, (422, "invalid_token", "resume_token")),
        ({"number": 6, "media": "multipart/form-data; boundary=x"}, (415, "unsupported_media", "image")),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_no_trace(sent, expected, service: serving.Service) -> None:
    name = "refused-" + "-".join(map(str, expected)) + str(len(str(sent)))
    assert post(service, name, 5).status_code == 200
    assert fault(post(service, name, **{"number": 6} | sent)) == expected
    answer = post(service, name, 7).json()
    assert answer["session"]["last_sequence"] == 5


@pytest.mark.parametrize(
    ("smoothing", "parameters", "said"),
    [
        ("ema", '{"beta": 1}', "smoother 'ema' has no parameter 'beta'; its parameters: alpha, rate_hz"),
        ("ema", '{"alpha": 2}', "smoother 'ema': alpha must be above 0 and at most 1, got 2.0"),
        (None, '{"alpha": 0.5}', "smoother 'one_euro' has no parameter 'alpha'"),
    ],
)
def test_a_wrong_parameter_is_named_with_those_that_there_are(
    smoothing, parameters, said, service: serving.Service
) -> None:
    """As over the streams, see `test_websocket` and `test_stream`."""
    refused = post(service, "parameters", smoothing=smoothing, parameters=parameters)
    assert fault(refused) == (422, "invalid_request", "parameters")
    assert refused.json()["error"]["message"].startswith(said)


def test_a_name_must_be_one(service: serving.Service) -> None:
    for name in ("a b", "x" * 65, "%00"):
        assert fault(post(service, name)) == (422, "invalid_request", "session")
        assert fault(delete(service, name)) == (422, "invalid_request", "session")


def test_what_is_not_there_is_not_explained_by_the_fields_of_another_path(service: serving.Service) -> None:
    error = post(service, "typo", 1, colour="red").json()["error"]
    assert error == {"code": "invalid_request", "message": "there is no such field", "field": "colour"}


def test_what_is_deleted_is_gone(service: serving.Service) -> None:
    assert post(service, "brief", 5).status_code == 200
    assert delete(service, "brief").status_code == 204
    assert fault(delete(service, "brief")) == (404, "unknown_session", "session")
    assert post(service, "brief", 1).json()["session"]["resumed"] is False
    with test_websocket.opened(service, {"session": "brief"}) as socket:
        assert test_websocket.read(socket)["opened"]["last_sequence"] == 1
        assert fault(post(service, "brief", 2)) == (409, "session_conflict", "session")
        assert delete(service, "brief").status_code == 204
        _, code, _ = test_websocket.rest(socket)
        assert code == 4409


def test_of_two_who_continue_it_at_once_one_is_told(service: serving.Service) -> None:
    """Whatever happens, what was answered is what the session went through."""
    assert post(service, "raced", 0).status_code == 200
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: post(service, "raced", number), range(1, 19)))
    taken = [answer.json()["sequence"] for answer in answers if answer.status_code == 200]
    for answer in answers:
        assert answer.status_code == 200 or fault(answer)[:2] in {
            (409, "session_conflict"), (422, "invalid_request"),
        }  # fmt: skip
    assert taken
    assert post(service, "raced", 30).json()["session"]["last_sequence"] == max(taken)


def test_sessions_are_counted_evicted_and_expire(tiny_bundle_root: Path) -> None:
    few = {"REPPOSE_SESSIONS__CAPACITY": "2", "REPPOSE_SESSIONS__IDLE_S": "2"}
    with serving.running(tiny_bundle_root, **few) as small:
        for name in "abc":
            assert post(small, name, 0).status_code == 200
        found = video.metrics(small)
        assert found["reppose_sessions"] == 2
        assert found['reppose_session_events_total{event="evicted"}'] == 1
        assert found['reppose_session_events_total{event="opened"}'] == 3
        assert post(small, "a", 1).json()["session"]["resumed"] is False
        assert post(small, "a", 2).json()["session"]["resumed"] is True
        assert video.metrics(small)['reppose_sessions_resumed_total{source="store"}'] == 1
        video.until(small, "reppose_sessions", 0)


def test_replicas_with_one_key_continue_each_others_streams(tiny_bundle_root: Path) -> None:
    """From HTTP on one server to gRPC on another."""
    keys = {"REPPOSE_SESSIONS__TOKEN_KEYS": "a key that both servers have"}
    with serving.running(tiny_bundle_root, **keys) as one, serving.running(tiny_bundle_root, **keys) as other:
        token = post(one, "s", 3, want_token=True).json()["resume_token"]
        answers, error = video.stream(
            other.target, [video.config(mode=pb.STREAM_MODE_FILE, resume_token=token), video.frame(4)]
        )
        assert error is None
        assert answers[0].opened.last_sequence == 3
        assert answers[1].tracked.tracks[0].id == 1
