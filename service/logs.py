"""Log lines on stderr: JSON for programs or text for people, each with the ids of its request and of its trace.

Lines about requests are written together, a moment later: each write would have the event loop wait for the workers to
let go of the interpreter. Any other line is written at once, after those that were held.

What a client sent is not written: no image, no query, no header, no token. Of a path that is served the route stands
there, of any other its beginning.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import random
import re
import sys
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

import orjson

from service import tracing

log = logging.getLogger("reppose")

HELD_S = 0.05
"""Longest that a line about a request is held."""
MOST_HELD = 256
"""Lines that are held."""

_as_json = False
_held: deque[str] = deque()
_awaited: asyncio.AbstractEventLoop | None = None
"""The event loop that will write what is held."""
_ids = random.Random()
"""Of requests: no secrets, and asking the system for each takes longer than making it."""
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def begin_request(sent: str | None) -> str:
    """Give the request that this task works on an id: the client's own where it is well-formed, else a new one."""
    request_id = sent if sent and _WELL_FORMED_ID.fullmatch(sent) else f"{_ids.getrandbits(128):032x}"
    _request_id.set(request_id)
    return request_id


def facts(**fields: object) -> dict[str, dict[str, object]]:
    """Named facts for a log line: `log.info("ready", extra=facts(port=8000))`."""
    return {"facts": fields}


def request(**fields: object) -> None:
    """A line about a request that ended: `log.info("request", extra=facts(...))` for less processor time."""
    if not log.isEnabledFor(logging.INFO):
        return
    if _as_json:
        _hold(_json_line(datetime.now(UTC), "info", log.name, "request", fields))
    else:
        log.info("request", extra=facts(**fields))


def configure(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Send all log lines and Python warnings to stderr; `auto` is text on a terminal and JSON elsewhere."""
    global _as_json
    _as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler = _Stderr()
    handler.setFormatter(_JsonFormatter() if _as_json else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(level.upper())
    logging.captureWarnings(True)
    logging.getLogger("uvicorn.error").addFilter(_is_no_false_alarm)
    # What no line of ours shows need not be found out for each (Logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = logging.logAsyncioTasks = False


def _hold(text: str) -> None:
    """Write a line with others, on the event loop of this thread; at once where there is none."""
    global _awaited
    _held.append(text)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is None or len(_held) >= MOST_HELD:
        flush()
    elif loop is not _awaited:
        _awaited = loop
        loop.call_later(HELD_S, flush)


@atexit.register
def flush() -> None:
    """Write what is held. May be called from any thread."""
    global _awaited
    _awaited = None
    lines = []
    with contextlib.suppress(IndexError):
        while True:
            lines.append(_held.popleft())
    if lines:
        _write("\n".join(lines))


def _write(text: str) -> None:
    """To what `sys.stderr` is at the time; a full disk or a closed terminal must not end a request."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")


def _json_line(
    moment: datetime, level: str, logger: str, message: str, fields: Mapping[str, object], traceback: str = ""
) -> str:
    line = {
        "time": moment.isoformat(timespec="milliseconds"),
        "level": level,
        "logger": logger,
        "message": message,
        **fields,
    }
    if request_id := _request_id.get():
        line["request_id"] = request_id
    if (trace := tracing.current()) is not None:
        line["trace_id"], line["span_id"] = trace.id, trace.span_id
    if traceback:
        line["traceback"] = traceback
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # text that is no Unicode, or a number beyond 64 bits
        return json.dumps(line, default=str)


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """uvicorn takes a WebSocket that was refused with an answer for a fault; the line of the request tells of it."""
    return record.msg != "ASGI callable returned without completing handshake."


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # a message that does not fit its arguments
            self.handleError(record)
        else:
            flush()
            _write(text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _json_line(
            datetime.fromtimestamp(record.created, UTC),
            record.levelname.lower(),
            record.name,
            record.getMessage(),
            getattr(record, "facts", {}),
            self.formatException(record.exc_info) if record.exc_info else "",
        )


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "facts", {}).items())
        text = f"{moment} {record.levelname.lower():7} {record.getMessage()}  {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
