"""`reppose.v1.PoseService`: messages to frames, predictions to messages, errors to statuses."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager

import grpc

from service import status, tracing
from service.auth.visit import Visit
from service.errors import InvalidRequest, ServiceError
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.predictor import Predictor
from service.rpc import access, convert, metadata, stream
from service.rpc.metadata import REQUEST_ID, SERVER_TIMING
from service.rpc.patience import late
from service.streams.hub import Hub
from service.tracing import Trace
from service.types import Prediction
from service.watching import Watch

STOPPING = "the service is stopping"
_SERVICE = pb.DESCRIPTOR.services_by_name["PoseService"].full_name
_Answer = asyncio.Task[pb.EstimateStreamResponse]


class PoseServicer(pose_pb2_grpc.PoseServiceServicer):
    """Both methods over one predictor and one hub.

    Args:
        predictor: answers frames.
        hub: has the streams with a config.
        watch: hears of every frame.
        stream_frames: most unanswered frames of one stream.
        message_s: how long the first message of a stream may take.
        idle_s: how long each further one may, of a stream without a config.
        refused: told `message_time` when the first did not come.
    """

    def __init__(
        self,
        predictor: Predictor,
        hub: Hub,
        watch: Watch,
        *,
        stream_frames: int,
        message_s: float = 30.0,
        idle_s: float = 60.0,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._refused = refused
        self._message_s, self._idle_s = message_s, idle_s
        self._predictor, self._hub = predictor, hub
        self._watch = watch
        self._stream_frames = stream_frames
        self._calls = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._readers: set[asyncio.Task[None]] = set()

    async def drain(self) -> None:
        """Read no more from any stream, and wait until every call has ended."""
        for reader in self._readers:
            reader.cancel()
        await self._quiet.wait()

    async def Estimate(  # noqa: N802 - named by the contract
        self, request: pb.EstimateRequest, context: grpc.aio.ServicerContext
    ) -> pb.EstimateResponse:
        """One image, one answer."""
        request_id = metadata.begin(context)
        started = time.perf_counter()
        trace = self._traced("Estimate", context)
        with self._call():
            try:
                caller = access.caller(context)
                caller.account.frame()
                frame, options = convert.request_from(request)
                prediction = await self._predictor.predict(
                    caller.metered(frame), options, deadline_s=_deadline(context)
                )
                began_s = time.perf_counter()
                answer = convert.prediction_to(prediction)
                self._encoded(prediction, began_s)
            except asyncio.CancelledError:
                self._note("Estimate", status.CLIENT_GONE, started, trace)
                raise
            except Exception as error:
                report = metadata.report(error)
                self._note("Estimate", report.status.code, started, trace)
                await metadata.abort(context, report, request_id)
            timing = prediction.timing.header(time.perf_counter() - started)
            context.set_trailing_metadata(
                ((REQUEST_ID, request_id), (SERVER_TIMING, timing), *metadata.trace_response())
            )
            self._note("Estimate", status.OK, started, trace)
            return answer

    async def EstimateStream(  # noqa: N802 - named by the contract
        self,
        request_iterator: AsyncIterator[pb.EstimateStreamRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[pb.EstimateStreamResponse]:
        """Many images, one answer each, in order; the frames of one video after a config, see `stream.serve`."""
        request_id = metadata.begin(context)
        with self._call(), tracing.ending(self._traced("EstimateStream", context)), ExitStack() as held:
            first = await self._first(request_iterator, context, request_id)
            config = first.config if first is not None and first.WhichOneof("message") == "config" else None
            try:
                visit = held.enter_context(
                    access.visit(context, patient=config is None or config.mode == pb.STREAM_MODE_FILE)
                )
            except ServiceError as error:
                await metadata.abort(context, metadata.report(error), request_id)
            if config is not None:
                answers = stream.serve(self._hub, config, request_iterator, context, request_id, visit)
            else:
                answers = self._answers(_all(first, request_iterator), context, request_id, visit)
            async with aclosing(answers):
                async for answer in answers:
                    yield answer

    async def _first(
        self,
        requests: AsyncIterator[pb.EstimateStreamRequest],
        context: grpc.aio.ServicerContext,
        request_id: str,
    ) -> pb.EstimateStreamRequest | None:
        """The first message of a stream, which says what it is; None of one that is empty."""
        reader = asyncio.ensure_future(anext(requests, None))
        self._readers.add(reader)
        try:
            await asyncio.wait((reader,), timeout=self._message_s)
            if not reader.done():
                self._refused("message_time")
                await metadata.abort(context, metadata.report(late("first", self._message_s)), request_id)
            if reader.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            return reader.result()
        finally:
            self._readers.discard(reader)
            reader.cancel()

    async def _answers(
        self,
        requests: AsyncIterator[pb.EstimateStreamRequest],
        context: grpc.aio.ServicerContext,
        request_id: str,
        visit: Visit,
    ) -> AsyncIterator[pb.EstimateStreamResponse]:
        """Of a stream without a config.

        The reader runs ahead of the answers by at most `stream_frames`; then it stops reading, and gRPC's flow control
        stops the sender. When the service drains, what was read is answered and the stream ends with UNAVAILABLE.
        """
        # The reader takes a place before it reads and the writer gives it back after it wrote: what is being read,
        # computed or waiting to be written is never more than there are places.
        places = asyncio.Semaphore(self._stream_frames)
        answers: asyncio.Queue[_Answer | None] = asyncio.Queue()
        running: set[_Answer] = set()

        async def read() -> None:
            try:
                await places.acquire()
                async for message in _awake(requests, self._idle_s):
                    if message.WhichOneof("message") == "config":
                        raise InvalidRequest("a config is the first message of its stream", "config")
                    await visit.turn()
                    answer = asyncio.create_task(self._answer(message, visit))
                    running.add(answer)
                    answer.add_done_callback(running.discard)
                    answers.put_nowait(answer)
                    await places.acquire()
            finally:
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        self._readers.add(reader)
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
                places.release()
            await asyncio.wait((reader,))
            if reader.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            if (error := reader.exception()) is not None:
                await metadata.abort(context, metadata.report(error), request_id)
        finally:
            self._readers.discard(reader)
            for task in (reader, *running):
                task.cancel()

    async def _answer(self, message: pb.EstimateStreamRequest, visit: Visit) -> pb.EstimateStreamResponse:
        """The answer to one message of a stream; an error becomes an answer too."""
        started = time.perf_counter()
        call = tracing.current()
        trace = None if call is None else call.follow("frame", started)
        try:
            if message.WhichOneof("message") != "frame":
                raise InvalidRequest("a message of the stream must hold a frame", field="frame")
            frame, options = convert.request_from(message.frame)
            prediction = await self._predictor.predict(visit.metered(frame), options, wait_for_room=True)
            began_s = time.perf_counter()
            answer = pb.EstimateStreamResponse(sequence=message.sequence)
            convert.prediction_to(prediction, answer.prediction)
            self._encoded(prediction, began_s)
        except asyncio.CancelledError:
            self._note("EstimateStream", status.CLIENT_GONE, started, trace)
            raise
        except Exception as error:
            report = metadata.report(error)
            self._note("EstimateStream", report.status.code, started, trace)
            return pb.EstimateStreamResponse(sequence=message.sequence, error=convert.error_to(report))
        self._note("EstimateStream", status.OK, started, trace)
        return answer

    @contextmanager
    def _call(self) -> Iterator[None]:
        self._calls += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._quiet.set()

    def _traced(self, method: str, context: grpc.aio.ServicerContext) -> Trace | None:
        if self._watch.tracer is None:
            return None
        return self._watch.tracer.begin(
            f"{_SERVICE}/{method}",
            metadata.trace_context(context),
            {"rpc.system": "grpc", "rpc.service": _SERVICE, "rpc.method": method},
        )

    def _encoded(self, prediction: Prediction, began_s: float) -> None:
        encode_s = tracing.spent("encode", began_s)
        self._watch.metrics.stage(prediction.model, prediction.version, "encode").observe(encode_s)

    def _note(self, method: str, outcome: str, started: float, trace: Trace | None) -> None:
        self._watch.ended("grpc", method, outcome, started, method=method, **access.client())
        if trace is not None:
            trace.end(outcome)


async def _all(
    first: pb.EstimateStreamRequest | None, rest: AsyncIterator[pb.EstimateStreamRequest]
) -> AsyncIterator[pb.EstimateStreamRequest]:
    if first is not None:
        yield first
        async for message in rest:
            yield message


async def _awake(
    requests: AsyncIterator[pb.EstimateStreamRequest], idle_s: float
) -> AsyncIterator[pb.EstimateStreamRequest]:
    """The messages, as long as each comes in time. Raises DeadlineExceeded."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                message = await anext(requests, None)
        except TimeoutError:
            raise late("next", idle_s) from None
        if message is None:
            return
        yield message


def _deadline(context: grpc.aio.ServicerContext) -> float:
    """When the client's deadline passes, by `time.monotonic`; infinity where it has none."""
    remaining_s = context.time_remaining()
    return math.inf if remaining_s is None else time.monotonic() + remaining_s
