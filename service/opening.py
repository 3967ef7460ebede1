"""What the settings name, as the parts of the server take it: the only place where one is turned into the other."""

from __future__ import annotations

import secrets

from service.auth.files import Files
from service.auth.guard import Guard
from service.auth.opening import open_guard
from service.auth.rates import Limits
from service.core import Core
from service.metrics import Metrics
from service.rest import app
from service.rest.connections import Connections
from service.rpc.server import RpcLimits
from service.settings import Settings
from service.streams import hub
from service.streams.hub import Hub
from service.streams.opening import open_store
from service.streams.store import MemoryStore
from service.streams.token import Signer
from service.tls import Certificates, Paths
from service.tracing import Tracer, open_tracer


def guard_of(settings: Settings, metrics: Metrics) -> tuple[Guard, Files]:
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


def certificates_of(settings: Settings, metrics: Metrics) -> Certificates | None:
    """What the listeners show, None where they are plain. Raises StartupError."""
    tls = settings.tls
    if tls.certificate is None or tls.key is None:
        return None
    paths = Paths(tls.certificate, tls.key, tls.client_ca, tls.client_certificates == "required")
    opened = Certificates(paths, tls.reread_s)
    opened.heard(metrics.listeners.watch_certificate(lambda: opened.expires_s))
    return opened


def connections_of(settings: Settings, metrics: Metrics) -> Connections:
    """Limits of HTTP connections."""
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


def rpc_limits_of(settings: Settings) -> RpcLimits:
    """Limits of gRPC connections."""
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


def tracer_of(settings: Settings) -> Tracer | None:
    """What records spans, if anything does. Raises StartupError."""
    wanted = settings.tracing
    return open_tracer(
        wanted.endpoint, share=wanted.share, name=wanted.name, version=app.version_of_package()
    )


def hub_of(settings: Settings, core: Core) -> Hub:
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
