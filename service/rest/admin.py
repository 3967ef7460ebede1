"""What an operator may ask over HTTP. Not there at all unless the settings allow it, and then only with their token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from model_zoo.errors import ModelZooError
from service.errors import ServiceError
from service.registry import Registry
from service.rest import examples, schemas

RELOAD_FAILED = "reload_failed"

_HEADER = {
    "name": "Authorization",
    "in": "header",
    "required": True,
    "description": "`Bearer` and the token of the settings.",
    "schema": {"type": "string"},
}


def build(registry: Registry, reload: Callable[[], Awaitable[None]], token: str) -> APIRouter:
    """The routes of an operator.

    Args:
        registry: what is served.
        reload: reads the bundles again, and raises where that fails.
        token: what a request must show; ASCII.
    """
    router = APIRouter()

    @router.post(
        "/v1/admin/reload",
        name="reload",
        tags=["operation"],
        summary="Read the folders of bundles again",
        response_model=schemas.ModelsResponse,
        responses={
            http: {
                "model": schemas.ErrorResponse,
                "description": f"`{code}`",
                "content": examples.errors(code),
            }
            for http, code in ((401, "unauthorized"), (409, RELOAD_FAILED))
        },
        openapi_extra={"parameters": [_HEADER]},
    )
    async def reload_models(request: Request) -> Response:
        """As SIGHUP does: new models take over when they are warm, no request is dropped, and where a bundle is
        broken everything stays as it was. Answers when it is done, with what is served now.

            curl -X POST -H "Authorization: Bearer $TOKEN" http://localhost:8000/v1/admin/reload
        """
        sent = request.headers.get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        try:
            await reload()
        except (ServiceError, ModelZooError) as error:
            request.scope["reppose.outcome"] = RELOAD_FAILED
            content = schemas.error_json(RELOAD_FAILED, str(error))
            return Response(content, 409, media_type="application/json")
        return Response(schemas.models(registry).model_dump_json(), media_type="application/json")

    return router
