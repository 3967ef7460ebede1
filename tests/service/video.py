"""A made-up clip and gRPC streams of it."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import grpc
import numpy as np

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests import tiny_model
from tests.service import serving

DEADLINE_S = 60
RATE_HZ = 30.0
FRAMES = 40
GARBAGE = b"garbage"


@cache
def clip(frames: int = FRAMES) -> tuple[bytes, ...]:
    """Somebody who walks, stops and leaps, under noise: PNGs of 320 x 260 pixels."""
    noise = np.random.default_rng(1)
    pictures = []
    for number in range(frames):
        x = 30 + 3.0 * min(number, 15) + (90 if number >= 30 else 0)
        joints = tiny_model.person((x, 40 + number / 3, 90, 160)) + noise.normal(0, 1.5, (19, 2))
        pictures.append(tiny_model.encode(tiny_model.paint((260, 320), joints, radius=8)))
    return tuple(pictures)


def config(sequence: int = 0, **fields: Any) -> pb.EstimateStreamRequest:
    return pb.EstimateStreamRequest(sequence=sequence, config=pb.StreamConfig(**fields))


def frame(number: int, data: bytes | None = None, **fields: Any) -> pb.EstimateStreamRequest:
    """The frame of this number, taken at its time unless told otherwise."""
    inner = {name: fields.pop(name) for name in ("model", "decoder", "boxes") if name in fields}
    image = pb.EstimateRequest(image=clip()[number % FRAMES] if data is None else data, **inner)
    fields.setdefault("timestamp_s", 100 + number / RATE_HZ)
    if fields["timestamp_s"] is None:
        del fields["timestamp_s"]
    return pb.EstimateStreamRequest(sequence=number, frame=image, **fields)


class Call:
    """A stream that is sent to and read from step by step."""

    def __init__(self, target: str, *messages: pb.EstimateStreamRequest, metadata: Any = None) -> None:
        self._outgoing: queue.Queue[pb.EstimateStreamRequest | None] = queue.Queue()
        self.channel = grpc.insecure_channel(target)
        self.call = pose_pb2_grpc.PoseServiceStub(self.channel).EstimateStream(
            iter(self._outgoing.get, None), timeout=DEADLINE_S, metadata=metadata
        )
        self.send(*messages)

    def send(self, *messages: pb.EstimateStreamRequest) -> None:
        for message in messages:
            self._outgoing.put(message)

    def end(self) -> None:
        """Say that there are no more frames."""
        self._outgoing.put(None)

    def read(self) -> pb.EstimateStreamResponse:
        return next(self.call)

    def ask(self, message: pb.EstimateStreamRequest) -> pb.EstimateStreamResponse:
        """Send one and read one."""
        self.send(message)
        return self.read()

    def rest(self) -> tuple[list[pb.EstimateStreamResponse], grpc.RpcError | None]:
        """What is left, and the error that the stream ends with."""
        found = []
        try:
            for answer in self.call:
                found.append(answer)
        except grpc.RpcError as error:
            return found, error
        return found, None

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.call.cancel()
        self.channel.close()


def stream(
    target: str, messages: Iterable[pb.EstimateStreamRequest]
) -> tuple[list[pb.EstimateStreamResponse], grpc.RpcError | None]:
    """Send all, read all."""
    with Call(target, *messages) as call:
        call.end()
        return call.rest()


def facts(answer: pb.EstimateStreamResponse) -> bytes:
    """A tracked answer without what depends on the clock."""
    assert answer.WhichOneof("outcome") == "tracked", answer
    copy = pb.EstimateStreamResponse()
    copy.CopyFrom(answer)
    copy.tracked.ClearField("timing")
    copy.tracked.ClearField("resume_token")
    return copy.SerializeToString(deterministic=True)


def points(keypoints: Iterable[pb.Keypoint]) -> np.ndarray:
    return np.array([(each.x, each.y) for each in keypoints])


def metrics(service: serving.Service) -> dict[str, float]:
    """Every sample by its name and labels."""
    text = serving.get(service, "/metrics").text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def until(service: serving.Service, name: str, value: float) -> None:
    """Wait until a metric has a value; it gives up with the test's own timeout."""
    while metrics(service).get(name, 0.0) != value:
        time.sleep(0.02)
