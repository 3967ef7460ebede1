"""How long a call may take to begin: an interceptor that gives up those whose first message does not come.

gRPC reads the message of a unary call before it asks anybody, for as long as that takes, so that a client could leave
calls half sent for ever. On the wire one message is a stream of one; as such it is read here, in time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from service.errors import DeadlineExceeded
from service.rpc import metadata


def late(which: str, seconds: float) -> DeadlineExceeded:
    """That a message has not come."""
    return DeadlineExceeded(f"the {which} message did not come within {seconds:g} s")


class Patience(grpc.aio.ServerInterceptor):
    """Waits for messages, but not for ever.

    Args:
        message_s: how long the message of a unary call may take.
        refused: told `message_time` when one was given up.
    """

    def __init__(self, message_s: float, refused: Callable[[str], None] = lambda reason: None) -> None:
        self._message_s, self._refused = message_s, refused
        self._patient: dict[str, tuple[grpc.RpcMethodHandler, grpc.RpcMethodHandler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The same handler, which waits as long as it may."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        method = handler_call_details.method
        known = self._patient.get(method)
        if known is None or known[0] is not handler:
            known = self._patient[method] = (handler, self._made(handler))
        return known[1]

    def _made(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        if handler.response_streaming:
            make, patient = grpc.stream_stream_rpc_method_handler, self._streamed(handler.unary_stream)
        else:
            answer = handler.unary_unary

            async def unary(_: Any, context: grpc.aio.ServicerContext) -> Any:
                return await answer(await self._message(context), context)

            make, patient = grpc.stream_unary_rpc_method_handler, unary
        return make(patient, handler.request_deserializer, handler.response_serializer)

    def _streamed(self, answers: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(answers):  # it writes to the context

            async def write(_: Any, context: grpc.aio.ServicerContext) -> None:
                await answers(await self._message(context), context)

            return write

        async def stream(_: Any, context: grpc.aio.ServicerContext) -> Any:
            async for answer in answers(await self._message(context), context):
                yield answer

        return stream

    async def _message(self, context: grpc.aio.ServicerContext) -> Any:
        try:
            async with asyncio.timeout(self._message_s):
                message = await context.read()
        except TimeoutError:
            self._refused("message_time")
            error = late("first", self._message_s)
            await metadata.abort(context, metadata.report(error), metadata.begin(context))
        if message is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INTERNAL, "the call ended without a message")
        return message
