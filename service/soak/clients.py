"""A process of clients: `python -m service.soak.clients`, one `Crowd` as JSON in the arguments.

It prints `"open"` when all its streams are, and answers each line of stdin: `report` with the tallies so far, `end`
with those of streams that were ended in order and have heard of every frame. Each line is JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import uvloop
from websockets.asyncio.client import connect

from service.pb.reppose.v1 import pose_pb2 as pb
from service.soak import frames
from service.soak.tally import ANSWERED, DROPPED, FAILED, Tally

FILE_HZ = 30.0
"""Rate that the timestamps of a file say."""
FILE_WINDOW = 64
"""Frames of a file that may have no outcome yet: several times what the service takes, so that it holds the sender up,
but not all that the network would store, which the service would still compute when the sender is gone."""
_POLL_S = 0.01
END_S = 60.0
"""How long the answers to what was sent may take once a stream has ended."""


@dataclass(frozen=True)
class Member:
    """One stream."""

    name: str
    kind: str
    """A key of `KINDS`."""
    folder: str
    """Of its clip."""


@dataclass(frozen=True)
class Crowd:
    """The streams of one process."""

    http_port: int
    grpc_port: int
    rate_hz: float
    """At which live streams send."""
    members: list[Member]


class _Client(ABC):
    """One stream of one kind.

    Args:
        crowd: where the service is, and how fast to send.
        member: what it is.
        pictures: the clip, which is shown again and again.
    """

    def __init__(self, crowd: Crowd, member: Member, pictures: list[bytes]) -> None:
        self.tally = Tally(member.name, member.kind)
        self.opened, self.ending = asyncio.Event(), asyncio.Event()
        self._crowd, self._name, self._pictures = crowd, member.name, pictures
        self._live = member.kind.endswith("live")

    async def run(self) -> None:
        """Live until `ending` is set, and then until every frame has its outcome."""
        try:
            await self._stream()
            if self.tally.heard != self.tally.sent:
                self.tally.fault = self.tally.fault or "the stream ended without all answers"
        except Exception as error:  # whatever ends a stream is a finding
            self.tally.fault = self.tally.fault or repr(error)[:300]
        self.opened.set()

    @abstractmethod
    async def _stream(self) -> None:
        """Send all frames of `_frames`, and hear of each."""

    async def _frames(self) -> AsyncIterator[tuple[int, float, bytes]]:
        """Sequence, time and picture of what to send: at the crowd's rate in live mode, else as fast as can be."""
        due_s = time.monotonic()
        for picture in itertools.cycle(self._pictures):
            if self._live:
                due_s = max(due_s + 1 / self._crowd.rate_hz, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            while (
                not self.ending.is_set()
                and self.tally.sent - self.tally.heard >= FILE_WINDOW
                and not self._live
            ):
                await asyncio.sleep(_POLL_S)
            if self.ending.is_set():
                return
            number = self.tally.sent
            self.tally.sent += 1
            yield number, time.monotonic() if self._live else number / FILE_HZ, picture

    async def _both(self, send: Awaitable[None], read: Awaitable[None]) -> None:
        """Send and read, until the reader has come to the end."""
        sender, reader = asyncio.ensure_future(send), asyncio.ensure_future(read)
        try:
            done, _ = await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
            if sender in done:
                sender.result()
            async with asyncio.timeout(END_S if sender in done else None):
                await reader
        finally:
            for task in (sender, reader):
                task.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)


class _Grpc(_Client):
    async def _stream(self) -> None:
        mode = pb.STREAM_MODE_LIVE if self._live else pb.STREAM_MODE_FILE
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{self._crowd.grpc_port}", (("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            call = channel.stream_stream(
                "/reppose.v1.PoseService/EstimateStream",
                request_serializer=pb.EstimateStreamRequest.SerializeToString,
                response_deserializer=pb.EstimateStreamResponse.FromString,
            )()
            config = pb.StreamConfig(session=self._name, mode=mode)
            await call.write(pb.EstimateStreamRequest(config=config))

            async def send() -> None:
                async for number, time_s, picture in self._frames():
                    image = pb.EstimateRequest(image=picture)
                    message = pb.EstimateStreamRequest(sequence=number, frame=image, timestamp_s=time_s)
                    await call.write(message)
                await call.done_writing()

            async def read() -> None:
                async for answer in call:
                    self._take(answer)

            await self._both(send(), read())

    def _take(self, answer: pb.EstimateStreamResponse) -> None:
        now_s = time.monotonic()
        match answer.WhichOneof("outcome"):
            case "opened":
                self.opened.set()
            case "tracked":
                self.tally.note(ANSWERED, answer.sequence, now_s, answer.tracked.timing.age_ms)
            case "dropped":
                self.tally.note(DROPPED, answer.sequence, now_s)
            case _:
                self.tally.note(FAILED, answer.sequence, now_s, fault=str(answer))


