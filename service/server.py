"""Composition root: builds every object, starts the listeners, drains and stops. One process, one event loop.

Order of a start: bind both ports, answer health checks, load and verify the models, say ready. Order of an end: say
not ready, accept nothing more, finish what was accepted, stop the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import uvloop
from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from model_zoo import skeletons
from model_zoo.bundle import Bundle
from service import cpus, heads, runner
from service.auth.files import Files
from service.auth.guard import Guard
from service.auth.opening import open_guard
from service.auth.rates import Limits
from service.batcher import Batcher
from service.health import Readiness
from service.images import ImageLimits
from service.listeners import HttpListener, allow_open_files, authority
from service.logs import facts, log
from service.metrics import Metrics, StageMetrics, resident_bytes
from service.pipeline import Device
from service.predictor import Predictor
from service.registry import Registry, ServedModel, read_bundles
from service.rest import admin, app, sessions, stream
from service.rest.connections import Connections
from service.rpc.server import RpcLimits, RpcServer
from service.runner import Runner
from service.settings import Settings
from service.stages import Stages
from service.starting import Attempts
from service.streams import hub
from service.streams.hub import Hub
from service.streams.opening import open_store
from service.streams.store import MemoryStore
from service.streams.token import Signer
from service.tls import Certificates, Paths
from service.tracing import Tracer, open_tracer
from service.watching import Watch

_MESSAGE_ROOM_BYTES = 512 * 1024
"""What a message over the WebSocket may hold beside an image of the largest size; resume tokens fit as well."""
_NO_TIME_S = 0.0
_STREAMS_SHARE = 0.75
"""Of the time to drain: streams end first, single requests are answered all the while and have the rest."""
_LAST_SPANS_S = 2.0
"""Of the time to drain, at most, for a collector to take what was traced."""
_LAST_SCRAPE_S = 0.5
_PREPARERS_PER_CPU = 2
"""Workers that wait for a device, on average every other one of them, keep the processors busy with the others."""


@dataclass(frozen=True)
class Core:
    """Everything between the transports and the models."""

    registry: Registry
    predictor: Predictor
    metrics: Metrics
    limits: ImageLimits

    async def load(self, settings: Settings) -> None:
        """Load every model and start its workers; those that run already and are no longer there, or not the same,
        make room at once and finish what they have accepted. An error leaves everything as it was.

        Raises:
            StartupError: a bundle is missing, broken, or cannot be loaded.
        """
        cv2.setNumThreads(1)  # the workers are the threads
        lineup = await asyncio.to_thread(
            self.registry.prepare,
            settings.models.roots,
            settings.models.default,
            lambda found: _open_model(found, settings, self.limits, self.metrics),
        )
        served = set(self.registry)
        fresh = [model for model in lineup.models.values() if model not in served]
        try:
            for model in fresh:
                model.batcher.start()
        except BaseException:  # those that run already would go on for ever, unasked
            await asyncio.gather(*(model.stop(_NO_TIME_S) for model in fresh))
            raise
        leaving = self.registry.swap(lineup)
        self.metrics.forget_models()
        for model in self.registry:
            self.metrics.watch_queue(
                model.reference,
                lambda each=model: each.batcher.depth,
                model.batcher.capacity,
                lambda each=model: each.batcher.busy_s,
            )
            self.metrics.serves(
                model.bundle.name,
                model.bundle.version,
                model.manifest.skeleton,
                default=model is self.registry.default,
            )
            self.metrics.loaded(model.reference, model.load_s, model.memory_bytes)
            if model.provider in ("cuda", "tensorrt"):
                self.metrics.watch_gpus()
        await asyncio.gather(*(model.stop(settings.drain.timeout_s) for model in leaving))

    async def stop(self, timeout_s: float) -> bool:
        """Finish what waits and stop the workers; whether all of it was finished in time."""
        return all(await asyncio.gather(*(model.stop(timeout_s) for model in self.registry)))


def build_core(settings: Settings) -> Core:
    """The core, not yet loaded."""
    limits = ImageLimits(
        settings.limits.image_bytes, settings.limits.image_pixels, settings.limits.image_side
    )
    registry = Registry()
    predictor = Predictor(registry, limits, settings.limits.boxes, settings.models.min_presence)
    return Core(registry, predictor, Metrics(CollectorRegistry()), limits)


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

    def _open(self, settings: Settings) -> None:
        """Everything that can be wrong with what the settings name, but for the models' graphs. Raises StartupError."""
        attempts, metrics = Attempts(), self._core.metrics
        hub = attempts.of(lambda: _open_hub(settings, self._core))
        opened = attempts.of(lambda: _open_guard(settings, metrics))
        self._certificates = attempts.of(lambda: _open_certificates(settings, metrics))
        self._tracer = attempts.of(lambda: _open_tracer(settings))
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
            bounds=_rpc_limits(settings),
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
            _connections(settings, self._core.metrics),
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
        """Serve what is under the roots now; where that fails, raise why and go on with what is served."""
        async with self._loading:
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


