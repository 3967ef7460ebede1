"""`WS /v1/stream`: the contract of EstimateStream with a config, for browsers.

The first message is text: the config as JSON. After it every binary message is a frame: 16 bytes (sequence as unsigned
64-bit integer, timestamp in seconds as 64-bit float, NaN for none, both little-endian) and the image's bytes. A text
message may say what to do with the next frame (`{"next": {"want_token": true}}`) or that there are no more
(`{"end": true}`). Every answer is JSON in a text message: `opened`, then per frame `sequence` and one of `tracked`,
`error` and `dropped`, and `closing` where the service stops. A stream that fails gets an `error` without `sequence` and
is closed with 4000 + the HTTP status of that error; with 1012 where the service stops, 1011 where it is at fault.

Web pages of other hosts may only open it where the settings say so: a browser sends a page's cookies along with
everybody's requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
import time
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, WebSocket
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.websockets import WebSocketDisconnect

from service import status
from service.auth.visit import Visit
from service.errors import DeadlineExceeded, InvalidRequest, PermissionDenied, Unauthenticated
from service.logs import log
from service.rest import access, schemas
from service.rest import stream_schemas as forms
from service.rest.body import first_fault
from service.status import Report
from service.streams.contract import Answered, Closing, Dropped, Mode, Outcome, StreamFrame
from service.streams.hub import Hub
from service.streams.live import Stream
from service.types import Frame, Options

PATH = "/v1/stream"
HEAD = struct.Struct("<Qd")
CONFIG_S = 10.0
"""How long the config may take to come."""
RESTART, INTERNAL, NORMAL = 1012, 1011, 1000
_ERRORS = 4000
_MAX_REASON_BYTES = 123

Form = TypeVar("Form", bound=BaseModel)


def build(hub: Hub, origins: Collection[str]) -> APIRouter:
    """The route over a hub, for pages from these origins and from the service's own host."""
    router = APIRouter()

    @router.websocket(PATH, name="stream")
    async def stream(websocket: WebSocket) -> None:
        origin = websocket.headers.get("origin")
        if origin is not None and not allowed(origin, websocket.headers.get("host", ""), origins):
            content = schemas.error_json(
                "forbidden", f"pages of {origin[:200]!r} may not open this", "Origin"
            )
            websocket.scope["reppose.outcome"] = "forbidden"
            await websocket.send_denial_response(
                Response(content, HTTPStatus.FORBIDDEN, media_type="application/json")
            )
            return
        try:
            offered = access.PROTOCOL in websocket.scope.get("subprotocols", ())
            await websocket.accept(access.PROTOCOL if offered else None)
            await _serve(websocket, hub)
        except WebSocketDisconnect:
            pass

    return router


def allowed(origin: str, host: str, origins: Collection[str]) -> bool:
    """Whether pages from `origin` may open the stream of a service that was asked as `host`."""
    if "*" in origins or origin in origins:
        return True
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:  # it is no URL
        return False


async def _serve(websocket: WebSocket, hub: Hub) -> None:
    this = asyncio.current_task()
    try:
        with contextlib.ExitStack() as held:
            config = _read_form(forms.StreamConfigIn, await _first(websocket)).config()
            visit = held.enter_context(access.visit(websocket.scope, patient=config.mode is Mode.FILE))
            stream = await hub.open(config, visit.owner, "websocket", this.cancel)
            kept = held.pop_all()
    except WebSocketDisconnect:
        raise
    except Exception as error:
        await _close(websocket, error)
        return
    with kept:
        await _talk(websocket, hub, stream, visit)


async def _talk(websocket: WebSocket, hub: Hub, stream: Stream, visit: Visit) -> None:
    writer = asyncio.create_task(_write(websocket, hub, stream))
    reader = asyncio.create_task(_read(websocket, stream, visit))
    try:
        await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        log.warning("a client that reads nothing was cut off")
        return
    finally:
        writer.cancel()
        reader.cancel()
        await asyncio.gather(writer, reader, return_exceptions=True)
        await asyncio.shield(hub.close(stream))
    if not reader.cancelled():  # it ends by itself with an error only
        if not isinstance(error := reader.exception(), WebSocketDisconnect):
            await _close(websocket, error)
        return
    if not writer.cancelled():
        writer.result()  # raises what nobody expected
        await _close(websocket, stream.failure)


