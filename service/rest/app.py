"""The ASGI application: routes, the form of errors, and what surrounds every request."""

from __future__ import annotations

import time
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_zoo.errors import ModelZooError
from service import logs, status
from service.errors import InvalidRequest, ServiceError
from service.health import Readiness
from service.images import ImageLimits
from service.logs import facts, log
from service.metrics import Metrics
from service.predictor import Predictor
from service.registry import Registry
from service.rest import body, routes, schemas

REQUEST_ID = "x-request-id"
SERVER_TIMING = "server-timing"
COUNTED = ("pose", "models")
"""Names of the routes that the metrics count; the others are asked by machines, all day long."""

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
    operators: APIRouter | None = None,
    log_requests: bool = True,
) -> ASGIApp:
    """The application over these objects, with the routes of `rest.admin` where they are given."""
    app = FastAPI(title="RepPose", version=_version(), description=_DESCRIPTION)
    app.include_router(routes.build(predictor, registry, readiness, limits, metrics.registry))
    if operators is not None:
        app.include_router(operators)
    for error in (ServiceError, ModelZooError):
        app.add_exception_handler(error, _listed_error)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(_AroundRequests, metrics=metrics, log_requests=log_requests)
    return app


def _version() -> str:
    try:
        return version("reppose")
    except PackageNotFoundError:
        return "unknown"


def _error(http: int, content: bytes, code: str, request: Request, **headers: str) -> Response:
    request.scope["reppose.outcome"] = code
    return Response(content, http, headers=headers, media_type="application/json")


async def _listed_error(request: Request, error: Exception) -> Response:
    report = status.report(error)
    if report.status is status.INTERNAL:
        raise error  # to the log, with its traceback
    retry = report.status.http in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    headers = {"Retry-After": str(status.RETRY_AFTER_S)} if retry else {}
    return _error(report.status.http, schemas.report_json(report), report.status.code, request, **headers)


async def _wrong_query(request: Request, error: RequestValidationError) -> Response:
    return await _listed_error(request, InvalidRequest(*body.first_fault(error.errors())))


async def _http_error(request: Request, error: HTTPException) -> Response:
    """What the framework refuses by itself: an unknown path, a method that a path lacks."""
    code = HTTPStatus(error.status_code).name.lower()
    content = schemas.error_json(code, f"{request.method} {request.url.path!r}: {error.detail}"[:300])
    return _error(error.status_code, content, code, request, **(error.headers or {}))


class _AroundRequests:
    """Gives each request an id, answers what went wrong unexpectedly, counts and logs."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log_requests: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = logs.begin_request(Headers(scope=scope).get(REQUEST_ID))
        http = 0

        async def send_with_id(message: Message) -> None:
            nonlocal http
            if message["type"] == "http.response.start":
                http = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if (timing := scope.get("reppose.timing")) is not None:
                    headers[SERVER_TIMING] = timing.header(time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            scope["reppose.outcome"] = status.CLIENT_GONE
        except Exception as error:
            log.exception("failed to answer")
            scope["reppose.outcome"] = status.INTERNAL.code
            if not http:
                report = status.report(error)
                answer = Response(
                    schemas.report_json(report), report.status.http, media_type="application/json"
                )
                await answer(scope, receive, send_with_id)
        self._note(scope, http, time.perf_counter() - started)

    def _note(self, scope: Scope, http: int, seconds: float) -> None:
        outcome = scope.get("reppose.outcome", status.OK)
        route = getattr(scope.get("route"), "name", None)
        if route in COUNTED:
            self._metrics.answered("http", route, outcome, seconds)
        if self._log_requests and (route in COUNTED or outcome != status.OK):
            log.info(
                "request",
                extra=facts(
                    transport="http",
                    method=scope["method"],
                    path=scope["path"],
                    status=http,
                    outcome=outcome,
                    ms=round(seconds * 1e3, 2),
                ),
            )
