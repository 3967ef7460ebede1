"""What one HTTP connection may take: the size and time of a request's head, the time of its body, and a place among
the open connections. Whoever takes more is told which limit it was, where that can still be told, and cut off.

A body is given some seconds, and more for every byte that has come, so that a slow line is served and a trickle is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple

from service.rest import schemas, shielding
from service.rest.wire import OnePieceProtocol

_LINGER_S = 2.0
"""How long to go on reading, and forgetting, what somebody sends who was refused: to hang up at once would destroy the
answer on its way."""
_SIP_S = 0.01
"""Pause after each piece of it, so that who sends as fast as can be takes no time from others."""
_FLOOD = 1.25
"""Beyond so many times the most connections, there is no answer any more."""
_HEADER_FRAME_BYTES = 4
"""A colon, a space and the end of the line."""

_logger = logging.getLogger("uvicorn.error.connections")
_logger.setLevel(logging.ERROR)  # who is refused is counted; a line for each would be one more way to hurt


class _Refusal(NamedTuple):
    reason: str
    """As the metrics say."""
    status: HTTPStatus
    message: str


class _Refused(Exception):
    """Leaves the parser."""


@dataclass
class Connections:
    """The limits of all connections, what their bodies hold, and who has no request at present."""

    connections: int
    header_bytes: int
    headers: int
    header_s: float
    body_s: float
    body_bytes_per_s: float
    """Each so many bytes of a body grant it one second more."""
    bodies_bytes: int
    """Of all requests that are not answered yet."""
    refused: Callable[[str], None] = lambda reason: None
    """Told the reason of every refusal."""
    resting: dict[GuardedProtocol, None] = field(default_factory=dict)
    """Connections without a request; the first has been so for the longest."""
    held_bytes: int = 0
    """Of `bodies_bytes`, those that are taken."""

    def protocol(self, **options: Any) -> GuardedProtocol:
        """One connection, for `uvicorn.Config(http=...)`."""
        return GuardedProtocol(self, **options)


class GuardedProtocol(OnePieceProtocol):
    """One connection within the limits of all."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self.logger = _logger
        self._all = connections
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = self._head_headers = 0  # of what the parser has told
        self._unparsed_bytes = 0  # of a head that is not complete, as they came
        self._in_body = self._over = False
        self._body_bytes = self._held_bytes = 0
        self._body_began_s = 0.0
        self._refusal: _Refusal | None = None

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A place for it, or none."""
        super().connection_made(transport)
        bounds = self._all
        if len(self.connections) > bounds.connections:
            if len(self.connections) > _FLOOD * bounds.connections:  # not even words are left
                bounds.refused("connections")
                self._leave()
                self.transport.abort()
                return
            if not bounds.resting:
                message = f"this service has {bounds.connections} connections, the most that it takes"
                self._refuse(_Refusal("connections", HTTPStatus.SERVICE_UNAVAILABLE, message))
                return
            bounds.refused("connections")
            next(iter(bounds.resting)).make_room()
        bounds.resting[self] = None
        self._wait(bounds.header_s, self._head_is_late)

    def make_room(self) -> None:
        """Hang up: somebody else needs the place, and nobody waits for an answer here."""
        self._all.resting.pop(self, None)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """The connection is the WebSocket's from now on."""
        self._leave()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and look what is late from now on."""
        if self._over:
            self._sip()
            return
        headed = self in self._all.resting  # what comes belongs to a head, not to a body that nobody wanted
        super().data_received(data)
        if self._over:
            return
        if self._in_body and self.cycle.response_complete:
            self._sip()
        elif self._in_body:
            if self._timer is None:
                self._body_began_s = self.loop.time()
                self._wait(self._all.body_s, self._body_is_late)
        elif headed and self in self._all.resting:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self._all.header_bytes:
                self._refuse(self._long_head())
            elif self._timer is None:
                self._wait(self._all.header_s, self._head_is_late)

    # Parser

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_bytes = self._head_headers = self._unparsed_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the path."""
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        super().on_header(name, value)
        self._head_headers += 1
        if self._head_headers > self._all.headers:
            message = f"the request has more than {self._all.headers} headers"
            self._stop_parsing(_Refusal("headers", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message))
        self._count_head(len(name) + len(value) + _HEADER_FRAME_BYTES)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._all.resting.pop(self, None)
        self._stop_waiting()
        self._in_body, self._body_bytes, self._unparsed_bytes = True, 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if not self.cycle.response_complete:  # else it is not kept
            bounds = self._all
            bounds.held_bytes += len(body)
            self._held_bytes += len(body)
            if bounds.held_bytes > bounds.bodies_bytes:
                message = (
                    f"the bodies of all requests hold {bounds.bodies_bytes} bytes, the most that they may"
                )
                self._stop_parsing(_Refusal("bodies_bytes", HTTPStatus.SERVICE_UNAVAILABLE, message))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._in_body = False
        self._stop_waiting()
        super().on_message_complete()
        self._rest()

    def on_response_complete(self) -> None:
        """It was answered."""
        self._give_back()
        super().on_response_complete()
        if self._over:
            return
        if self._in_body and self.cycle.response_complete:  # nobody wants the rest of it
            self._wait(_LINGER_S, self.transport.close)
        self._rest()

    def send_400_response(self, msg: str) -> None:
        """What the parser tripped over."""
        if self._refusal is None:
            self._refusal = _Refusal("malformed", HTTPStatus.BAD_REQUEST, "this is no request of HTTP/1.1")
        self._refuse(self._refusal)

    # Limits

    def _rest(self) -> None:
        if not self._over and not self._in_body and self.cycle is not None and self.cycle.response_complete:
            self._all.resting[self] = None

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._all.header_bytes:
            self._stop_parsing(self._long_head())

    def _long_head(self) -> _Refusal:
        message = f"the head of the request is longer than {self._all.header_bytes} bytes"
        return _Refusal("header_bytes", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def _head_is_late(self) -> None:
        message = f"the head of a request must come within {self._all.header_s:g} s"
        self._refuse(_Refusal("header_time", HTTPStatus.REQUEST_TIMEOUT, message))

    def _body_is_late(self) -> None:
        bounds = self._all
        if self.flow.read_paused:  # it is not the client who makes it wait
            self._body_began_s = self.loop.time()
        left_s = (
            self._body_began_s + bounds.body_s + self._body_bytes / bounds.body_bytes_per_s - self.loop.time()
        )
        if left_s > 0:
            self._wait(left_s, self._body_is_late)
            return
        message = (
            f"the body came too slowly: it has {bounds.body_s:g} s, "
            f"and one more for every {bounds.body_bytes_per_s:g} bytes that have come"
        )
        self._refuse(_Refusal("body_time", HTTPStatus.REQUEST_TIMEOUT, message))

    def _stop_parsing(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        raise _Refused

    def _refuse(self, refusal: _Refusal) -> None:
        """Say why where no other answer is on its way, and hang up."""
        self._leave()
        self._all.refused(refusal.reason)
        cycle = self.cycle
        begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if begun:
            self.transport.abort()
            return
        content = schemas.error_json(refusal.status.name.lower(), refusal.message)
        head = [
            f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}\r\n".encode(),
            b"content-type: application/json\r\n",
            f"content-length: {len(content)}\r\n".encode(),
            *(name + b": " + value + b"\r\n" for name, value in shielding.headers("")),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, content]))
        self._wait(_LINGER_S, self.transport.close)

    def _sip(self) -> None:
        """Forget what came, and look after a while for more."""
        self.transport.pause_reading()
        self.loop.call_later(_SIP_S, self._look_for_more)

    def _look_for_more(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _leave(self) -> None:
        """None of the limits holds any more."""
        self._over = True
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._all.resting.pop(self, None)
        self._give_back()

    def _give_back(self) -> None:
        self._all.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