class _WebSocket(_Client):
    async def _stream(self) -> None:
        url = f"ws://127.0.0.1:{self._crowd.http_port}/v1/stream"
        async with connect(url, compression=None, proxy=None, max_size=None, ping_interval=None) as socket:
            config = {"session": self._name, "mode": "live" if self._live else "file"}
            await socket.send(json.dumps(config))

            async def send() -> None:
                async for number, time_s, picture in self._frames():
                    await socket.send(struct.pack("<Qd", number, time_s) + picture)
                await socket.send(json.dumps({"end": True}))

            async def read() -> None:
                async for message in socket:
                    self._take(json.loads(message))

            await self._both(send(), read())

    def _take(self, answer: dict) -> None:
        now_s = time.monotonic()
        if "opened" in answer:
            self.opened.set()
        elif "tracked" in answer:
            self.tally.note(ANSWERED, answer["sequence"], now_s, answer["tracked"]["timing"]["age_ms"])
        elif "dropped" in answer:
            self.tally.note(DROPPED, answer["sequence"], now_s)
        else:
            self.tally.note(FAILED, answer.get("sequence", -1), now_s, fault=json.dumps(answer))


class _Http(_Client):
    async def _stream(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._crowd.http_port)
        try:
            async for number, time_s, picture in self._frames():
                query = f"sequence={number}&timestamp_s={time_s}"
                head = f"POST /v1/sessions/{self._name}/frames?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                head += f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                writer.write(head.encode() + picture)
                self._take(number, *await self._answer(reader))
                self.opened.set()
        finally:
            writer.close()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict]:
        """Status and content of an answer."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.lower().split("\r\n")
        (length,) = (int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))

    def _take(self, number: int, status: int, answer: dict) -> None:
        now_s = time.monotonic()
        if status == 200:
            self.tally.note(ANSWERED, answer["sequence"], now_s, answer["timing"]["age_ms"])
        elif status in (429, 504):  # the queue is full, or too long for the deadline
            self.tally.note(DROPPED, number, now_s)
        else:
            self.tally.note(FAILED, number, now_s, fault=json.dumps(answer))


KINDS: dict[str, Callable[[Crowd, Member, list[bytes]], _Client]] = {
    "grpc live": _Grpc,
    "grpc file": _Grpc,
    "websocket live": _WebSocket,
    "websocket file": _WebSocket,
    "http": _Http,
}
"""All kinds of streams."""


async def _main(crowd: Crowd) -> None:
    shown = {folder: frames.read(Path(folder)) for folder in {each.folder for each in crowd.members}}
    clients = [KINDS[each.kind](crowd, each, shown[each.folder]) for each in crowd.members]
    running = [asyncio.create_task(client.run()) for client in clients]
    for client in clients:
        await client.opened.wait()
    _say("open")
    for line in _commands():
        command = (await line).strip()
        if command == "end":
            for client in clients:
                client.ending.set()
            await asyncio.gather(*running)
        elif command != "report":
            return  # stdin has ended: so has whoever asked
        _say([asdict(client.tally) for client in clients])


def _commands() -> Iterator[Awaitable[str]]:
    while True:
        yield asyncio.to_thread(sys.stdin.readline)


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    """Run the crowd in the arguments."""
    given = json.loads(sys.argv[1])
    crowd = Crowd(**given | {"members": [Member(**each) for each in given["members"]]})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(_main(crowd))


if __name__ == "__main__":
    main()
