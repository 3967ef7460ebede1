"""The client for asyncio: one image per call, or a video over a stream that outlives its servers."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import grpc
import numpy as np

from service.client.answers import Answer, ClientError, Poses, error_from, poses_from
from service.client.book import Book
from service.client.pace import Pace
from service.client.requests import config_from, request_from
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.types import Box

WINDOW = 16
"""Images of a file that may wait for their answers; `send` waits for room."""
IN_FLIGHT = 8
"""Frames of a live stream that may be on their way."""
_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""With which a service says so."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    (
        "grpc.min_reconnect_backoff_ms",
        5000,
    ),  # that is how long connecting may take: TLS to a far server needs time
    ("grpc.max_reconnect_backoff_ms", 5000),
)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stream tries before it gives up."""

    silence_s: float = 20.0
    """A connection that leaves frames without an answer for so long is given up for another."""
    trouble_s: float = 60.0
    """A stream that no server answers for so long fails."""


class AsyncClient:
    """Talks to one service, which may be several servers.

    Args:
        targets: `host:port` of the servers; where one fails the next is asked.
        credentials: for TLS; None for none.
        metadata: goes with every call.
        key: an API key, or a token of an identity provider; or a function that gives the present one, since tokens
            expire. None where the service asks for none. Anybody on the way can read it unless there is TLS.
        jpeg_quality: of the arrays that are sent, 1 to 100; None sends their pixels as they are.
    """

    def __init__(
        self,
        *targets: str,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        key: str | Callable[[], str] | None = None,
        jpeg_quality: int | None = 92,
    ) -> None:
        if not targets:
            raise ValueError("a client needs a server")
        self._channels = [
            grpc.aio.insecure_channel(target, _OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, _OPTIONS)
            for target in targets
        ]
        self._stubs = [pose_pb2_grpc.PoseServiceStub(channel) for channel in self._channels]
        self._fixed, self._key, self._jpeg_quality = tuple(metadata), key, jpeg_quality

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._key is None:
            return self._fixed
        present = self._key() if callable(self._key) else self._key
        return (*self._fixed, ("authorization", f"Bearer {present}"))

    async def estimate(
        self,
        image: bytes | np.ndarray,
        *,
        boxes: Sequence[Box] = (),
        model: str = "",
        decoder: str = "",
        min_presence: float | None = None,
        timeout_s: float | None = None,
    ) -> Poses:
        """The poses in one image.

        Args:
            image: a file's bytes, or (H, W, 3) RGB uint8.
            boxes: one person each, x, y, width, height in pixels; none has one person found.
            model: `name` or `name@version`; empty for the service's default.
            decoder: empty for the model's own.
            min_presence: least probability that somebody is there, 0 to 1, of models that tell it; below, a person has
                no keypoints. None for the service's own; 0 takes everybody.
            timeout_s: the call's deadline, of every server that is asked.

        Raises:
            ClientError: the service refused it, or no server could be reached.
        """
        request = request_from(image, boxes, self._jpeg_quality, min_presence)
        request.model, request.decoder = model, decoder
        for left, stub in zip(reversed(range(len(self._stubs))), self._stubs, strict=True):
            try:
                return poses_from(await stub.Estimate(request, timeout=timeout_s, metadata=self._metadata()))
            except grpc.aio.AioRpcError as error:
                if not left or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise error_from(error) from error
        raise AssertionError("unreachable: the last server answers or fails")

    def stream(
        self,
        *,
        live: bool = True,
        session: str = "",
        resume_token: str = "",
        model: str = "",
        decoder: str = "",
        min_presence: float | None = None,
        smoothing: str = "",
        parameters: dict[str, float] | None = None,
        tracking: bool | None = None,
        mailbox: int = 0,
        max_age_ms: float = 0,
        pace: Pace | None = None,
        patience: Patience | None = None,
        token_every: int = 16,
    ) -> AsyncStream:
        """A video, as `async with`. What is left out is the service's to choose; see `StreamConfig` of the contract.

        Args:
            live: a camera, of which the newest frame is sent and looked at; else a file, of which every frame counts.
            session: what is remembered outlives the stream under this name.
            resume_token: of another stream, to go on there.
            model: as in `estimate`.
            decoder: as in `estimate`.
            min_presence: as in `estimate`, of every frame; calmed answers have a margin about it.
            smoothing: `none`, `ema`, `one_euro` or a plug-in's.
            parameters: of the smoothing.
            tracking: look for people where they must be by now.
            mailbox: of a live stream: how many frames may wait at the service.
            max_age_ms: of a live stream: when a frame is no longer worth an answer.
            pace: of a live stream: how often to send.
            patience: when to give up.
            token_every: frames between two resume tokens; of a file, so many images are kept.
        """
        config = config_from(
            live=live, session=session, resume_token=resume_token, model=model, decoder=decoder,
            smoothing=smoothing, parameters=parameters or {}, tracking=tracking, mailbox=mailbox,
            max_age_ms=max_age_ms,
        )  # fmt: skip
        calls = (
            stub.EstimateStream(metadata=self._metadata())
            for stub in itertools.cycle(self._stubs)  # a generator: a call begins when it is asked for
        )
        book = Book(config, token_every)
        stream = AsyncStream(calls, book, pace or Pace(), patience or Patience(), self._jpeg_quality)
        stream.min_presence = min_presence
        stream.renews = callable(self._key)
        return stream

    async def close(self) -> None:
        """Hang up."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def __aenter__(self) -> AsyncClient:
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        await self.close()


class AsyncStream:
    """One video: `send` its frames, and iterate over their answers; see `AsyncClient.stream`.

    Every frame that was sent is answered once, in order, whatever becomes of the connections. Of a file nothing is
    dropped: what a lost server had not answered is sent to the next one, which goes on from the last resume token.
    """

    def __init__(self, calls, book: Book, pace: Pace, patience: Patience, jpeg_quality: int | None) -> None:
        self._calls, self._book, self.pace, self._patience = calls, book, pace, patience
        self._jpeg_quality = jpeg_quality
        self.min_presence: float | None = None
        """Of the frames that are sent from now on; see `AsyncClient.estimate`."""
        self.renews = False
        """Whether the next connection may show another key than one that has expired."""
        self.connections = 0
        """How often the stream was opened."""
        self._room, self._work, self._answers = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._finished = self._done = False
        self._well = False
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def opened(self) -> pb.Opened | None:
        """How the service opened the stream, the last time; None before."""
        return self._book.opened

    @property
    def token(self) -> str:
        """The last resume token; empty before the first."""
        return self._book.token

    async def send(
        self, image: bytes | np.ndarray, *, timestamp_s: float | None = None, boxes: Sequence[Box] = ()
    ) -> int:
        """Take a frame; its sequence number. A file's waits for room, a live one takes the place of an unsent one.

        Args:
            image: as in `AsyncClient.estimate`.
            timestamp_s: when it was taken, on any clock that moves on; of all frames or none; a file's need it.
            boxes: as in `AsyncClient.estimate`.

        Raises:
            ClientError: the stream has failed.
        """
        if not self._book.live and timestamp_s is None:
            raise ValueError("frames of a file need timestamps")
        request = pb.EstimateStreamRequest(
            frame=request_from(image, boxes, self._jpeg_quality, self.min_presence)
        )
        if timestamp_s is not None:
            request.timestamp_s = timestamp_s
        while not self._book.live and self._book.pending >= WINDOW and not self._done:
            self._room.clear()
            await self._room.wait()
        if self._failure is not None:
            raise self._failure
        if self._finished or self._done:
            raise ValueError("the stream has ended")
        number = self._book.add(request)
        self._work.set()
        self._answers.set()
        return number

    def finish(self) -> None:
        """There are no more frames: the iteration ends after the last answer."""
        self._finished = True
        self._work.set()

    async def __aenter__(self) -> AsyncStream:
        """Connect."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up, whatever is unanswered."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[Answer]:
        """The answers, in the order of the frames."""
        return self

    async def __anext__(self) -> Answer:
        """The next answer. Raises ClientError where the stream failed, after every frame had its answer."""
        while (answer := self._book.next_answer()) is None:
            if self._failure is not None:
                raise self._failure
            if self._done:
                raise StopAsyncIteration
            self._answers.clear()
            await self._answers.wait()
        return answer

    async def _run(self) -> None:
        """Connect until everything is answered."""
        well_s, wait_s = time.monotonic(), 0.0
        try:
            while (trouble := await self._connect()) is not None:
                if self._book.live and trouble.code == "invalid_token" and self._book.token:
                    self._book.forget_token()
                    continue
                renewed = self.renews and self._well and trouble.status is grpc.StatusCode.UNAUTHENTICATED
                if not (renewed or _may_do_better_elsewhere(trouble)):
                    raise trouble
                if self._finished and not self._book.pending:
                    return
                if self._well:
                    well_s, wait_s = time.monotonic(), 0.0
                elif time.monotonic() - well_s > self._patience.trouble_s:
                    raise trouble
                await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                wait_s = min(max(2 * wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        except Exception as error:
            self._failure = error
        finally:
            self._book.lose()
            self._done = True
            self._wake()

    async def _connect(self) -> ClientError | None:
        """One connection to its end; what was wrong with it, None where it served its purpose."""
        call = next(self._calls)
        writer, self._well = None, False
        try:
            await call.write(self._book.config())
            first = await self._read(call, impatient=lambda: True)
            if first is None or first.WhichOneof("outcome") != "opened":
                raise _Broken("the service did not open the stream")
            self._book.begin(first.opened)
            self.connections += 1
            self._wake()
            writer = asyncio.create_task(self._write(call))
            while (message := await self._read(call, lambda: self._book.unanswered > 0)) is not None:
                self._well = True
                self._note(self._book.take(message))
            if self._finished and not self._book.pending:
                return None
            raise _Broken("the service ended the stream")
        except grpc.aio.AioRpcError as error:
            trouble = error_from(error)
            self._well |= writer is not None and trouble.code == "deadline_exceeded"  # was idle for long
            return trouble
        except (_Broken, asyncio.InvalidStateError) as error:
            return ClientError(str(error), "connection", None, grpc.StatusCode.UNAVAILABLE)
        finally:
            call.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    async def _read(self, call, impatient) -> pb.EstimateStreamResponse | None:
        """The next message, None at the end. Raises _Broken after `silence_s` without one that is due."""
        read = asyncio.ensure_future(call.read())
        try:
            while not (await asyncio.wait({read}, timeout=self._patience.silence_s))[0]:
                if impatient():
                    raise _Broken("the service is silent")
                self._well = True  # for whom nothing is owed, silence is no trouble
            message = await read
        finally:
            if not read.done():
                read.cancel()
                await asyncio.gather(read, return_exceptions=True)
        return None if message is grpc.aio.EOF else message

    async def _write(self, call) -> None:
        """Send what is in the book; ends with the connection, about which its reader knows more."""
        book = self._book
        try:
            while True:
                if not book.waiting or (book.live and book.unanswered >= IN_FLIGHT):
                    if self._finished and not book.waiting:
                        await call.done_writing()
                        return
                    self._work.clear()
                    await self._work.wait()
                    continue
                if book.live and (wait_s := self.pace.wait_s()) > 0:
                    await asyncio.sleep(wait_s)
                number, request = book.next_request()
                self.pace.sent(number)
                await call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass

    def _note(self, answer: Answer | None) -> None:
        """An answer has come."""
        if answer is not None and answer.poses is not None:
            self.pace.answered(answer.sequence, answer.waited_ms)
        elif answer is not None and (
            answer.dropped not in {None, "draining"}
            or (answer.error is not None and answer.error.code == "rate_limited")
        ):
            self.pace.dropped(answer.sequence)
        self._wake()

    def _wake(self) -> None:
        for event in (self._room, self._work, self._answers):
            event.set()


class _Broken(Exception):
    """A connection that is of no use any more."""


def _may_do_better_elsewhere(trouble: ClientError) -> bool:
    """Whether another server, or the same a little later, may. An internal error that no service has put its code to is
    one of the connection: gRPC reports a write to a server that has just died like that, or a stream that was reset."""
    broken = trouble.status is grpc.StatusCode.INTERNAL and trouble.code == "connection"
    return broken or trouble.status in _ELSEWHERE
