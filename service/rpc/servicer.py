"""`reppose.v1.PoseService`: messages to frames, predictions to messages, errors to statuses."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc

from service import logs, status
from service.errors import InvalidRequest
from service.logs import facts, log
from service.metrics import Metrics
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.predictor import Predictor
from service.rpc import convert

REQUEST_ID = "x-request-id"
SERVER_TIMING = "server-timing"
CODE = "reppose-code"
FIELD = "reppose-field"

_Answer = asyncio.Task[pb.EstimateStreamResponse]


class PoseServicer(pose_pb2_grpc.PoseServiceServicer):
    """Both methods over one predictor.

    Args:
        predictor: answers frames.
        metrics: counts them.
        stream_frames: most unanswered frames of one stream.
        log_requests: write a line for every request and every stream.
    """

    def __init__(
        self, predictor: Predictor, metrics: Metrics, *, stream_frames: int, log_requests: bool = True
    ) -> None:
        self._predictor = predictor
        self._metrics = metrics
        self._stream_frames = stream_frames
        self._log_requests = log_requests
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
        request_id = _begin(context)
        started = time.perf_counter()
        with self._call():
            try:
                prediction = await self._predictor.predict(
                    *convert.request_from(request), deadline_s=_deadline(context)
                )
                answer = convert.prediction_to(prediction)
            except asyncio.CancelledError:
                self._note("Estimate", status.CLIENT_GONE, started)
                raise
            except Exception as error:
                report = _report(error)
                self._note("Estimate", report.status.code, started)
                details = [(REQUEST_ID, request_id), (CODE, report.status.code)]
                if report.field:
                    details.append((FIELD, report.field))
                await context.abort(report.status.grpc, report.message, tuple(details))
            timing = prediction.timing.header(time.perf_counter() - started)
            context.set_trailing_metadata(((REQUEST_ID, request_id), (SERVER_TIMING, timing)))
            self._note("Estimate", status.OK, started)
            return answer

    async def EstimateStream(  # noqa: N802 - named by the contract
        self,
        request_iterator: AsyncIterator[pb.EstimateStreamRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[pb.EstimateStreamResponse]:
        """Many images, one answer each, in order.

        The reader runs ahead of the answers by at most `stream_frames`; then it stops reading, and gRPC's flow control
        stops the sender. When the service drains, what was read is answered and the stream ends with UNAVAILABLE.
        """
        _begin(context)
        # The reader takes a place before it reads and the writer gives it back after it wrote: what is being read,
        # computed or waiting to be written is never more than there are places.
        places = asyncio.Semaphore(self._stream_frames)
        answers: asyncio.Queue[_Answer | None] = asyncio.Queue()
        running: set[_Answer] = set()

        async def read() -> None:
            try:
                await places.acquire()
                async for message in request_iterator:
                    answer = asyncio.create_task(self._answer(message))
                    running.add(answer)
                    answer.add_done_callback(running.discard)
                    answers.put_nowait(answer)
                    await places.acquire()
            finally:
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        self._readers.add(reader)
        with self._call():
            try:
                while (answer := await answers.get()) is not None:
                    yield await answer
                    places.release()
                await asyncio.wait((reader,))
                if reader.cancelled():
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
                reader.result()
            finally:
                self._readers.discard(reader)
                for task in (reader, *running):
                    task.cancel()

    async def _answer(self, message: pb.EstimateStreamRequest) -> pb.EstimateStreamResponse:
        """The answer to one message of a stream; an error becomes an answer too."""
        started = time.perf_counter()
        try:
            if message.WhichOneof("message") != "frame":
                raise InvalidRequest("a message of the stream must hold a frame", field="frame")
            frame, options = convert.request_from(message.frame)
            prediction = await self._predictor.predict(frame, options, wait_for_room=True)
            answer = pb.EstimateStreamResponse(sequence=message.sequence)
            convert.prediction_to(prediction, answer.prediction)
        except asyncio.CancelledError:
            self._note("EstimateStream", status.CLIENT_GONE, started)
            raise
        except Exception as error:
            report = _report(error)
            self._note("EstimateStream", report.status.code, started)
            return pb.EstimateStreamResponse(sequence=message.sequence, error=convert.error_to(report))
        self._note("EstimateStream", status.OK, started)
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

    def _note(self, method: str, outcome: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._metrics.answered("grpc", method, outcome, seconds)
        if self._log_requests:
            log.info(
                "request",
                extra=facts(transport="grpc", method=method, outcome=outcome, ms=round(seconds * 1e3, 2)),
            )


def _begin(context: grpc.aio.ServicerContext) -> str:
    sent = next((value for name, value in context.invocation_metadata() or () if name == REQUEST_ID), None)
    return logs.begin_request(sent)


def _deadline(context: grpc.aio.ServicerContext) -> float:
    """When the client's deadline passes, by `time.monotonic`; infinity where it has none."""
    remaining_s = context.time_remaining()
    return math.inf if remaining_s is None else time.monotonic() + remaining_s


def _report(error: Exception) -> status.Report:
    report = status.report(error)
    if report.status is status.INTERNAL:
        log.error("failed to answer", exc_info=error)
    return report
