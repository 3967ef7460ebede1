"""Log lines on stderr: JSON for programs or text for people, each with the id of its request."""

from __future__ import annotations

import logging
import re
import sys
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

import orjson

log = logging.getLogger("reppose")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def begin_request(sent: str | None) -> str:
    """Give the request that this task works on an id: the client's own where it is well-formed, else a new one."""
    request_id = sent if sent and _WELL_FORMED_ID.fullmatch(sent) else uuid.uuid4().hex
    _request_id.set(request_id)
    return request_id


def facts(**fields: object) -> dict[str, dict[str, object]]:
    """Named facts for a log line: `log.info("ready", extra=facts(port=8000))`."""
    return {"facts": fields}


def configure(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Send all log lines and Python warnings to stderr; `auto` is text on a terminal and JSON elsewhere."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = _Stderr()
    handler.setFormatter(_TextFormatter() if as_text else _JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(level.upper())
    logging.captureWarnings(True)
    # What no line of ours shows need not be found out for each (Logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = logging.logAsyncioTasks = False


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # a full disk or a closed terminal must not end a request
            self.handleError(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if request_id := _request_id.get():
            line["request_id"] = request_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "facts", {}).items())
        text = f"{moment} {record.levelname.lower():7} {record.getMessage()}  {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
