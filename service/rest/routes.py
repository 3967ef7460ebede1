"""The paths of the REST service, and what its documentation says of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from service.health import Readiness
from service.images import FORMATS
from service.registry import Registry
from service.rest import body, examples, pose, schemas
from service.status import STATUS

_BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGES = {
    **{f"image/{each.lower()}": _BINARY for each in FORMATS},
    "application/octet-stream": _BINARY,
    body.PIXELS: _BINARY,
}
"""An image as the body of a request."""
_POSE_BODY = {
    "required": True,
    "content": {
        **IMAGES,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {"type": "string", "format": "binary"},
                    **schemas.PoseQuery.model_json_schema()["properties"],
                },
            }
        },
    },
}
TIMEOUT_PARAMETER = {
    "name": body.TIMEOUT,
    "in": "header",
    "description": "Milliseconds from the arrival of the request after which the answer is of no use. A request that "
    "cannot be answered in time is refused at once, one that was not is answered then: both `deadline_exceeded`.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": body.LONGEST_TIMEOUT_MS},
}
_POSE_ERRORS = {
    int(http): {
        "model": schemas.ErrorResponse,
        "description": ", ".join(f"`{code}`" for code in sorted(codes)),
        "content": examples.errors(*codes),
    }
    for rows in [{row for row in STATUS.values() if row.code in examples.ERRORS}]
    for http in sorted({row.http for row in rows})
    for codes in [{row.code for row in rows if row.http == http}]
}


def build(
    registry: Registry,
    readiness: Readiness,
) -> APIRouter:
    """All routes over these objects; that of the poses only for the documentation, `rest.pose` answers it."""
    router = APIRouter()

    @router.post(
        pose.PATH,
        name=pose.NAME,
        tags=["poses"],
        summary="Find the poses in an image",
        response_model=schemas.PoseResponse,
        responses={
            200: {
                "content": {"image/png": {}, "application/json": {"examples": examples.POSES}},
                "description": "The poses, or the picture",
            },
            **_POSE_ERRORS,
        },
        openapi_extra={"requestBody": _POSE_BODY, "parameters": [TIMEOUT_PARAMETER]},
    )
    async def documented(query: Annotated[schemas.PoseQuery, Query()]) -> Response:
        """Send an image as the body (or as the file `image` of a multipart form) and get one pose per box.

        Without boxes the service finds one person itself; `box_source` in the answer says how. Coordinates are
        pixels of the image as sent, after its EXIF orientation was applied; (0, 0) is the centre of the top-left
        pixel. Transparent images are laid over black; an animation counts by its first frame. Pixels that are not
        encoded at all are sent as `application/x-raw-rgb; width=192; height=256`: rows from the top, 3 bytes RGB each.

            curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' 'http://localhost:8000/v1/pose'
        """
        raise AssertionError("rest.pose answers this path")

    @router.get(
        "/v1/models",
        name="models",
        tags=["models"],
        summary="What can be asked for",
        responses={
            503: {
                "model": schemas.ErrorResponse,
                "description": "`not_ready`",
                "content": examples.errors("not_ready"),
            },
            **schemas.refusals(limited=True),
        },
    )
    async def models() -> schemas.ModelsResponse:
        """The models with their keypoints and bones, and the decoders."""
        return schemas.models(registry)

    @router.get("/healthz/live", name="live", tags=["operation"], summary="Whether the process works")
    async def live() -> schemas.HealthResponse:
        """Always 200; restart a service that does not answer."""
        return schemas.HealthResponse(status="live")

    @router.get(
        "/healthz/ready",
        name="ready",
        tags=["operation"],
        summary="Whether requests are welcome",
        response_model=schemas.HealthResponse,
        responses={503: {"model": schemas.HealthResponse, "description": "Starting or stopping"}},
    )
    async def ready() -> Response:
        """200 when requests are welcome; 503 with the reason while the service starts or stops."""
        state = schemas.HealthResponse(
            status="ready" if readiness.ready else "not_ready", reason=readiness.reason
        )
        return JSONResponse(state.model_dump(), status_code=200 if readiness.ready else 503)

    return router
