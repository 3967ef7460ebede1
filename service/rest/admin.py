"""What an operator may ask over HTTP. Not there at all unless the settings allow it, and then for the role admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from model_zoo.errors import ModelZooError
from service.errors import ServiceError
from service.registry import Registry
from service.rest import examples, schemas

RELOAD_FAILED = "reload_failed"


def build(registry: Registry, reload: Callable[[], Awaitable[None]]) -> APIRouter:
    """The routes of an operator.

    Args:
        registry: what is served.
        reload: reads the bundles again, and raises where that fails.
    """
    router = APIRouter()

    @router.post(
        "/v1/admin/reload",
        name="reload",
        tags=["operation"],
        summary="Read the folders of bundles again",
        response_model=schemas.ModelsResponse,
        responses={
            409: {
                "model": schemas.ErrorResponse,
                "description": f"`{RELOAD_FAILED}`",
                "content": examples.errors(RELOAD_FAILED),
            },
            **schemas.refusals(),
        },
    )
    async def reload_models(request: Request) -> Response:
        """As SIGHUP does: new models take over when they are warm, no request is dropped, and where a bundle is
        broken everything stays as it was. Answers when it is done, with what is served now.

            curl -X POST -H "Authorization: Bearer $TOKEN" http://localhost:8000/v1/admin/reload
        """
        try:
            await reload()
        except (ServiceError, ModelZooError) as error:
            request.scope["reppose.outcome"] = RELOAD_FAILED
            content = schemas.error_json(RELOAD_FAILED, str(error))
            return Response(content, 409, media_type="application/json")
        return Response(schemas.models(registry).model_dump_json(), media_type="application/json")

    return router
