"""The client, in a process of its own: `python -m service.bench.load`.

One `Load` as JSON on each line of stdin, one `Outcome` back on stdout. At the edges of the time that counts, with the
load going on, it reads how much processor time the server's processes have used: so exactly the same seconds are
counted on both sides. What it spends itself is reported too, since it runs on the same machine.

In the closed loop (`rate` of 0) so many requests as `concurrency` says are always under way. In the open loop requests
begin at random moments (Poisson), whether or not earlier ones were answered, and the time that one waits for a
connection counts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import selectors
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import grpc
import uvloop

from service.pb.reppose.v1 import pose_pb2 as pb

Route = Literal["rest", "multipart", "unary", "stream", "live", "file"]
ROUTES: tuple[Route, ...] = ("rest", "multipart", "unary", "stream", "live", "file")
"""`stream` is gRPC's without a config; `live` and `file` are videos: with one, tracking and smoothing."""

FRAMES_OF_A_STREAM = 8
"""Most unanswered frames of one stream without a config; more concurrency makes more streams."""
VIDEO_HZ = 30.0
"""Rate that the timestamps of a video say."""
FIRST_ANSWER_S = 30.0
"""Longest time until a server that listens gives its first answer."""
ONE_TRY_S = 5.0
"""Of that time, how long one request may take."""
WARM_UP_SHARE = 0.15
"""This share of the time passes under load before the rest is counted."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_BOUNDARY = "reppose-bench"

Ask = Callable[[], Awaitable[None]]
"""Sends one request and waits for its answer; RuntimeError where that is not an answer with poses."""


@dataclass(frozen=True)
class Load:
    """What to ask for, and how hard."""

    route: Route
    port: int
    path: str
    """File of the picture."""
    media: str
    size: tuple[int, int]
    concurrency: int
    seconds: float
    pid: int
    """Of the server."""
    rate: float = 0.0
    """Requests per second of the open loop; 0 for the closed loop."""
    target: str = "/v1/pose"
    """Path of the REST service; other servers have another."""
    boxes: bool = True
    """Send the box of the whole picture."""


@dataclass
class Outcome:
    """What came of it, in the time that counts."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """Of each answer."""
    server_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    others_cpu_s: float = 0.0
    """Of everything else that ran on this machine."""
    failed: int = 0
    fault: str = ""
    """Of the first failure."""


def main() -> None:
    """Serve loads until stdin ends."""
    for line in sys.stdin:
        load = Load(**json.loads(line))
        # select() keeps time to the microsecond, as random arrivals need it; uvloop to the millisecond, but costs less
        factory = _precise_loop if load.rate else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as loop:
            print(json.dumps(asdict(loop.run(drive(load)))), flush=True)


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all its descendants have used."""
    used = 0.0
    with suppress(FileNotFoundError, ProcessLookupError):  # a child may end meanwhile
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) * _TICK_S  # utime, stime: see proc(5)
        for task in Path(f"/proc/{pid}/task").iterdir():
            used += sum(map(cpu_seconds, map(int, (task / "children").read_text().split())))
    return used


def machine_cpu_seconds() -> float:
    """Processor time that all processes of the machine have used."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) * _TICK_S  # see proc(5)


async def drive(load: Load, first_answer_s: float = FIRST_ANSWER_S) -> Outcome:
    """Ask as the load says, once the server answers or has not done so for `first_answer_s`."""
    async with AsyncExitStack() as stack:
        asks = await _open(load, stack)
        await _first_answer(asks[0], first_answer_s)
        return await (_open_loop if load.rate else _closed_loop)(load, asks)


async def _first_answer(ask: Ask, seconds: float) -> None:
    """Wait until the server answers at all: workers in processes of their own may load after it listens."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(RuntimeError, OSError, grpc.aio.AioRpcError):
            async with asyncio.timeout(ONE_TRY_S):
                return await ask()
        await asyncio.sleep(0.2)


