"""What goes with a call beside its messages: its id, its timing, and what was wrong."""

from __future__ import annotations

from typing import NoReturn

import grpc

from service import logs, status, tracing
from service.logs import log
from service.tracing import TRACEPARENT, TRACERESPONSE, TRACESTATE

REQUEST_ID = "x-request-id"
SERVER_TIMING = "server-timing"
CODE = "reppose-code"
FIELD = "reppose-field"
RETRY_AFTER = "retry-after"
"""Seconds, with up to three digits behind the point; as the header of HTTP, which has none."""


def begin(context: grpc.aio.ServicerContext) -> str:
    """The id of the call: the client's own, or a new one; log lines of this task carry it."""
    sent = next((value for name, value in context.invocation_metadata() or () if name == REQUEST_ID), None)
    return logs.begin_request(sent)


def trace_context(context: grpc.aio.ServicerContext) -> dict[str, str]:
    """What the caller sent of its trace."""
    return {
        name: value
        for name, value in context.invocation_metadata() or ()
        if name in (TRACEPARENT, TRACESTATE) and isinstance(value, str)
    }


def trace_response() -> tuple[tuple[str, str], ...]:
    """Which span answers, where there is one."""
    trace = tracing.current()
    return () if trace is None else ((TRACERESPONSE, trace.response),)


def report(error: Exception) -> status.Report:
    """What the client is told; an error of the service's own goes to the log."""
    told = status.report(error)
    if told.status is status.INTERNAL:
        log.error("failed to answer", exc_info=error)
    return told


async def abort(context: grpc.aio.ServicerContext, told: status.Report, request_id: str) -> NoReturn:
    """End the call with what the client is told."""
    details = [(REQUEST_ID, request_id), (CODE, told.status.code), *trace_response()]
    if told.field:
        details.append((FIELD, told.field))
    if told.retry_after_s is not None:
        details.append((RETRY_AFTER, f"{told.retry_after_s:.3f}"))
    if (trace := tracing.current()) is not None:
        trace.outcome = told.status.code
    await context.abort(told.status.grpc, told.message, tuple(details))
