"""`POST /v1/pose` as bare ASGI.

What a web framework does for each request (matching routes, solving dependencies, wrapping errors) takes more processor
time than anything else that the service does beside decoding and the net. So the one path that is asked all the time
goes without it; `rest.routes` declares the same path for the documentation, and a test holds the two together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import tracing
from service.auth import roles
from service.auth.guard import Guard
from service.images import ImageLimits
from service.predictor import Predictor
from service.rest import access, body, schemas
from service.types import Prediction

NAME = "pose"
PATH = "/v1/pose"
_ROLE = roles.HTTP[NAME]


class PoseFirst:
    """Answers `POST /v1/pose`, and leaves everything else to the application behind it.

    Errors are raised, for what surrounds it to answer.
    """

    def __init__(self, app: ASGIApp, predictor: Predictor, limits: ImageLimits, guard: Guard) -> None:
        self._app, self._guard = app, guard
        self._predictor = predictor
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["reppose.route"] = NAME
        caller = access.admit(self._guard, scope, _ROLE)
        caller.account.frame()
        request = Request(scope, receive)
        deadline_s = body.deadline(request)
        query = body.parse_query(
            dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        )
        frame, query = await body.read(request, query, self._limits)
        frame = caller.metered(frame)
        answer = self._predictor.predict(frame, query.options(), deadline_s=deadline_s)
        prediction = await _while_connected(receive, answer)
        scope["reppose.timing"] = prediction.timing
        if prediction.picture is None:
            began_s = time.perf_counter()
            media, content = b"application/json", schemas.prediction_json(prediction)
            scope["reppose.encode_s"] = tracing.spent("encode", began_s)
            scope["reppose.model"] = prediction.model, prediction.version
        else:
            media, content = b"image/png", prediction.picture
        headers = [(b"content-type", media), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _while_connected(receive: Receive, answer: Coroutine[Any, Any, Prediction]) -> Prediction:
    """Predict; a client that hangs up meanwhile takes its frame out of the queue. Raises ClientDisconnect."""
    asking = asyncio.current_task()
    hung_up = False

    def cancel(gone: asyncio.Task[Any]) -> None:
        nonlocal hung_up
        if not gone.cancelled() and not answered:
            hung_up = True
            asking.cancel()

    answered = False
    gone = asyncio.ensure_future(receive())  # after the body, the next message is that the client left
    gone.add_done_callback(cancel)
    try:
        return await answer
    except asyncio.CancelledError:
        if hung_up and not asking.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        answered = True
        gone.cancel()
