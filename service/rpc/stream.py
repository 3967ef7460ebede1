"""`EstimateStream` with a config: messages to frames of a `live.Stream`, its outcomes to messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import lru_cache

import grpc

from service.auth.visit import Visit
from service.errors import InvalidRequest
from service.pb.reppose.v1 import pose_pb2 as pb
from service.rpc import convert, metadata
from service.streams.contract import (
    Answered,
    Closing,
    Dropped,
    DropReason,
    Mode,
    Opened,
    Outcome,
    StreamConfig,
    StreamFrame,
)
from service.streams.hub import Hub
from service.streams.live import Stream
from service.types import Frame, Options

_MODES = {
    pb.STREAM_MODE_UNSPECIFIED: Mode.LIVE,
    pb.STREAM_MODE_LIVE: Mode.LIVE,
    pb.STREAM_MODE_FILE: Mode.FILE,
}
_MODES_TO = {Mode.LIVE: pb.STREAM_MODE_LIVE, Mode.FILE: pb.STREAM_MODE_FILE}
_REASONS = {
    DropReason.SUPERSEDED: pb.DROP_REASON_SUPERSEDED,
    DropReason.DEADLINE: pb.DROP_REASON_DEADLINE,
    DropReason.OVERLOADED: pb.DROP_REASON_OVERLOADED,
    DropReason.DRAINING: pb.DROP_REASON_DRAINING,
}


async def serve(
    hub: Hub,
    config: pb.StreamConfig,
    requests: AsyncIterator[pb.EstimateStreamRequest],
    context: grpc.aio.ServicerContext,
    request_id: str,
    visit: Visit,
) -> AsyncIterator[pb.EstimateStreamResponse]:
    """Everything after the config, to the status of the call."""
    call = asyncio.current_task()
    try:
        stream = await hub.open(config_from(config), visit.owner, "grpc", call.cancel)
    except Exception as error:
        await metadata.abort(context, metadata.report(error), request_id)
    reader = asyncio.create_task(_read(stream, requests, visit))
    try:
        yield opened_to(stream.opened)
        while (outcome := await stream.next_outcome()) is not None:
            began_s = time.perf_counter()
            message = outcome_to(outcome)
            if isinstance(outcome, Answered):
                hub.encoded(outcome, time.perf_counter() - began_s)
            yield message
    finally:
        reader.cancel()
        await asyncio.shield(hub.close(stream))
    if stream.failure is not None:
        await metadata.abort(context, metadata.report(stream.failure), request_id)


async def _read(stream: Stream, requests: AsyncIterator[pb.EstimateStreamRequest], visit: Visit) -> None:
    try:
        async for message in requests:
            if message.WhichOneof("message") == "config":
                raise InvalidRequest("a stream has one config, in its first message", "config")
            await stream.put(await visit.let_in(_frame_from(message)))
    except Exception as error:
        stream.fail(error)
    else:
        stream.finish()


def config_from(message: pb.StreamConfig) -> StreamConfig:
    """What a client asks for. Raises InvalidRequest."""
    if message.mode not in _MODES:
        raise InvalidRequest(f"there is no mode {message.mode}", "mode")
    return StreamConfig(
        session=message.session or None,
        resume_token=message.resume_token or None,
        model=message.model or None,
        decoder=message.decoder or None,
        smoothing=message.smoothing.name or None,
        parameters=dict(message.smoothing.parameters),
        tracking=message.tracking if message.HasField("tracking") else None,
        mode=_MODES[message.mode],
        mailbox=message.mailbox or None,
        max_age_s=message.max_age_ms / 1e3 or None,
    )


def _frame_from(message: pb.EstimateStreamRequest) -> StreamFrame:
    timestamp_s = message.timestamp_s if message.HasField("timestamp_s") else None
    try:
        if message.WhichOneof("message") != "frame":
            raise InvalidRequest("a message of the stream must hold a frame", field="frame")
        for field in ("model", "decoder"):
            if getattr(message.frame, field):
                raise InvalidRequest(f"the stream's config says which {field}", field=field)
        frame, options = convert.request_from(message.frame)
    except InvalidRequest as error:
        return StreamFrame(message.sequence, Frame(b""), Options(), timestamp_s, error=error)
    return StreamFrame(message.sequence, frame, options, timestamp_s, message.want_token)


def opened_to(opened: Opened) -> pb.EstimateStreamResponse:
    """The answer to the config."""
    return pb.EstimateStreamResponse(
        opened=pb.Opened(
            model=opened.model,
            decoder=opened.decoder,
            smoothing=pb.Smoothing(name=opened.smoothing, parameters=opened.parameters),
            tracking=opened.tracking,
            mode=_MODES_TO[opened.mode],
            mailbox=opened.mailbox,
            max_age_ms=opened.max_age_s * 1e3,
            resumed=opened.resumed,
            last_sequence=opened.last_sequence or 0,
            last_timestamp_s=opened.last_time_s or 0.0,
        )
    )


def outcome_to(outcome: Outcome) -> pb.EstimateStreamResponse:
    """The answer to a frame, or the last message."""
    if isinstance(outcome, Answered):
        message = pb.EstimateStreamResponse(sequence=outcome.sequence)
        _fill(message.tracked, outcome)
        return message
    if isinstance(outcome, Dropped):
        dropped = pb.Dropped(reason=_REASONS[outcome.reason], age_ms=_ms(outcome.age_s))
        return pb.EstimateStreamResponse(sequence=outcome.sequence, dropped=dropped)
    if isinstance(outcome, Closing):
        closing = pb.Closing(resume_token=outcome.token, has_sequence=outcome.sequence is not None)
        return pb.EstimateStreamResponse(sequence=outcome.sequence or 0, closing=closing)
    error = convert.error_to(metadata.report(outcome.error))
    return pb.EstimateStreamResponse(sequence=outcome.sequence, error=error)


def _fill(message: pb.TrackedResponse, answer: Answered) -> None:
    prediction, timing = answer.prediction, message.timing
    convert.prediction_to(prediction, message.raw)
    for pose in answer.poses:
        track = message.tracks.add()
        if pose.present:
            track.CopyFrom(_unplaced(prediction.keypoints))
            convert.place(track.keypoints, pose)
        track.id, track.reset = pose.track_id or 0, pose.reset or ""
        track.lag_ms, track.lag_frames = pose.lag_ms, pose.lag_frames
        if (heads := pose.heads) is not None:
            if heads.presence is not None:
                track.presence = heads.presence
            convert.fill_classes(track.classes, heads.classes if heads.present else ())
    timing.queue_ms, timing.decode_ms = _ms(prediction.timing.queue_s), _ms(prediction.timing.decode_s)
    timing.infer_ms, timing.age_ms = _ms(prediction.timing.infer_s), _ms(answer.age_s)
    message.resume_token = answer.token or ""


@lru_cache(maxsize=64)
def _unplaced(names: tuple[str, ...]) -> pb.Track:
    """A track of these keypoints, all at 0; see `convert`."""
    return pb.Track(keypoints=[pb.Keypoint(name=name) for name in names])


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