class _Meter:
    """Counts what is answered between `begin` and `end`."""

    def __init__(self, load: Load) -> None:
        self.outcome = Outcome()
        self._load = load
        self._counts = False

    async def watch(self) -> None:
        """Let the warm-up pass, then count until the time is over."""
        await asyncio.sleep(self._load.seconds * WARM_UP_SHARE)
        outcome = self.outcome
        began, client, server = time.perf_counter(), time.process_time(), cpu_seconds(self._load.pid)
        everyone = machine_cpu_seconds()
        self._counts = True
        await asyncio.sleep(self._load.seconds * (1 - WARM_UP_SHARE))
        self._counts = False
        outcome.server_cpu_s = cpu_seconds(self._load.pid) - server
        outcome.client_cpu_s = time.process_time() - client
        outcome.seconds = time.perf_counter() - began
        both = outcome.server_cpu_s + outcome.client_cpu_s
        outcome.others_cpu_s = max(0.0, machine_cpu_seconds() - everyone - both)

    async def ask(self, ask: Ask, since_s: float) -> None:
        """One request, measured from `since_s`. A failure is noted, during the warm-up as well."""
        try:
            await ask()
        except (RuntimeError, OSError, grpc.aio.AioRpcError) as error:
            self.outcome.failed += 1
            self.outcome.fault = self.outcome.fault or repr(error)[:300]
            await asyncio.sleep(0.01)  # a server that refuses everything is not asked a million times
            return
        if self._counts:
            self.outcome.latencies_ms.append((time.perf_counter() - since_s) * 1e3)


async def _closed_loop(load: Load, asks: list[Ask]) -> Outcome:
    meter = _Meter(load)
    watch = asyncio.create_task(meter.watch())

    async def client(ask: Ask) -> None:
        while not watch.done():
            await meter.ask(ask, time.perf_counter())

    await asyncio.gather(watch, *map(client, asks))
    return meter.outcome


