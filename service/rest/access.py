"""Who asks over HTTP and WebSocket: finds the credential in a request and holds its route against `auth.roles`.

A credential is the bearer token of the header `Authorization`. Browsers cannot set headers of a WebSocket: their pages
offer it as a subprotocol, `reppose.bearer.<credential>`, beside `reppose.v1`, which is what the service picks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from service.auth import roles
from service.auth.guard import NOBODY_IN_PARTICULAR, Caller, Guard
from service.auth.roles import Role
from service.auth.visit import Visit

PROTOCOL = "reppose.v1"
"""The subprotocol of the WebSocket; a browser that offers several wants one of them picked."""
BEARER_PROTOCOL = "reppose.bearer."
_CALLER, _ADMIT = "reppose.caller", "reppose.admit"
_BEARER = b"bearer "


def credential(scope: Scope) -> str | None:
    """What a request was sent with; None where that is nothing."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip().decode("latin-1")
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(BEARER_PROTOCOL):
            return offered[len(BEARER_PROTOCOL) :]
    return None


def admit(guard: Guard, scope: Scope, role: Role) -> Caller:
    """Who asks, which `caller` tells from now on. Raises Unauthenticated, PermissionDenied."""
    client = scope.get("client")
    found = scope[_CALLER] = guard.admit(credential(scope), role, client[0] if client else "")
    return found


def caller(scope: Scope) -> Caller:
    """Who asks."""
    return scope.get(_CALLER, NOBODY_IN_PARTICULAR)


def visit(scope: Scope, *, patient: bool) -> Visit:
    """For a WebSocket: its stream."""
    again: Callable[[], Caller] = scope.get(_ADMIT, lambda: NOBODY_IN_PARTICULAR)
    return Visit(again, patient=patient)


def dependency(guard: Guard) -> Callable[[HTTPConnection], Awaitable[None]]:
    """Of every route: lets in whom its role lets in, and counts a request.

    Raises:
        Unauthenticated, PermissionDenied, RateLimited.
    """

    async def let_in(connection: HTTPConnection) -> None:
        scope = connection.scope
        name = getattr(scope.get("route"), "name", None)
        if name not in roles.HTTP:
            raise guard.undeclared()
        role = roles.HTTP[name]
        if role is roles.OPEN:
            return
        found = admit(guard, scope, role)
        if scope["type"] == "websocket":
            scope[_ADMIT] = lambda: admit(guard, scope, role)
        elif role is Role.PREDICT:
            found.account.frame()

    return let_in


def describe(document: dict[str, Any]) -> None:
    """Write into an OpenAPI document, whose operations have the names of their routes, which may need a credential."""
    document.setdefault("components", {})["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, or a token of the identity provider, where the service asks for credentials.",
        }
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            if roles.HTTP.get(operation["operationId"]) is not roles.OPEN:
                operation["security"] = [{"bearer": []}, {}]
