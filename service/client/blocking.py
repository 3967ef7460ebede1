"""The client without asyncio: the same streams, worked by an event loop in a thread that all of them share.

Threads may use one stream together, such as one that sends and one that reads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np

from service.client.aio import AsyncClient, AsyncStream
from service.client.answers import Answer, Poses
from service.client.pace import Pace
from service.pb.reppose.v1 import pose_pb2 as pb
from service.types import Box

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    # One for all: gRPC wakes every loop of a process for the events of any.
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reppose-client", daemon=True).start()
    return loop


def _wait(work: Coroutine[Any, Any, T]) -> T:
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Client:
    """As `AsyncClient`, with the same arguments; its methods wait."""

    def __init__(self, *targets: str, **options: Any) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(*targets, **options)

        self._client = _wait(make())

    def estimate(
        self,
        image: bytes | np.ndarray,
        *,
        boxes: Sequence[Box] = (),
        model: str = "",
        decoder: str = "",
        min_presence: float | None = None,
        timeout_s: float | None = None,
    ) -> Poses:
        """The poses in one image; as `AsyncClient.estimate`."""
        return _wait(
            self._client.estimate(
                image,
                boxes=boxes,
                model=model,
                decoder=decoder,
                min_presence=min_presence,
                timeout_s=timeout_s,
            )
        )

    def stream(self, **options: Any) -> Stream:
        """A video, as `with`; options as of `AsyncClient.stream`."""

        async def make() -> AsyncStream:
            return self._client.stream(**options)

        return Stream(_wait(make()))

    def close(self) -> None:
        """Hang up."""
        _wait(self._client.close())

    def __enter__(self) -> Client:
        """The client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()


class Stream:
    """As `AsyncStream`; its methods wait."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    @property
    def pace(self) -> Pace:
        """How often a live stream sends."""
        return self._stream.pace

    @property
    def connections(self) -> int:
        """How often the stream was opened."""
        return self._stream.connections

    @property
    def opened(self) -> pb.Opened | None:
        """How the service opened the stream, the last time; None before."""
        return self._stream.opened

    @property
    def token(self) -> str:
        """The last resume token; empty before the first."""
        return self._stream.token

    def send(
        self, image: bytes | np.ndarray, *, timestamp_s: float | None = None, boxes: Sequence[Box] = ()
    ) -> int:
        """Take a frame; as `AsyncStream.send`."""
        return _wait(self._stream.send(image, timestamp_s=timestamp_s, boxes=boxes))

    def finish(self) -> None:
        """There are no more frames: the iteration ends after the last answer."""
        _loop().call_soon_threadsafe(self._stream.finish)

    def __enter__(self) -> Stream:
        """Connect."""
        _wait(self._stream.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, whatever is unanswered."""
        _wait(self._stream.__aexit__(None, None, None))

    def __iter__(self) -> Iterator[Answer]:
        """The answers, in the order of the frames. Raises ClientError where the stream fails."""
        while (answer := _wait(self._next())) is not None:
            yield answer

    async def _next(self) -> Answer | None:
        return await anext(self._stream, None)