def _open_model(found: Bundle, settings: Settings, limits: ImageLimits, metrics: Metrics) -> ServedModel:
    precision = settings.models.precision
    if precision == "auto":
        precision = "fp32" if found.int8_path is None else "int8"
    began_s, held_bytes = time.perf_counter(), resident_bytes()
    loaded = runner.load(found, precision, settings.models.provider)
    loaded.warm_up(settings.batch.size)
    load_s, grown_bytes = time.perf_counter() - began_s, resident_bytes() - held_bytes
    reference = f"{found.name}@{found.version}"
    stage_metrics = metrics.stages(reference, has_heads=bool(heads.outputs(found.manifest)))
    device = _device(loaded, settings, reference, stage_metrics)
    stages = Stages(
        loaded,
        skeletons.skeleton(found.manifest.skeleton),
        limits,
        settings.batch.size,
        stage_metrics,
        device,
    )
    workers = settings.batch.workers or cpus.usable() * (1 if device is None else _PREPARERS_PER_CPU)
    return ServedModel(
        found,
        Batcher(
            stages.open_worker,
            workers=workers,
            size=settings.batch.size,
            capacity=settings.batch.queue,
            processors=_processors(workers, settings.batch.pin),
            observer=stage_metrics,
            stuck_s=settings.batch.stuck_s,
            name=reference,
        ),
        precision,
        loaded.provider,
        load_s,
        max(0, grown_bytes),
        device,
    )


def _device(loaded: Runner, settings: Settings, reference: str, stage_metrics: StageMetrics) -> Device | None:
    """A thread of its own for the calls of the net, where the settings say so or the net runs on a GPU."""
    batch = settings.batch
    fused = loaded.provider not in ("cuda", "tensorrt") if batch.mode == "auto" else batch.mode == "fused"
    if fused:
        return None
    return Device(
        size=batch.size,
        window_s=batch.window_ms / 1e3,
        ran=stage_metrics.ran,
        stuck_s=batch.stuck_s / 2,  # before the batcher gives up those who wait for it
        name=f"{reference}-net",
    )


def _open_guard(settings: Settings, metrics: Metrics) -> tuple[Guard, Files]:
    """Who may ask. Raises StartupError."""
    auth, rates = settings.auth, settings.rates
    return open_guard(
        key_file=auth.key_file,
        jwks_file=auth.jwks_file,
        token_rules={
            "issuer": auth.jwt_issuer,
            "audience": auth.jwt_audience,
            "algorithms": auth.jwt_algorithms,
            "leeway_s": auth.jwt_leeway_s,
            "role_claim": auth.jwt_role_claim,
        },
        admin_token=settings.admin.token.get_secret_value() if settings.admin.enabled else "",
        limits=Limits(
            rates.frames_per_s, rates.frames_burst, rates.pixels_per_s, rates.pixels_burst, rates.streams
        ),
        by_address=rates.by_address,
        every_s=auth.reread_s,
        refused=metrics.access.refused,
        reread=metrics.access.reread,
    )


def _open_certificates(settings: Settings, metrics: Metrics) -> Certificates | None:
    """What the listeners show, None where they are plain. Raises StartupError."""
    tls = settings.tls
    if tls.certificate is None or tls.key is None:
        return None
    paths = Paths(tls.certificate, tls.key, tls.client_ca, tls.client_certificates == "required")
    opened = Certificates(paths, tls.reread_s)
    opened.heard(metrics.listeners.watch_certificate(lambda: opened.expires_s))
    return opened


def _connections(settings: Settings, metrics: Metrics) -> Connections:
    http = settings.http
    return Connections(
        http.connections,
        http.header_bytes,
        http.headers,
        http.header_s,
        http.body_s,
        http.body_bytes_per_s,
        http.bodies_bytes,
        metrics.listeners.refused,
    )


def _rpc_limits(settings: Settings) -> RpcLimits:
    grpc = settings.grpc
    return RpcLimits(
        connections=grpc.connections,
        calls=grpc.calls,
        metadata_bytes=grpc.metadata_bytes,
        handshake_s=settings.http.header_s,
        message_s=grpc.message_s,
        idle_s=settings.streams.idle_s,
        ping_s=grpc.ping_s,
        keep_alive_s=grpc.keep_alive_s,
    )


def _open_tracer(settings: Settings) -> Tracer | None:
    """What records spans, if anything does. Raises StartupError."""
    wanted = settings.tracing
    return open_tracer(
        wanted.endpoint, share=wanted.share, name=wanted.name, version=app.version_of_package()
    )


def _open_hub(settings: Settings, core: Core) -> Hub:
    """What holds the streams. Raises StartupError."""
    streams, sessions = settings.streams, settings.sessions
    heard = core.metrics.streams
    store = open_store(
        sessions.store_url.get_secret_value() or None,
        capacity=sessions.capacity,
        most_bytes=sessions.memory_bytes,
        idle_s=sessions.idle_s,
        timeout_s=sessions.store_timeout_s,
        prefix=sessions.store_prefix,
        observer=heard,
    )
    if isinstance(store, MemoryStore):
        heard.watch_sessions(lambda: len(store))
    return Hub(
        core.predictor.predict,
        core.registry,
        store,
        Signer(sessions.keys or (secrets.token_bytes(32),), sessions.token_age_s, sessions.token_chars),
        heard,
        hub.Rules(
            streams=streams.count,
            mailbox=streams.mailbox,
            max_age_s=streams.frame_age_s,
            idle_s=streams.idle_s,
            save_s=streams.save_s,
            in_flight=streams.in_flight,
            window=streams.window,
            boxes=settings.limits.boxes,
            log=settings.log.requests,
        ),
    )


def _processors(workers: int, pin: str) -> Sequence[int]:
    """As `cpus.tied`; says so where a wish cannot be granted."""
    processors = cpus.tied(workers, pin)
    if pin == "on" and not processors:
        log.warning(
            "more workers than processors: not pinned",
            extra=facts(workers=workers, cpus=len(cpus.affinity())),
        )
    return processors
