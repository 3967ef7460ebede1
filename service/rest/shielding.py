"""What browsers are told to keep to, with every answer."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
_DATA = (*_ALWAYS, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
# The pages of the documentation load their scripts and styles from where FastAPI says.
_PAGES = dict.fromkeys(
    ("/docs", "/redoc"),
    (
        *_ALWAYS,
        (b"content-security-policy", b"frame-ancestors 'none'; base-uri 'none'; object-src 'none'"),
        (b"referrer-policy", b"no-referrer"),
    ),
)
_SENT = (
    "Authorization",
    "Content-Type",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
    "X-Resume-Token",
    "Traceparent",
    "Tracestate",
)
_READ = ("X-Request-ID", "Server-Timing", "Retry-After", "WWW-Authenticate", "Traceresponse")
_PREFLIGHT_S = 600


def headers(path: str) -> Sequence[tuple[bytes, bytes]]:
    """Headers of an answer to this path."""
    return _PAGES.get(path, _DATA)


def cross_origin(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Let scripts of pages from these origins read the answers; `*` for all. They send keys themselves: a browser adds
    no credentials of its own, so none are allowed."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=_SENT,
        expose_headers=_READ,
        allow_credentials=False,
        max_age=_PREFLIGHT_S,
    )
