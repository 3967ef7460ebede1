"""The one table from an error's class to its stable code and its HTTP and gRPC status."""

from __future__ import annotations

from http import HTTPStatus as Http
from typing import NamedTuple

from grpc import StatusCode as Grpc

from model_zoo import errors as zoo
from service import errors, outcomes


class Status(NamedTuple):
    """How one class of error looks from outside."""

    code: str
    """Stable name, for programs; also the `outcome` in the metrics."""
    http: Http
    grpc: Grpc
    field: str | None = None
    """The part of the request that such an error is about."""


OK, CLIENT_GONE = outcomes.OK, outcomes.CLIENT_GONE
"""The `outcome` of requests without an error."""

INTERNAL = Status(outcomes.INTERNAL, Http.INTERNAL_SERVER_ERROR, Grpc.INTERNAL)

STATUS: dict[type[Exception], Status] = {
    errors.ServiceError: INTERNAL,
    errors.InvalidRequest: Status("invalid_request", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT),
    errors.InvalidBoxes: Status("invalid_boxes", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "boxes"),
    errors.InvalidImage: Status("invalid_image", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "image"),
    errors.ImageTooLarge: Status(
        "image_too_large", Http.REQUEST_ENTITY_TOO_LARGE, Grpc.INVALID_ARGUMENT, "image"
    ),
    errors.UnsupportedMedia: Status(
        "unsupported_media", Http.UNSUPPORTED_MEDIA_TYPE, Grpc.INVALID_ARGUMENT, "image"
    ),
    errors.UnknownModel: Status("unknown_model", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "model"),
    errors.UnknownSession: Status("unknown_session", Http.NOT_FOUND, Grpc.NOT_FOUND, "session"),
    errors.SessionConflict: Status("session_conflict", Http.CONFLICT, Grpc.ABORTED, "session"),
    errors.BrokenSession: Status("broken_session", Http.CONFLICT, Grpc.ABORTED, "session"),
    errors.InvalidToken: Status(
        "invalid_token", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "resume_token"
    ),
    errors.StoreUnavailable: Status("store_unavailable", Http.SERVICE_UNAVAILABLE, Grpc.UNAVAILABLE),
    errors.Overloaded: Status("overloaded", Http.TOO_MANY_REQUESTS, Grpc.RESOURCE_EXHAUSTED),
    errors.DeadlineExceeded: Status("deadline_exceeded", Http.GATEWAY_TIMEOUT, Grpc.DEADLINE_EXCEEDED),
    errors.Unauthenticated: Status("unauthenticated", Http.UNAUTHORIZED, Grpc.UNAUTHENTICATED),
    errors.PermissionDenied: Status("permission_denied", Http.FORBIDDEN, Grpc.PERMISSION_DENIED),
    errors.RateLimited: Status("rate_limited", Http.TOO_MANY_REQUESTS, Grpc.RESOURCE_EXHAUSTED),
    errors.NotReady: Status("not_ready", Http.SERVICE_UNAVAILABLE, Grpc.UNAVAILABLE),
    errors.WorkerLost: INTERNAL,
    errors.StartupError: INTERNAL,
    errors.BadCredentialFile: INTERNAL,
    zoo.ModelZooError: INTERNAL,
    zoo.SkeletonError: INTERNAL,
    zoo.GeometryError: Status("invalid_boxes", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "boxes"),
    zoo.HeatmapError: INTERNAL,
    zoo.UnknownDecoder: Status(
        "unknown_decoder", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "decoder"
    ),
    zoo.ManifestError: INTERNAL,
    zoo.BundleNotFound: Status("unknown_model", Http.UNPROCESSABLE_ENTITY, Grpc.INVALID_ARGUMENT, "model"),
    zoo.BundleExists: INTERNAL,
    zoo.BundleCorrupt: INTERNAL,
}

RETRY_AFTER_S = 1
"""How long a client should wait before it tries again, where trying again makes sense."""


MAX_MESSAGE = 1000
"""Longest message for a client, in characters; gRPC sends it as a header."""


class Report(NamedTuple):
    """What a client is told about an error."""

    status: Status
    message: str
    field: str | None
    retry_after_s: float | None = None
    """When trying again may make sense, where that is known."""
    challenge: str | None = None
    """Why a credential was refused, in the words of RFC 6750, section 3.1; empty where none was sent."""


def status_of(error: BaseException) -> Status:
    """The row of the error's nearest listed base; anything else is internal."""
    return next((STATUS[base] for base in type(error).__mro__ if base in STATUS), INTERNAL)


def report(error: BaseException) -> Report:
    """Put an error into words for the client; those of an internal one stay in the log."""
    status = status_of(error)
    if status is INTERNAL:
        return Report(status, "the service failed to answer; its log says why", None)
    challenge = None
    if isinstance(error, errors.Unauthenticated):
        challenge = "invalid_token" if error.sent else ""
    elif isinstance(error, errors.PermissionDenied):
        challenge = "insufficient_scope"
    return Report(
        status,
        str(error)[:MAX_MESSAGE],
        getattr(error, "field", None) or status.field,
        getattr(error, "retry_after_s", None),
        challenge,
    )
