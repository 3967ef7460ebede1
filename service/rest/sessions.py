"""`/v1/sessions/{session}`: video for clients that only have HTTP, one request per frame."""

from __future__ import annotations

import time
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from service import tracing
from service.errors import InvalidRequest, UnknownSession, UnsupportedMedia
from service.images import ImageLimits
from service.rest import access, body, examples
from service.rest import stream_schemas as forms
from service.rest.routes import IMAGES, TIMEOUT_PARAMETER
from service.rest.schemas import ErrorResponse, PoseQuery, Schema, parse_boxes
from service.status import STATUS
from service.streams.contract import MAX_SEQUENCE, StreamConfig, StreamFrame
from service.streams.hub import Hub
from service.streams.store import NAME
from service.types import Options

PATH = "/v1/sessions/{session}"
RESUME = "X-Resume-Token"
_RESUME = {
    "name": RESUME,
    "in": "header",
    "description": "A resume token: continue there, whatever the session holds.",
    "schema": {"type": "string"},
}

Session = Annotated[str, Path(json_schema_extra={"pattern": f"^{NAME.pattern}$"})]
"""Its form is told here, and looked at where all names of sessions are."""


class FrameQuery(Schema):
    """One frame of a session, and what the session is; the latter counts where it begins, and must not say anything
    else later."""

    sequence: int | None = Field(None, ge=0, le=MAX_SEQUENCE)
    """The client's number of the frame; must rise."""
    timestamp_s: float | None = None
    """When the frame was taken, in seconds on a clock of the client's; must rise. The time of arrival where it is left
    out."""
    boxes: str | None = Field(None, examples=["[[120, 40, 200, 400]]"])
    """As of `/v1/pose`; without, people are looked for where they must be by now."""
    compare: bool = False
    """As of `/v1/pose`."""
    heatmaps: bool = False
    """As of `/v1/pose`."""
    min_presence: float | None = Field(None, ge=0, le=1)
    """As of `/v1/pose`."""
    want_token: bool = False
    """The answer shall hold a resume token."""
    model: str | None = None
    """`name` or `name@version`."""
    decoder: str | None = None
    """How heatmaps become points."""
    smoothing: str | None = Field(None, examples=["one_euro"])
    """`none`, `ema`, `one_euro` (the default), or what a plug-in of the service offers."""
    parameters: str | None = Field(None, examples=['{"min_cutoff": 0.5}'])
    """Settings of the smoother, as a JSON object of numbers."""
    tracking: bool | None = None
    """Look for people where they must be by now. On, unless told otherwise."""

    def config(self, session: str, token: str | None) -> StreamConfig:
        """As the hub takes it. Raises InvalidRequest."""
        return StreamConfig(
            session=session,
            resume_token=token or None,
            model=self.model or None,
            decoder=self.decoder or None,
            smoothing=self.smoothing or None,
            parameters=_numbers(self.parameters) if self.parameters else {},
            tracking=self.tracking,
        )

    def options(self) -> Options:
        """As the hub takes them. Raises InvalidBoxes."""
        boxes = parse_boxes(self.boxes) if self.boxes else None
        return Options(
            boxes=boxes, compare=self.compare, heatmaps=self.heatmaps, min_presence=self.min_presence
        )


def build(hub: Hub, limits: ImageLimits) -> APIRouter:
    """The routes over a hub."""
    router = APIRouter(tags=["video"])

    @router.post(
        PATH + "/frames",
        name="frames",
        summary="Find the poses in the next frame of a video",
        response_model=forms.TrackedResponse,
        responses={
            200: {"content": {"application/json": {"examples": examples.TRACKED}}},
            **_errors(401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 504),
        },
        openapi_extra={
            "requestBody": {"required": True, "content": IMAGES},
            "parameters": [_RESUME, TIMEOUT_PARAMETER],
        },
    )
    async def frames(session: Session, request: Request, query: Annotated[FrameQuery, Query()]) -> Response:
        """Send a frame as the body, one after the other. The session begins with its first frame, and is forgotten when
        nobody has asked for it for a while.

            curl --data-binary @frame.jpg -H 'Content-Type: image/jpeg' \\
              'http://localhost:8000/v1/sessions/camera-1/frames?sequence=1&timestamp_s=0.033'
        """
        deadline_s = body.deadline(request)
        config, options = query.config(session, request.headers.get(RESUME)), query.options()
        if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
            raise UnsupportedMedia("send the frame as the body, not in a form")
        caller = access.caller(request.scope)
        sent, _ = await body.read(request, PoseQuery(), limits)
        sent = caller.metered(sent)
        frame = StreamFrame(query.sequence or 0, sent, options, query.timestamp_s, query.want_token)
        answer, opened = await hub.frame(
            config, caller.owner, frame, numbered=query.sequence is not None, deadline_s=deadline_s
        )
        request.scope["reppose.timing"] = answer.prediction.timing
        began_s = time.perf_counter()
        content = {"session": forms.opened_json(opened), "sequence": answer.sequence}
        encoded = orjson.dumps(content | forms.tracked_json(answer))
        hub.encoded(answer, tracing.spent("encode", began_s))
        return Response(encoded, media_type="application/json")

    @router.delete(
        PATH,
        name="session",
        summary="Forget a session",
        status_code=204,
        responses=_errors(401, 403, 404, 422, 429, 503),
    )
    async def forget(session: Session, request: Request) -> Response:
        """Forget a session at once; a stream that has it ends."""
        if not await hub.forget(access.caller(request.scope).owner, session):
            raise UnknownSession("there is no session of this name; it may have been idle for too long")
        return Response(status_code=204)

    return router


def _errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    shown = examples.ERRORS | examples.SESSION_ERRORS
    return {
        http: {
            "model": ErrorResponse,
            "description": ", ".join(f"`{code}`" for code in codes),
            "content": examples.errors(*codes),
        }
        for http in statuses
        for codes in [sorted({row.code for row in STATUS.values() if row.http == http and row.code in shown})]
    }


def _numbers(text: str) -> dict[str, float]:
    try:
        found = orjson.loads(text)
    except ValueError:
        found = None
    right = isinstance(found, dict) and all(type(each) in (int, float) for each in found.values())
    if not right:
        raise InvalidRequest(
            'parameters must be a JSON object of numbers, as {"min_cutoff": 0.5}', "parameters"
        )
    return {name: float(value) for name, value in found.items()}
