"""`/metrics`, on the REST listener or on one of its own."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.rest import schemas

_TEXT = {"schema": {"type": "string"}}
_MEDIA = ("text/plain", "application/openmetrics-text")


def build(collectors: CollectorRegistry) -> APIRouter:
    """The route over these collectors."""
    router = APIRouter()

    @router.get(
        "/metrics",
        name="metrics",
        tags=["operation"],
        summary="Prometheus metrics",
        responses={200: {"content": {media: _TEXT for media in _MEDIA}}, **schemas.refusals()},
        response_class=Response,  # that of a text would have the errors be texts
    )
    async def metrics(request: Request) -> Response:
        """The series of `service/metrics.py` in the text format of Prometheus, or with
        `Accept: application/openmetrics-text` in that of OpenMetrics, which tells an example's trace for each bucket.
        """
        encode, media = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(collectors), media_type=media)

    return router
