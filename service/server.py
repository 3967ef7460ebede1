"""Composition root: builds every object, starts the listeners, drains and stops. One process, one event loop.

Order of a start: bind both ports, answer health checks, load and verify the models, say ready. Order of an end: say
not ready, accept nothing more, finish what was accepted, stop the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time

import uvloop
from fastapi import APIRouter
from starlette.types import ASGIApp

from service import opening
from service.core import build_core
from service.errors import StartupError
from service.health import Readiness
from service.listeners import HttpListener, allow_open_files, authority
from service.logs import facts, log
from service.registry import read_bundles
from service.rest import admin, app, sessions, stream
from service.rpc.server import RpcServer
from service.settings import Settings
from service.starting import Attempts
from service.watching import Watch

_MESSAGE_ROOM_BYTES = 512 * 1024
"""What a message over the WebSocket may hold beside an image of the largest size; resume tokens fit as well."""
_STREAMS_SHARE = 0.75
"""Of the time to drain: streams end first, single requests are answered all the while and have the rest."""
_LAST_SPANS_S = 2.0
"""Of the time to drain, at most, for a collector to take what was traced."""
_LAST_SCRAPE_S = 0.5


class Server:
    """The running service; `http_port` and `grpc_port` are the ports it listens on.

    Raises:
        StartupError: with everything that keeps it from starting: ports that are taken, files that are broken.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._readiness = Readiness()
        self._core = build_core(settings)
        self._open(settings)
        self.grpc_port: int = self._rpc.port
        self.app = self._build_app()
        self._loading = asyncio.Lock()
        self._stopping = False

    def _open(self, settings: Settings) -> None:
        """Everything that can be wrong with what the settings name, but for the models' graphs. Raises StartupError."""
        attempts, metrics = Attempts(), self._core.metrics
        hub = attempts.of(lambda: opening.hub_of(settings, self._core))
        opened = attempts.of(lambda: opening.guard_of(settings, metrics))
        self._certificates = attempts.of(lambda: opening.certificates_of(settings, metrics))
        self._tracer = attempts.of(lambda: opening.tracer_of(settings))
        self._watch = Watch(
            metrics, self._tracer, log_requests=settings.log.requests, share=settings.log.share
        )
        http = attempts.of(lambda: HttpListener(settings.http.host, settings.http.port))
        self._scraped: HttpListener | None = None
        if settings.metrics.port is not None:
            where = settings.metrics
            self._scraped = attempts.of(lambda: HttpListener(where.host, where.port, "REPPOSE_METRICS__PORT"))
        rpc = None
        if hub is not None and opened is not None:
            self._hub, (self._guard, self._credentials) = hub, opened
            rpc = attempts.of(lambda: self._open_rpc(settings))
        try:
            if attempts.problems:
                attempts.of(lambda: read_bundles(settings.models.roots))
            attempts.check()
        except BaseException:
            for listener in (http, self._scraped):
                if listener is not None:
                    listener.close()
            raise
        assert http is not None and rpc is not None  # noqa: PT018 - nothing was wrong
        self._http, self._rpc = http, rpc
        self.http_port: int = http.port

    def _open_rpc(self, settings: Settings) -> RpcServer:
        return RpcServer(
            self._core.predictor,
            self._hub,
            self._watch,
            self._core.limits,
            host=settings.grpc.host,
            port=settings.grpc.port,
            stream_frames=settings.grpc.stream_frames,
            guard=self._guard,
            bounds=opening.rpc_limits_of(settings),
            credentials=self._certificates and self._certificates.grpc_credentials,
            refused=self._core.metrics.listeners.refused,
        )

    async def start(self) -> None:
        """Listen, load the models, say ready. Raises StartupError; call `stop` then as well."""
        self._hub.start()
        self._credentials.start()
        if self._certificates is not None:
            self._certificates.start()
        await self._rpc.start()
        settings = self._settings
        self._listen(self._http, self.app)
        if self._scraped is not None:
            self._listen(self._scraped, app.scraping(self._core.metrics, self._guard))
        self._core.metrics.listeners.watch_connections(lambda: self._http.count)
        log.info(
            "listening",
            extra=facts(
                http=f"http{'s' * settings.tls.on}://{authority(settings.http.host, self.http_port)}",
                grpc=authority(settings.grpc.host, self.grpc_port),
                http_port=self.http_port,
                grpc_port=self.grpc_port,
                **({} if self._scraped is None else {"metrics_port": self._scraped.port}),
            ),
        )
        async with self._loading:
            await self._core.load(settings)
        await self._say(None)
        log.info("ready", extra=facts(models=[model.reference for model in self._core.registry]))

    def _listen(self, listener: HttpListener, application: ASGIApp) -> None:
        settings = self._settings
        listener.start(
            application,
            opening.connections_of(settings, self._core.metrics),
            keep_alive_s=settings.http.keep_alive_s,
            message_bytes=self._core.limits.bytes + _MESSAGE_ROOM_BYTES,
            ping_s=settings.http.ping_s,
            context=self._certificates and self._certificates.context,
        )

    def reread_credentials(self) -> None:
        """Let in whom the files of credentials name now, and show the certificates that are there now; where one is
        broken, those before."""
        self._credentials.reread()
        if self._certificates is not None:
            self._certificates.reread()

    async def reload(self) -> None:
        """Serve what is under the roots now; where that fails, raise why and go on with what is served. A service that
        stops loads nothing any more: StartupError."""
        async with self._loading:
            if self._stopping:
                raise StartupError("the service is stopping")
            try:
                await self._core.load(self._settings)
            except Exception as error:
                self._core.metrics.reloads.labels("failed").inc()
                log.error("not reloaded, the models stay as they are", exc_info=error)
                raise
            else:
                self._core.metrics.reloads.labels("ok").inc()
                log.info("reloaded", extra=facts(models=[model.reference for model in self._core.registry]))

    async def stop(self) -> bool:
        """Drain and stop; whether everything that was accepted was answered in time."""
        drain = self._settings.drain
        self._stopping = True
        was_ready = self._readiness.ready
        await self._say("the service is stopping")
        if was_ready:  # else no balancer sends anything here, and a start that failed shall end at once
            await asyncio.sleep(drain.notice_s)
        ends_s = time.monotonic() + drain.timeout_s
        streamed = await self._hub.drain(_STREAMS_SHARE * drain.timeout_s)
        left_s = ends_s - time.monotonic()
        await asyncio.gather(self._rpc.stop(left_s), self._http.stop(left_s))
        async with self._loading:
            finished = await self._core.stop(max(0.0, ends_s - time.monotonic())) and streamed
        await self._hub.stop()
        await self._credentials.stop()
        if self._certificates is not None:
            await self._certificates.stop()
        if self._scraped is not None:
            await self._scraped.stop(_LAST_SCRAPE_S)
        if self._tracer is not None:
            await self._tracer.close(min(_LAST_SPANS_S, max(0.0, ends_s - time.monotonic())))
        log.info("stopped", extra=facts(finished=finished))
        return finished

    async def _say(self, reason: str | None) -> None:
        """Tell both transports' health checks, and the metrics, in one place."""
        self._readiness.reason = reason
        self._core.metrics.ready.set(reason is None)
        await self._rpc.set_serving(reason is None)

    def _operators(self) -> list[APIRouter]:
        settings = self._settings.admin
        if not settings.enabled:
            return []
        return [admin.build(self._core.registry, self.reload)]

    def _build_app(self) -> ASGIApp:
        core, settings = self._core, self._settings
        return app.build(
            core.predictor,
            core.registry,
            self._readiness,
            core.metrics,
            core.limits,
            guard=self._guard,
            docs=settings.http.docs == "on" or (settings.http.docs == "auto" and not settings.auth.on),
            cors_origins=settings.http.cors_origins,
            further=[
                *self._operators(),
                stream.build(self._hub, settings.streams.origins),
                sessions.build(self._hub, core.limits),
            ],
            watch=self._watch,
            scraped=settings.metrics.port is None,
        )


def run(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT; a second signal ends the process at once. SIGHUP reads the models and
    the credentials again.

    Returns:
        Whether everything that was accepted was answered in time.

    Raises:
        StartupError: the service cannot start.
    """
    allow_open_files()
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> bool:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _asked_to_stop, number, stopping)
    server = Server(settings)
    reloads: set[asyncio.Task[None]] = set()

    async def reload_or_stay() -> None:
        with contextlib.suppress(Exception):  # the log has it
            await server.reload()

    def reload() -> None:
        server.reread_credentials()
        task = loop.create_task(reload_or_stay())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    starting = asyncio.create_task(server.start())
    asked = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            gc.collect()
            gc.freeze()  # what stands now stays; to look through it again and again would hold up requests
        await asked
    finally:
        await asyncio.wait((starting,))  # models cannot be left half loaded
        finished = await server.stop()
    return finished


def _asked_to_stop(number: int, stopping: asyncio.Event) -> None:
    if stopping.is_set():
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        os._exit(128 + number)  # a container's first process outlives signals that it does not handle
    log.info("stopping", extra=facts(signal=signal.Signals(number).name))
    stopping.set()
