"""The gRPC service over real sockets: the same answers as REST, streams, health and reflection."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene

Stub = pose_pb2_grpc.PoseServiceStub
DEADLINE_S = 60
SOURCES = {"request": pb.BOX_SOURCE_REQUEST, "found": pb.BOX_SOURCE_FOUND, "image": pb.BOX_SOURCE_IMAGE}


def box(values: tuple[float, ...]) -> pb.Box:
    x, y, width, height = values
    return pb.Box(x=x, y=y, width=width, height=height)


def points(answer: pb.EstimateResponse, index: int = 0) -> np.ndarray:
    return np.array([(each.x, each.y) for each in answer.poses[index].keypoints])


def failure(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def as_json(answer: pb.EstimateResponse) -> dict[str, Any]:
    """The answer in the form of the REST service."""
    names = {number: name for name, number in SOURCES.items()}
    return {
        "model": answer.model,
        "version": answer.version,
        "decoder": answer.decoder,
        "image": {"width": answer.image.width, "height": answer.image.height},
        "poses": [
            {
                "box": [pose.box.x, pose.box.y, pose.box.width, pose.box.height],
                "box_source": names[pose.box_source],
                "score": pose.score,
                "keypoints": [
                    {"name": each.name, "x": each.x, "y": each.y, "score": each.score}
                    for each in pose.keypoints
                ],
            }
            for pose in answer.poses
        ],
    }


@pytest.mark.parametrize("decoder", ["", "dark", "argmax_shift", "dsnt"])
@pytest.mark.parametrize("sent", [[], [(150, 60, 120, 300)], [(0.5, 1.25, 399, 470), (150, 60, 120, 300)]])
def test_both_protocols_give_the_same_numbers_to_the_last_bit(
    sent: list[tuple[float, ...]], decoder: str, service: serving.Service, stub: Stub, scene: Scene
) -> None:
    for data in (scene.png, tiny_model.encode(scene.picture, "JPEG", quality=80)):
        request = pb.EstimateRequest(image=data, boxes=map(box, sent), decoder=decoder)
        answer = stub.Estimate(request, timeout=DEADLINE_S)
        rest = serving.post(service, data, boxes=json.dumps(sent) if sent else "", decoder=decoder)
        assert as_json(answer) == rest.json()
        assert np.abs(points(answer, -1) - scene.joints).max() < 12


@pytest.mark.parametrize(
    ("request_", "status", "code", "field"),
    [
        ({"image": b""}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_image", "image"),
        ({"image": b"garbage"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_image", "image"),
        (
            {"image": bytes(20 * 1024 * 1024 + 1)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "image_too_large",
            "image",
        ),
        ({"model": "absent"}, grpc.StatusCode.INVALID_ARGUMENT, "unknown_model", "model"),
        ({"decoder": "absent"}, grpc.StatusCode.INVALID_ARGUMENT, "unknown_decoder", "decoder"),
        ({"decoder": "\0" * 100_000}, grpc.StatusCode.INVALID_ARGUMENT, "unknown_decoder", "decoder"),
        ({"boxes": [pb.Box()]}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_boxes", "boxes"),
        (
            {"boxes": [box((0, 0, float("nan"), 1))]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_boxes",
            "boxes",
        ),
        ({"boxes": [box((0, 0, 9, 9))] * 33}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_boxes", "boxes"),
        ({"boxes": [box((900, 0, 9, 9))]}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_boxes", "boxes"),
    ],
)
def test_errors_have_a_status_a_code_and_a_field(
    request_: dict[str, Any], status: grpc.StatusCode, code: str, field: str, stub: Stub, scene: Scene
) -> None:
    request = pb.EstimateRequest(**{"image": scene.png} | request_)
    error = failure(lambda: stub.Estimate(request, timeout=DEADLINE_S))
    assert error.code() is status
    assert 0 < len(error.details()) < 500
    details = dict(error.trailing_metadata())
    assert (details["reppose-code"], details["reppose-field"]) == (code, field)


def test_a_message_beyond_all_limits_is_refused_by_the_transport(stub: Stub) -> None:
    error = failure(
        lambda: stub.Estimate(pb.EstimateRequest(image=bytes(22 * 1024 * 1024)), timeout=DEADLINE_S)
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_compressed_message_is_refused_before_it_is_unpacked(service: serving.Service) -> None:
    """A gzip bomb: 25 MB of zeros in 25 kB."""
    with grpc.insecure_channel(service.target, compression=grpc.Compression.Gzip) as channel:
        request = pb.EstimateRequest(image=bytes(25 * 1024 * 1024))
        assert len(gzip.compress(request.image)) < 30_000
        error = failure(lambda: Stub(channel).Estimate(request, timeout=DEADLINE_S))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "'gzip' is disabled" in error.details()


def test_a_request_id_is_sent_back_and_logged(service: serving.Service, stub: Stub, scene: Scene) -> None:
    request = pb.EstimateRequest(image=scene.png)
    _, call = stub.Estimate.with_call(request, metadata=[("x-request-id", "rpc-17")], timeout=DEADLINE_S)
    assert dict(call.trailing_metadata())["x-request-id"] == "rpc-17"
    assert service.wait_for("request", request_id="rpc-17")["transport"] == "grpc"


def frames(*images: bytes, start: int = 100, **fields: Any) -> Iterator[pb.EstimateStreamRequest]:
    for number, image in enumerate(images):
        frame = pb.EstimateRequest(image=image, **fields)
        yield pb.EstimateStreamRequest(sequence=start + number, frame=frame)


def test_a_stream_answers_every_frame_once_and_in_order(stub: Stub) -> None:
    boxes = [(20.0 + 2 * number, 10.0 + number, 100.0, 160.0) for number in range(40)]
    people = [tiny_model.person(each) for each in boxes]
    images = [tiny_model.encode(tiny_model.paint((260, 300), person, radius=8)) for person in people]
    answers = list(stub.EstimateStream(frames(*images), timeout=DEADLINE_S))
    assert [answer.sequence for answer in answers] == list(range(100, 140))
    for answer, person in zip(answers, people, strict=True):
        assert np.abs(points(answer.prediction) - person).max() < 6


def test_a_frame_that_fails_does_not_end_its_stream(stub: Stub, scene: Scene) -> None:
    requests = [
        *frames(scene.png, b"garbage", scene.png),
        pb.EstimateStreamRequest(sequence=7),
        *frames(scene.png, model="absent"),
        *frames(scene.png),
    ]
    answers = list(stub.EstimateStream(iter(requests), timeout=DEADLINE_S))
    assert [answer.sequence for answer in answers] == [100, 101, 102, 7, 100, 100]
    outcomes = [answer.WhichOneof("outcome") for answer in answers]
    assert outcomes == ["prediction", "error", "prediction", "error", "error", "prediction"]
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [
        (answers[at].error.status, answers[at].error.code, answers[at].error.field) for at in (1, 3, 4)
    ] == [
        (invalid, "invalid_image", "image"),
        (invalid, "invalid_request", "frame"),
        (invalid, "unknown_model", "model"),
    ]


def test_an_empty_stream_ends(stub: Stub) -> None:
    assert list(stub.EstimateStream(iter([]), timeout=DEADLINE_S)) == []


def test_answers_come_while_the_stream_is_open(stub: Stub, scene: Scene) -> None:
    """A camera waits for the answer to a frame before it sends the next."""
    answered = threading.Semaphore(0)

    def camera() -> Iterator[pb.EstimateStreamRequest]:
        for request in frames(*[scene.png] * 3):
            yield request
            assert answered.acquire(timeout=DEADLINE_S)

    for count, answer in enumerate(stub.EstimateStream(camera(), timeout=DEADLINE_S)):
        assert answer.sequence == 100 + count
        answered.release()


def test_streams_wait_for_room_where_single_requests_are_refused(tiny_bundle_root: Any, scene: Scene) -> None:
    few = {"REPPOSE_BATCH__QUEUE": "1", "REPPOSE_BATCH__WORKERS": "1", "REPPOSE_GRPC__STREAM_FRAMES": "4"}
    large = tiny_model.encode(np.full((1500, 1500, 3), 128, np.uint8))
    with serving.running(tiny_bundle_root, **few) as small, grpc.insecure_channel(small.target) as channel:
        stub = Stub(channel)
        streams = [stub.EstimateStream(frames(*[large] * 8), timeout=DEADLINE_S) for _ in range(3)]
        calls = [stub.Estimate.future(pb.EstimateRequest(image=large), timeout=DEADLINE_S) for _ in range(30)]
        for stream in streams:
            answers = list(stream)
            assert [answer.sequence for answer in answers] == list(range(100, 108))
            assert all(answer.WhichOneof("outcome") == "prediction" for answer in answers)
        refused = [call.exception() for call in calls if call.exception()]
        assert refused
        for error in refused:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(error.trailing_metadata())["reppose-code"] == "overloaded"


def test_a_client_that_leaves_its_stream_disturbs_nobody(
    service: serving.Service, stub: Stub, scene: Scene
) -> None:
    for _ in range(5):
        stream = stub.EstimateStream(frames(*[scene.png] * 30), timeout=DEADLINE_S)
        next(stream)
        stream.cancel()
    stub.Estimate(pb.EstimateRequest(image=scene.png), timeout=DEADLINE_S)
    error = failure(lambda: stub.Estimate(pb.EstimateRequest(image=scene.png), timeout=1e-6))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not any("traceback" in str(line).lower() for line in service.lines)


def test_frames_of_streams_are_counted(service: serving.Service, stub: Stub, scene: Scene) -> None:
    def count(outcome: str) -> float:
        wanted = f'reppose_requests_total{{method="EstimateStream",outcome="{outcome}",transport="grpc"}} '
        lines = serving.get(service, "/metrics").text.splitlines()
        return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))

    before = count("ok"), count("invalid_image")
    list(stub.EstimateStream(frames(scene.png, b"", scene.png), timeout=DEADLINE_S))
    assert (count("ok") - before[0], count("invalid_image") - before[1]) == (2, 1)


def test_health(service: serving.Service) -> None:
    with grpc.insecure_channel(service.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "reppose.v1.PoseService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = health_pb2.HealthCheckRequest(service="unknown")
        assert failure(lambda: health.Check(unknown, timeout=DEADLINE_S)).code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_contract(service: serving.Service) -> None:
    with grpc.insecure_channel(service.target) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="reppose.v1.PoseService"),
        ]
        listed, described = ask(iter(requests), timeout=DEADLINE_S)
    names = {each.name for each in listed.list_services_response.service}
    assert names == {
        "reppose.v1.PoseService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    files = [
        FileDescriptorProto.FromString(each)
        for each in described.file_descriptor_response.file_descriptor_proto
    ]
    methods = {method.name for file in files for each in file.service for method in each.method}
    assert methods == {"Estimate", "EstimateStream"}
