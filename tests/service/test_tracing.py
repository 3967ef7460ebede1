"""Traces of requests: a real service sends them to a real collector, over every way in."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from websockets.sync.client import connect

from service import tracing
from service.errors import StartupError
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.tracing import Tracer
from tests.service import serving, video
from tests.service.collector import Received, attributes, collecting
from tests.service.test_websocket import frame as ws_frame

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
STAGES = {"queue", "decode", "warp", "infer", "decode_keypoints", "encode"}
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


def parent(sampled: bool = True, trace: str = TRACE) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{CALLER}-{sampled:02x}", "tracestate": "vendor=1"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


@pytest.fixture(scope="module")
def service(tiny_bundle_root: Path, collector: Received) -> Iterator[serving.Service]:
    traced = {"REPPOSE_TRACING__ENDPOINT": collector.url, "REPPOSE_TRACING__SHARE": "0"}
    with serving.running(tiny_bundle_root, **traced, **SOON) as running:
        yield running


def post(service: serving.Service, headers: dict[str, str], path: str = "/v1/pose") -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{service.url}{path}", content=video.clip()[0], headers=headers)


def of(trace: str, *, request: str) -> Callable[[list[Span]], tuple[Span, list[Span]] | None]:
    """The span of a request in this trace, and those below it, once it is there with all its stages."""

    def found(spans: list[Span]) -> tuple[Span, list[Span]] | None:
        mine = [span for span in spans if span.trace_id.hex() == trace]
        servers = [span for span in mine if span.name == request]
        below = [span for span in mine if servers and span.parent_span_id == servers[0].span_id]
        return (servers[0], below) if servers else None

    return found


def check_stages(request: Span, below: list[Span], expected: set[str]) -> None:
    assert {span.name for span in below} == expected
    for span in below:
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
    begins = {span.name: span.start_time_unix_nano for span in reversed(below)}
    ends = {span.name: span.end_time_unix_nano for span in below}
    order = [name for name in ("queue", "decode", "infer", "decode_keypoints", "encode") if name in expected]
    for earlier, later in pairwise(order):
        assert begins[earlier] <= begins[later]
        assert ends[earlier] <= ends[later]


def test_a_post_is_a_span_below_the_callers_with_its_stages_below_it(
    service: serving.Service, collector: Received
) -> None:
    answer = post(service, parent())
    assert answer.status_code == 200
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", answer.headers["traceresponse"])
    request, below = collector.wait(of(TRACE, request="POST /v1/pose"))
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.parent_span_id.hex() == CALLER
    assert request.trace_state == "vendor=1"
    assert request.span_id.hex() == answer.headers["traceresponse"].split("-")[2]
    told = attributes(request)
    assert told["http.response.status_code"] == 200
    assert (told["http.route"], told["reppose.outcome"]) == ("/v1/pose", "ok")
    check_stages(request, below, STAGES)
    total_ms = float(re.search(r"total;dur=([\d.]+)", answer.headers["server-timing"])[1])
    spent_ms = (request.end_time_unix_nano - request.start_time_unix_nano) / 1e6
    assert spent_ms >= 0.9 * total_ms  # the same time, measured once
    assert collector.resources[-1]["service.name"] == "reppose"
    line = service.wait_for("request", trace_id=TRACE)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["span_id"] == request.span_id.hex()


def test_a_batch_is_linked_to_the_requests_in_it(service: serving.Service, collector: Received) -> None:
    trace = "a" * 32
    answer = post(service, parent(trace=trace))

    def linked(spans: list[Span]) -> Span | None:
        batches = [span for span in spans if span.name == "batch"]
        return next((span for span in batches if span.links[0].trace_id.hex() == trace), None)

    batch = collector.wait(linked)
    assert batch.links[0].span_id.hex() == answer.headers["traceresponse"].split("-")[2]
    assert batch.trace_id.hex() != trace
    assert attributes(batch) == {"reppose.model": "tiny@2", "reppose.batch.frames": 1}


def test_what_the_caller_does_not_record_is_not_recorded_here(
    service: serving.Service, collector: Received
) -> None:
    silent, heard = "b" * 32, "c" * 32
    answer = post(service, parent(sampled=False, trace=silent))
    assert answer.headers["traceresponse"].startswith(f"00-{silent}-")
    assert answer.headers["traceresponse"].endswith("-00")
    assert service.wait_for("request", trace_id=silent)["outcome"] == "ok"
    post(service, {})  # begins a trace here, where the share is 0
    post(service, {"traceparent": "00-zz-nonsense"})
    post(service, parent(trace=heard))
    collector.wait(of(heard, request="POST /v1/pose"))  # spans are sent in order
    servers = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert all(span.parent_span_id.hex() == CALLER for span in servers)
    assert silent not in {span.trace_id.hex() for span in collector.spans}


def test_errors_say_so(service: serving.Service, collector: Received) -> None:
    trace = "d" * 32
    assert post(service, parent(trace=trace), "/v1/pose?decoder=none").status_code == 422
    request, below = collector.wait(of(trace, request="POST /v1/pose"))
    told = attributes(request)
    assert (told["error.type"], told["http.response.status_code"]) == ("unknown_decoder", 422)
    assert below == []
    assert "none" not in str(request)  # queries may hold anything


def test_grpc_is_traced_likewise(service: serving.Service, collector: Received) -> None:
    trace = "e" * 32
    with grpc.insecure_channel(service.target) as channel:
        answer, call = pose_pb2_grpc.PoseServiceStub(channel).Estimate.with_call(
            pb.EstimateRequest(image=video.clip()[0]), timeout=60, metadata=tuple(parent(trace=trace).items())
        )
    assert answer.poses
    request, below = collector.wait(of(trace, request="reppose.v1.PoseService/Estimate"))
    assert request.parent_span_id.hex() == CALLER
    assert attributes(request)["rpc.method"] == "Estimate"
    check_stages(request, below, STAGES)
    assert dict(call.trailing_metadata())["traceresponse"] == f"00-{trace}-{request.span_id.hex()}-01"


def frames_of(stream: Span, count: int) -> Callable[[list[Span]], list[tuple[Span, set[str]]] | None]:
    """The frames of a stream, each with the names of its stages, once they are all there."""

    def found(spans: list[Span]) -> list[tuple[Span, set[str]]] | None:
        frames = [
            span
            for span in spans
            if span.name == "frame" and [link.span_id for link in span.links] == [stream.span_id]
        ]
        stages = [
            (each, {one.name for one in spans if one.parent_span_id == each.span_id}) for each in frames
        ]
        return stages if len(frames) == count else None

    return found


@pytest.mark.parametrize("configured", [True, False])
def test_every_frame_of_a_stream_is_a_trace_that_is_linked_to_it(
    service: serving.Service, collector: Received, configured: bool
) -> None:
    trace = ("1" if configured else "2") * 32
    first = [video.config(mode=pb.STREAM_MODE_FILE)] if configured else []
    messages = [*first, *map(video.frame, range(3))]
    with grpc.insecure_channel(service.target) as channel:
        answers = pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(
            iter(messages), timeout=60, metadata=tuple(parent(trace=trace).items())
        )
        assert len(list(answers)) == len(messages)
    stream, below = collector.wait(of(trace, request="reppose.v1.PoseService/EstimateStream"))
    assert below == []
    assert attributes(stream)["reppose.outcome"] == "ok"
    frames = collector.wait(frames_of(stream, 3))
    assert len({frame.trace_id for frame, _ in frames} | {stream.trace_id}) == 4
    last = {"smooth"} if configured else {"encode"}
    assert [stages for _, stages in frames] == [(STAGES - {"encode"}) | last] * 3


def test_a_websocket_is_traced_likewise(service: serving.Service, collector: Received) -> None:
    trace = "3" * 32
    url = service.url.replace("http", "ws", 1) + "/v1/stream"
    with connect(url, compression=None, proxy=None, additional_headers=parent(trace=trace)) as socket:
        assert socket.response.headers["traceresponse"].startswith(f"00-{trace}-")
        socket.send(json.dumps({"mode": "file"}))
        socket.send(ws_frame(0))
        assert [next(iter(json.loads(socket.recv(60)))) for _ in range(2)] == ["opened", "sequence"]
    stream, _ = collector.wait(of(trace, request="WEBSOCKET /v1/stream"))
    assert collector.wait(frames_of(stream, 1))


def test_examples_of_openmetrics_lead_to_traces(service: serving.Service) -> None:
    trace = "f" * 32
    post(service, parent(trace=trace))
    with httpx.Client(trust_env=False) as client:
        plain = client.get(f"{service.url}/metrics")
        rich = client.get(f"{service.url}/metrics", headers={"Accept": "application/openmetrics-text"})
    assert plain.headers["content-type"].startswith("text/plain")
    assert rich.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "trace_id" not in plain.text
    examples = re.findall(
        r'^reppose_request_seconds_bucket{[^}]*} \S+ # {trace_id="(\w+)"} \S+ \S+$', rich.text, re.MULTILINE
    )
    assert trace in examples
    assert rich.text.endswith("# EOF\n")


def test_a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end(
    tiny_bundle_root: Path,
) -> None:
    with collecting(answer_s=3600) as received:
        traced = {"REPPOSE_TRACING__ENDPOINT": received.url, "REPPOSE_DRAIN__TIMEOUT_S": "3"}
        with serving.running(tiny_bundle_root, **traced, **SOON) as service:
            for _ in range(3):
                assert post(service, {}).status_code == 200
        assert service.wait_for("stopped")["finished"] is True
        assert received.spans == []


def test_what_was_traced_last_is_sent_before_the_end(tiny_bundle_root: Path) -> None:
    with collecting() as received:
        late = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=abc"}
        with serving.running(tiny_bundle_root, REPPOSE_TRACING__ENDPOINT=received.url, **late) as service:
            assert post(service, {}).status_code == 200
            assert received.spans == []
        assert "POST /v1/pose" in [span.name for span in received.spans]
        assert received.headers[0]["x-key"] == "abc"
        assert "abc" not in service.text


def test_without_the_package_the_start_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing.open_tracer("", share=1, name="reppose", version="1") is None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(StartupError, match=r"reppose\[tracing\]"):
        tracing.open_tracer("http://127.0.0.1:1/v1/traces", share=1, name="reppose", version="1")


def in_memory(share: float = 1.0) -> tuple[Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return Tracer(
        tracing.provide(SimpleSpanProcessor(exporter), share=share, name="t", version="1")
    ), exporter


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_traces_that_begin_here_is_recorded(share: float) -> None:
    async def count() -> tuple[int, int]:
        tracer, exporter = in_memory(share)
        for _ in range(1000):
            tracer.begin("request", {}, {}).end("ok")
        begun_here = len(exporter.get_finished_spans())
        for sampled in (True, False):
            tracer.begin("request", parent(sampled), {}).end("ok")
        return begun_here, len(exporter.get_finished_spans()) - begun_here

    begun_here, by_callers = asyncio.run(count())
    assert by_callers == 1
    assert 1000 * share - 100 <= begun_here <= 1000 * share + 100
    assert begun_here == 1000 * share or 0 < share < 1


def test_a_trace_belongs_to_its_task_only() -> None:
    async def ask(tracer: Tracer, name: str) -> str:
        trace = tracer.begin(name, {}, {})
        await asyncio.sleep(0)
        assert tracing.current() is trace
        assert tracing.exemplar() == trace.id
        trace.end("ok")
        return trace.id

    async def several() -> list[str]:
        tracer, _ = in_memory()
        return await asyncio.gather(*(ask(tracer, str(number)) for number in range(5)))

    assert len(set(asyncio.run(several()))) == 5
    assert tracing.current() is None