async def _open_loop(load: Load, asks: list[Ask]) -> Outcome:
    meter = _Meter(load)
    watch = asyncio.create_task(meter.watch())
    arrivals: asyncio.Queue[float | None] = asyncio.Queue()

    async def client(ask: Ask) -> None:
        while (since_s := await arrivals.get()) is not None:
            await meter.ask(ask, since_s)

    clients = [asyncio.create_task(client(ask)) for ask in asks]
    moments = random.Random(1)
    due = time.perf_counter()
    while not watch.done():
        due += moments.expovariate(load.rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        arrivals.put_nowait(due)
    for _ in clients:
        arrivals.put_nowait(None)
    await asyncio.gather(watch, *clients)
    return meter.outcome


async def _open(load: Load, stack: AsyncExitStack) -> list[Ask]:
    """One function for each request that may be under way."""
    data = Path(load.path).read_bytes()
    if load.route in ("rest", "multipart"):
        request = _http_request(load, data)
        connections = [_Http(load.port) for _ in range(load.concurrency)]
        for connection in connections:
            stack.callback(connection.close)
        return [lambda each=connection: each.ask(request) for connection in connections]
    options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    channel = await stack.enter_async_context(
        grpc.aio.insecure_channel(f"127.0.0.1:{load.port}", options=options)
    )
    frame = _grpc_request(load, data)
    if load.route == "unary":
        estimate = channel.unary_unary(
            "/reppose.v1.PoseService/Estimate",
            request_serializer=None,
            response_deserializer=pb.EstimateResponse.FromString,
        )
        message = frame.SerializeToString()

        async def ask() -> None:
            if not (await estimate(message)).poses:
                raise RuntimeError("an answer without a pose")

        return [ask] * load.concurrency
    if load.route in ("live", "file"):
        videos = [_Video(channel, load.route, data) for _ in range(load.concurrency)]
        for video in videos:
            stack.push_async_callback(video.close)
        return [video.ask_next for video in videos]
    streams = [_Stream(channel) for _ in range(-(-load.concurrency // FRAMES_OF_A_STREAM))]
    for stream in streams:
        stack.push_async_callback(stream.close)
    message = pb.EstimateStreamRequest(frame=frame).SerializeToString()
    every = itertools.islice(itertools.cycle(streams), load.concurrency)
    return [lambda each=stream: each.ask(message) for stream in every]


def _http_request(load: Load, data: bytes) -> bytes:
    height, width = load.size
    body, media = data, load.media
    if load.route == "multipart":
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
        body = f"{head}Content-Type: {media}\r\n\r\n".encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        media = f"multipart/form-data; boundary={_BOUNDARY}"
    query = f"?boxes=[[0,0,{width},{height}]]" if load.boxes else ""
    head = (
        f"POST {load.target}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _grpc_request(load: Load, data: bytes) -> pb.EstimateRequest:
    height, width = load.size
    frame = pb.EstimateRequest()
    if load.media.startswith("image/"):
        frame.image = data
    else:
        frame.pixels.rgb, frame.pixels.width, frame.pixels.height = data, width, height
    if load.boxes:
        frame.boxes.add(width=width, height=height)
    return frame


class _Http(asyncio.Protocol):
    """A kept-alive connection that knows just as much of HTTP/1.1 as the answers of a service need."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self._answered: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def ask(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._received.clear()
            self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._answered = loop.create_future()
        self._transport.write(request)
        try:
            await self._answered
        except asyncio.CancelledError:
            self._transport.abort()  # a late answer must not be taken for that to the next request
            raise

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(received, 0, head)
        if length is None:
            self._end(RuntimeError(f"an answer without a length: {bytes(received[:head])!r}"))
        elif len(received) >= head + 4 + int(length[1]):
            good = received.startswith(b"HTTP/1.1 200")
            line, _, _ = received.partition(b"\r\n")
            said = bytes(line + b": " + received[head + 4 :]).decode(errors="replace")
            self._end(None if good else RuntimeError(said))
            received.clear()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


class _Stream:
    """One call of EstimateStream. Answers come in the order of the frames."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.stream_stream(
            "/reppose.v1.PoseService/EstimateStream",
            request_serializer=None,
            response_deserializer=pb.EstimateStreamResponse.FromString,
        )()
        self._writing = asyncio.Lock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._reader = asyncio.create_task(self._read())

    async def ask(self, message: bytes) -> None:
        answered = asyncio.get_running_loop().create_future()
        async with self._writing:
            self._waiting.append(answered)
            await self._call.write(message)
        await answered

    async def close(self) -> None:
        await self._call.done_writing()
        await self._reader

    async def _read(self) -> None:
        error: Exception = RuntimeError("the stream ended")
        try:
            async for answer in self._call:
                kind = answer.WhichOneof("outcome")
                if kind == "opened":
                    continue
                waiting = self._waiting.popleft()
                if kind in ("prediction", "tracked"):
                    waiting.set_result(None)
                else:
                    waiting.set_exception(RuntimeError(str(answer)))
        except grpc.aio.AioRpcError as fault:
            error = fault
        for waiting in self._waiting:
            waiting.set_exception(error)


class _Video(_Stream):
    """One video: a picture again and again, one frame under way, nobody told where the person is."""

    def __init__(self, channel: grpc.aio.Channel, mode: Literal["live", "file"], data: bytes) -> None:
        super().__init__(channel)
        modes = {"live": pb.STREAM_MODE_LIVE, "file": pb.STREAM_MODE_FILE}
        self._config = pb.EstimateStreamRequest(config=pb.StreamConfig(mode=modes[mode]))
        self._frame = pb.EstimateStreamRequest(frame=pb.EstimateRequest(image=data))
        self._opened = False

    async def ask_next(self) -> None:
        """The next frame."""
        if not self._opened:
            self._opened = True
            await self._call.write(self._config.SerializeToString())
        self._frame.sequence += 1
        self._frame.timestamp_s = self._frame.sequence / VIDEO_HZ
        await self.ask(self._frame.SerializeToString())


if __name__ == "__main__":
    main()
