"""Settings of what listens: addresses, limits of one request, the end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from service.settings.group import Group, Port, split_commas


class HttpSettings(Group):
    """The REST listener."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: Port = 8000
    """Port to listen on; 0 takes any free one and logs it."""
    keep_alive_s: PositiveInt = 30
    """How long an idle connection stays open."""
    connections: PositiveInt = 4096
    """Most open connections. Beyond it the one that has been without a request for longest makes room, and where all
    have one the new one is refused."""
    header_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024
    """Longest head of a request: its line and all of its headers."""
    headers: PositiveInt = 100
    """Most headers of a request."""
    header_s: PositiveFloat = 10.0
    """How long the head of a request may take, and a TLS handshake."""
    body_s: PositiveFloat = 20.0
    """How long the body of a request may take, beside what the next setting grants it."""
    body_bytes_per_s: PositiveInt = 16 * 1024
    """Slowest upload: for every so many bytes that have come, a body may take one second longer."""
    bodies_bytes: PositiveInt = 512 * 1024 * 1024
    """Most memory for the bodies of all requests together, until they are answered; who sends more is refused."""
    ping_s: PositiveFloat = 20.0
    """How often an open WebSocket is asked whether its client is there; one that leaves this unanswered for as long is
    closed."""
    docs: Literal["auto", "on", "off"] = "auto"
    """Whether `/docs`, `/redoc` and `/openapi.json` are there, for all; auto: unless credentials are asked for."""
    cors_origins: tuple[str, ...] = ()
    """Web pages whose scripts may read answers, as https://example.org, separated by commas; * for all. The WebSocket
    has a list of its own, REPPOSE_STREAMS__ORIGINS."""

    _split_origins = field_validator("cors_origins", mode="before")(split_commas)


class GrpcSettings(Group):
    """The gRPC listener."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: Port = 50051
    """Port to listen on; 0 takes any free one and logs it."""
    stream_frames: PositiveInt = 16
    """Most unanswered frames of one stream; the next is read when one was answered."""
    connections: PositiveInt = 4096
    """Most open connections; more are closed at once."""
    calls: PositiveInt = 1024
    """Most calls at a time over one connection; clients let the others wait."""
    metadata_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024
    """Most metadata of a call."""
    message_s: PositiveFloat = 30.0
    """How long the first message of a call may take. What comes later of a stream, REPPOSE_STREAMS__IDLE_S governs."""
    ping_s: PositiveFloat = 30.0
    """How often an open connection is asked whether its client is there; one that leaves this unanswered for 20 s is
    closed."""
    keep_alive_s: PositiveFloat = 300.0
    """How long a connection without calls stays open."""


class LimitSettings(Group):
    """What one request may ask for."""

    image_bytes: PositiveInt = 20 * 1024 * 1024
    """Most bytes of an encoded image."""
    image_pixels: PositiveInt = 40_000_000
    """Most pixels of an image, judged by its header."""
    image_side: Annotated[int, Field(ge=1, le=32_000)] = 16_384
    """Most pixels along one side."""
    boxes: PositiveInt = 32
    """Most boxes of one request."""


class DrainSettings(Group):
    """What happens between SIGTERM and the exit."""

    notice_s: Annotated[float, Field(ge=0)] = 0.0
    """How long to go on accepting after readiness turned false, so that a load balancer can notice."""
    timeout_s: PositiveFloat = 20.0
    """Longest time to finish what was accepted."""
