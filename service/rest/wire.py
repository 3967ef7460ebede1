"""uvicorn's HTTP/1.1, but an answer leaves in one piece.

uvicorn writes the head of an answer and its body one after the other, and uvloop sends each at once: two system calls,
two packets, two times that the client wakes up.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OnePieceProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=...)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_Gathering(transport, self.loop))


class _Gathering:
    """A transport that sends together what is written within one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held) if len(held) > 1 else held[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