async def _first(websocket: WebSocket) -> str:
    """The text of the first message. Raises InvalidRequest, DeadlineExceeded, WebSocketDisconnect."""
    try:
        async with asyncio.timeout(CONFIG_S):
            message = await websocket.receive()
    except TimeoutError as error:
        raise DeadlineExceeded(f"no config in {CONFIG_S:g} s") from error
    _still_there(message)
    if (text := message.get("text")) is None:
        raise InvalidRequest("the first message must be the config, as text", "config")
    return text


async def _read(websocket: WebSocket, stream: Stream, visit: Visit) -> None:
    """Hand over what comes, until the client leaves: WebSocketDisconnect."""
    asked = forms.NextIn()
    while True:
        message = await websocket.receive()
        _still_there(message)
        stream.touch()
        try:
            if (data := message.get("bytes")) is not None:
                await stream.put(await visit.let_in(_frame(data, asked)))
                asked = forms.NextIn()
                continue
            control = _read_form(forms.ControlIn, message["text"])
            asked = control.next or asked
            if control.end:
                stream.finish()
        except (InvalidRequest, Unauthenticated, PermissionDenied) as error:
            stream.fail(error)


async def _write(websocket: WebSocket, hub: Hub, stream: Stream) -> None:
    await websocket.send(_message({"opened": forms.opened_json(stream.opened)}))
    while (outcome := await stream.next_outcome()) is not None:
        began_s = time.perf_counter()
        message = _message(outcome_json(outcome))
        if isinstance(outcome, Answered):
            hub.encoded(outcome, time.perf_counter() - began_s)
        await websocket.send(message)


def _still_there(message: Any) -> None:
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", NORMAL))


def _frame(data: bytes, asked: forms.NextIn) -> StreamFrame:
    """Raises InvalidRequest."""
    if len(data) < HEAD.size:
        raise InvalidRequest(f"a binary message must begin with the {HEAD.size} bytes of its head", "frame")
    sequence, timestamp_s = HEAD.unpack_from(data)
    options = Options(
        boxes=None if asked.boxes is None else tuple(map(tuple, asked.boxes)),
        compare=asked.compare,
        heatmaps=asked.heatmaps,
        min_presence=asked.min_presence,
    )
    taken_s = None if math.isnan(timestamp_s) else timestamp_s
    return StreamFrame(sequence, Frame(data[HEAD.size :]), options, taken_s, asked.want_token)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The answer to a frame, or the last message."""
    if isinstance(outcome, Answered):
        return {"sequence": outcome.sequence, "tracked": forms.tracked_json(outcome)}
    if isinstance(outcome, Dropped):
        return {"sequence": outcome.sequence, "dropped": forms.dropped_json(outcome)}
    if isinstance(outcome, Closing):
        return {"sequence": outcome.sequence, "closing": forms.closing_json(outcome)}
    return {"sequence": outcome.sequence, "error": forms.error_json(_report(outcome.error))}


def _read_form(form: type[Form], text: str) -> Form:
    """Raises InvalidRequest."""
    try:
        return form.model_validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        raise InvalidRequest(*first_fault(faults, form.model_fields)) from error


def _report(error: Exception) -> Report:
    report = status.report(error)
    if report.status is status.INTERNAL:
        log.error("failed to answer", exc_info=error)
    return report


def _message(content: dict[str, Any]) -> dict[str, str]:
    return {"type": "websocket.send", "text": orjson.dumps(content).decode()}


async def _close(websocket: WebSocket, error: Exception | None) -> None:
    """Say why, and close."""
    if error is None:
        await websocket.close(NORMAL)
        return
    report = _report(error)
    websocket.scope["reppose.outcome"] = report.status.code
    await websocket.send(_message({"error": forms.error_json(report)}))
    if report.status is status.INTERNAL:
        code = INTERNAL
    else:
        code = RESTART if report.status.code == "not_ready" else _ERRORS + int(report.status.http)
    reason = f"{report.status.code}: {report.message}".encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
    await websocket.close(code, reason)
