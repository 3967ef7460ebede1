"""The HTTP listener: its socket, uvicorn on it, and TLS where there are certificates."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from service.errors import StartupError
from service.rest.connections import Connections
from service.rest.keepalive import PatientWebSocket

_BACKLOG = 2048
_UNREAD_MS = 30_000
"""A peer that has not acknowledged what was sent for so long is gone, or reads nothing; its connection ends."""
_GOODBYE_S = 5.0
"""How long a peer may take to confirm the end of TLS."""


class HttpListener:
    """An application on one port.

    Args:
        host, port: where to listen; port 0 takes any free one.
        setting: that names the port.

    Raises:
        StartupError: the port is taken, or the address is not ours.
    """

    def __init__(self, host: str, port: int, setting: str = "REPPOSE_HTTP__PORT") -> None:
        self._socket = bind(host, port, setting)
        self.port: int = self._socket.getsockname()[1]
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    def start(
        self,
        app: ASGIApp,
        connections: Connections,
        *,
        keep_alive_s: int,
        message_bytes: int,
        ping_s: float,
        context: ssl.SSLContext | None,
    ) -> None:
        """Begin to accept.

        Args:
            app: what answers.
            connections: limits of each, and of all.
            keep_alive_s: how long a connection without a request stays open.
            message_bytes: longest message over a WebSocket.
            ping_s: how often a WebSocket is asked whether somebody is there, and how long it may be silent then.
            context: for TLS; None for none.
        """
        config = uvicorn.Config(
            app,
            http=connections.protocol,
            ws=PatientWebSocket,
            ws_max_size=message_bytes,
            ws_per_message_deflate=False,  # images are compressed already, and bombs are none of ours
            ws_ping_interval=ping_s,
            ws_ping_timeout=ping_s,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=keep_alive_s,
            backlog=_BACKLOG,
        )
        self._server = _Uvicorn(config, context, connections.header_s)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    @property
    def count(self) -> int:
        """Connections that are open."""
        return 0 if self._server is None else len(self._server.server_state.connections)

    async def stop(self, timeout_s: float) -> None:
        """Accept nothing more, answer what was asked, and hang up after `timeout_s` whatever is left."""
        if self._server is None or self._task is None:
            self._socket.close()
            return
        self._server.config.timeout_graceful_shutdown = timeout_s
        self._server.should_exit = True
        await self._task

    def close(self) -> None:
        """Give the port back, where nothing was started on it."""
        self._socket.close()


def bind(host: str, port: int, setting: str = "REPPOSE_HTTP__PORT") -> socket.socket:
    """A listening TCP socket. Raises StartupError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
            bound.bind(address)
            bound.listen(_BACKLOG)
            bound.setblocking(False)
        except BaseException:
            bound.close()
            raise
        return bound
    except OSError as error:
        raise StartupError(
            f"cannot listen for HTTP on {host}:{port}: {error.strerror}; "
            f"{setting} names another port (0 for any free one)"
        ) from error


def authority(host: str, port: int) -> str:
    """`host:port` as in URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_open_files() -> None:
    """Let this process have as many open files, and so connections, as it may give itself. The usual 1024 are a default
    for programs that keep them in the bits of a number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # then it has what it has
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Uvicorn(uvicorn.Server):
    """Uvicorn on one socket, without its signal handlers: the process has its own. Handshakes have a limit of time."""

    def __init__(self, config: uvicorn.Config, context: ssl.SSLContext | None, handshake_s: float) -> None:
        super().__init__(config)
        self._context, self._handshake_s = context, handshake_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        encrypted = {} if self._context is None else {
            "ssl": self._context,
            "ssl_handshake_timeout": self._handshake_s,
            "ssl_shutdown_timeout": _GOODBYE_S,
        }  # fmt: skip
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(protocol, sock=each, backlog=_BACKLOG, **encrypted)
            for each in sockets or ()
        ]
        self.started = True
