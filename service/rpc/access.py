"""Who asks over gRPC: an interceptor that holds every call against `auth.roles`.

A credential is the bearer token of the metadata `authorization`. The interceptor answers for every service of the
server, those of other packages as well; what it found out goes to the service in context variables, which the task of
the call has to itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc

from service.auth import roles
from service.auth.guard import NOBODY_IN_PARTICULAR, Caller, Guard
from service.auth.roles import Role
from service.auth.visit import Visit
from service.errors import ServiceError
from service.rpc import metadata

_BEARER = "bearer "
_admit: ContextVar[Callable[[str], Caller] | None] = ContextVar("reppose_admit", default=None)
_name: ContextVar[str] = ContextVar("reppose_client", default="")


def client() -> dict[str, str]:
    """Who asks, as a fact for the log; nothing where everybody may."""
    return {"client": name} if (name := _name.get()) else {}


def credential(sent: Any) -> str | None:
    """What a call was sent with; None where that is nothing."""
    for name, value in sent or ():
        if name == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return None


def address(peer: str) -> str:
    """The IP address in what gRPC says of a peer: `ipv4:192.0.2.1:5000`, `ipv6:%5B2001:db8::1%5D:5000`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")


def caller(context: grpc.aio.ServicerContext) -> Caller:
    """Who asks, as it is now. Raises Unauthenticated, PermissionDenied."""
    admit = _admit.get()
    return NOBODY_IN_PARTICULAR if admit is None else admit(context.peer())


def visit(context: grpc.aio.ServicerContext, *, patient: bool) -> Visit:
    """Of a stream. Raises as `caller` does."""
    return Visit(lambda: caller(context), patient=patient)


class Access(grpc.aio.ServerInterceptor):
    """Lets in whom the guard lets in.

    Args:
        guard: who may ask.
        refused: told service, call and code of every refusal.
    """

    def __init__(self, guard: Guard, refused: Callable[[str, str, str], None]) -> None:
        self._guard, self._refused = guard, refused

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a call, or one that refuses it; None for a call that there is not."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        try:
            if service not in roles.GRPC:
                raise self._guard.undeclared()
            role = roles.GRPC[service]
            if role is not roles.OPEN:
                self._let_in(credential(handler_call_details.invocation_metadata), role)
        except ServiceError as error:
            return self._refusal(error, service, method)
        return handler

    def _let_in(self, sent: str | None, role: Role) -> None:
        guard = self._guard

        def admit(peer: str) -> Caller:
            return guard.admit(sent, role, address(peer))

        if not guard.is_open(role):
            _name.set(admit("").name)
        _admit.set(admit)

    def _refusal(self, error: ServiceError, service: str, method: str) -> grpc.RpcMethodHandler:
        """On the wire a stream of messages may be one, so that this suits every call; it reads none of them."""
        told = metadata.report(error)

        async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
            request_id = metadata.begin(context)
            self._refused(service, method, told.status.code)
            await metadata.abort(context, told, request_id)

        return grpc.stream_stream_rpc_method_handler(refuse)
