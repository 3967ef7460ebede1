"""The ASGI application: routes, the form of errors, and what surrounds every request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs, status, tracing
from service.auth.guard import OPEN_TO_ALL, Guard
from service.errors import InvalidRequest, NotReady, ServiceError
from service.health import Readiness
from service.images import ImageLimits
from service.logs import log
from service.metrics import Metrics
from service.predictor import Predictor
from service.registry import Registry
from service.rest import access, body, routes, schemas, scrape, shielding
from service.rest.pose import NAME, PATH, PoseFirst
from service.status import Report
from service.tracing import Trace
from service.watching import Watch

REQUEST_ID = b"x-request-id"
SERVER_TIMING = b"server-timing"
TRACERESPONSE = tracing.TRACERESPONSE.encode()
COUNTED = ("pose", "models", "frames", "session")
"""Names of the routes that the metrics count; the others are asked by machines, all day long."""

_TRACE = (tracing.TRACEPARENT.encode(), tracing.TRACESTATE.encode())
_LONGEST_PATH = 200
_DESCRIPTION = """Photographs in, poses out. The same numbers over gRPC: `reppose.v1.PoseService`.

Every error has the form `{"error": {"code": ..., "message": ..., "field": ...}}`; `code` is stable, `field`
stands there where one part of the request is to blame. Send `X-Request-ID` to find a request in the service's
log; it is sent back. `Server-Timing` says where the time of a pose went."""


def build(
    predictor: Predictor,
    registry: Registry,
    readiness: Readiness,
    metrics: Metrics,
    limits: ImageLimits,
    *,
    guard: Guard = OPEN_TO_ALL,
    further: Sequence[APIRouter] = (),
    docs: bool = True,
    cors_origins: Sequence[str] = (),
    watch: Watch | None = None,
    scraped: bool = True,
) -> ASGIApp:
    """The application over these objects.

    Args:
        predictor, registry, readiness, metrics, limits: what it is about.
        guard: who may ask.
        further: routes such as those of `rest.admin`.
        docs: whether the documentation is there.
        cors_origins: pages whose scripts may read answers.
        watch: hears of every request; one over the metrics that logs all, where there is none.
        scraped: whether `/metrics` is there.
    """
    rest = framework(registry, readiness, metrics, further, guard=guard, docs=docs, scraped=scraped)
    around = _AroundRequests(PoseFirst(rest, predictor, limits, guard), watch or Watch(metrics))
    return shielding.cross_origin(around, cors_origins) if cors_origins else around


def framework(
    registry: Registry,
    readiness: Readiness,
    metrics: Metrics,
    further: Sequence[APIRouter] = (),
    *,
    guard: Guard = OPEN_TO_ALL,
    docs: bool = True,
    scraped: bool = True,
) -> FastAPI:
    """Every route but that of the poses, and the documentation of all."""
    app = FastAPI(
        title="RepPose",
        version=version_of_package(),
        description=_DESCRIPTION,
        openapi_url="/openapi.json" if docs else None,
        dependencies=[Depends(access.dependency(guard))],
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(routes.build(registry, readiness))
    if scraped:
        app.include_router(scrape.build(metrics.registry))
    for router in further:
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _any_error)
    app.openapi = _described(app.openapi)
    return app


def scraping(metrics: Metrics, guard: Guard = OPEN_TO_ALL) -> ASGIApp:
    """`/metrics` and nothing else, for a listener of its own."""
    app = FastAPI(openapi_url=None, dependencies=[Depends(access.dependency(guard))])
    app.include_router(scrape.build(metrics.registry))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _any_error)
    return _AroundRequests(app, Watch(metrics, log_requests=False))


def _described(document: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    def described() -> dict[str, Any]:
        found = document()
        access.describe(found)
        return found

    return described


def version_of_package() -> str:
    try:
        return version("reppose")
    except PackageNotFoundError:
        return "unknown"


def _error(http: int, content: bytes, code: str, scope: Scope, **headers: str) -> Response:
    scope["reppose.outcome"] = code
    return Response(content, http, headers=headers, media_type="application/json")


def _reported(report: Report, scope: Scope) -> Response:
    headers = {}
    if report.status.http in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = str(math.ceil(report.retry_after_s or status.RETRY_AFTER_S))
    if report.challenge is not None:
        why = f', error="{report.challenge}"' if report.challenge else ""
        headers["WWW-Authenticate"] = f'Bearer realm="reppose"{why}'
    return _error(report.status.http, schemas.report_json(report), report.status.code, scope, **headers)


async def _any_error(request: Request, error: Exception) -> Response:
    return _reported(status.report(error), request.scope)  # and it is raised on, to `_AroundRequests`


async def _wrong_query(request: Request, error: RequestValidationError) -> Response:
    return await _any_error(request, InvalidRequest(*body.first_fault(error.errors())))


async def _http_error(request: Request, error: HTTPException) -> Response:
    """What the framework refuses by itself: an unknown path, a method that a path lacks."""
    code = HTTPStatus(error.status_code).name.lower()
    content = schemas.error_json(code, f"{request.method} {request.url.path!r}: {error.detail}"[:300])
    return _error(error.status_code, content, code, request.scope, **(error.headers or {}))


class _AroundRequests:
    """Gives each request an id, answers what went wrong, and tells of it."""

    def __init__(self, app: ASGIApp, watch: Watch) -> None:
        self._app = app
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._websocket(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _begin(scope).encode()
        trace = self._traced(scope, scope["method"])
        http = 0

        async def send_with_id(message: Message) -> None:
            nonlocal http
            if message["type"] == "http.response.start":
                http = message["status"]
                headers = [*message["headers"], (REQUEST_ID, request_id), *shielding.headers(scope["path"])]
                if (timing := scope.get("reppose.timing")) is not None:
                    headers.append((SERVER_TIMING, timing.header(time.perf_counter() - started).encode()))
                if trace is not None:
                    headers.append((TRACERESPONSE, trace.response.encode()))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            scope["reppose.outcome"] = status.CLIENT_GONE
        except asyncio.CancelledError:  # by the listener, which ends with it: the time to drain is over
            answer = _reported(status.report(NotReady("the service stops")), scope)
            if not http:
                await answer(scope, receive, send_with_id)
        except Exception as error:
            report = status.report(error)
            if report.status is status.INTERNAL:
                log.exception("failed to answer")
            answer = _reported(report, scope)
            if not http:
                await answer(scope, receive, send_with_id)
        self._note(scope, http, started)
        if trace is not None:
            _end(trace, scope, scope["method"], {"http.response.status_code": http})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in words where one is refused before it is open; afterwards `rest.stream` does."""
        started = time.perf_counter()
        request_id = _begin(scope).encode()
        trace = self._traced(scope, "WEBSOCKET")

        accepted = False

        async def send_with_trace(message: Message) -> None:
            nonlocal accepted
            if message["type"] == "websocket.accept":
                accepted = True
                if trace is not None:
                    response = (TRACERESPONSE, trace.response.encode())
                    message["headers"] = [*message.get("headers", ()), response]
            await send(message)

        try:
            await self._app(scope, receive, send_with_trace)
        except ServiceError as error:
            answer = _reported(status.report(error), scope)
            answer.raw_headers += [(REQUEST_ID, request_id), *shielding.headers(scope["path"])]
            await answer(scope, receive, send)
        except Exception:
            scope["reppose.outcome"] = status.INTERNAL.code
            raise
        finally:
            if not accepted:  # of others `streams.hub` tells
                outcome = scope.get("reppose.outcome", status.OK)
                self._watch.ended("websocket", None, outcome, started, path=_path(scope))
            if trace is not None:
                _end(trace, scope, "WEBSOCKET", {})

    def _traced(self, scope: Scope, method: str) -> Trace | None:
        """What machines ask all day long is not traced."""
        if self._watch.tracer is None or not scope["path"].startswith("/v1/"):
            return None
        sent = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE}
        return self._watch.tracer.begin(method, sent, {"http.request.method": method})

    def _note(self, scope: Scope, http: int, started: float) -> None:
        outcome = scope.get("reppose.outcome", status.OK)
        route = scope.get("reppose.route") or getattr(scope.get("route"), "name", None)
        if (encode_s := scope.get("reppose.encode_s")) is not None:
            self._watch.metrics.stage(*scope["reppose.model"], "encode").observe(encode_s)
        more: dict[str, object] = {"method": scope["method"], "path": _path(scope), "status": http}
        if name := access.caller(scope).name:
            more["client"] = name
        self._watch.ended("http", route if route in COUNTED else None, outcome, started, **more)


def _begin(scope: Scope) -> str:
    """The id of a request, the client's own where it sent one."""
    sent = next((value for name, value in scope["headers"] if name == REQUEST_ID), None)
    return logs.begin_request(sent and sent.decode("latin-1"))


def _end(trace: Trace, scope: Scope, method: str, attributes: dict[str, object]) -> None:
    path = _path(scope, otherwise="")
    if path:
        attributes["http.route"] = path
    trace.end(
        scope.get("reppose.outcome", status.OK), name=f"{method} {path}".rstrip(), attributes=attributes
    )


def _path(scope: Scope, otherwise: str | None = None) -> str:
    """The route of a request; of a path that is not served what it says, as far as the log has room for it."""
    if scope.get("reppose.route") == NAME:
        return PATH
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        return route
    return scope["path"][:_LONGEST_PATH] if otherwise is None else otherwise
