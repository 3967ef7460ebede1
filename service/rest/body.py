"""Read the body of a request: an image as it is, or a multipart form, never more of it than the limits allow."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Iterable, Sequence

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import InvalidRequest, UnsupportedMedia
from service.images import ImageLimits
from service.rest.schemas import PoseQuery
from service.types import Frame

TIMEOUT = "X-Request-Timeout-Ms"
LONGEST_TIMEOUT_MS = 3_600_000
FORM_ROOM_BYTES = 64 * 1024
"""What a multipart body may hold beside the image, and the longest of its fields."""

PIXELS = "application/x-raw-rgb"
"""Media type of bare pixels; its parameters are `width` and `height`."""

_SIDE_DIGITS = 8
_MAX_FIELDS = len(PoseQuery.model_fields)


def deadline(request: Request) -> float:
    """When the client will no longer want its answer, by `time.monotonic`; infinity where it did not say.

    Raises:
        InvalidRequest: the header is no number of milliseconds within its bounds.
    """
    sent = request.headers.get(TIMEOUT)
    if sent is None:
        return math.inf
    try:
        timeout_ms = float(sent)
    except ValueError:
        timeout_ms = math.nan
    if not 0 < timeout_ms <= LONGEST_TIMEOUT_MS:
        raise InvalidRequest(
            f"{TIMEOUT} must be a number of milliseconds up to {LONGEST_TIMEOUT_MS}", field=TIMEOUT
        )
    return time.monotonic() + timeout_ms / 1e3


async def read(request: Request, query: PoseQuery, limits: ImageLimits) -> tuple[Frame, PoseQuery]:
    """The image, and the query completed by the fields of a form; a query value wins over a field.

    Raises:
        UnsupportedMedia: the body is declared to be something else, or compressed.
        ImageTooLarge: it is longer than the limits; noticed before it is read, or as soon as it has grown too long.
        InvalidRequest: a multipart body that is malformed, or lacks the image; bare pixels of unknown size.
    """
    headers = request.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMedia("send the body without a Content-Encoding")
    media, _, parameters = headers.get("content-type", "application/octet-stream").partition(";")
    media = media.strip().lower()
    if media == "multipart/form-data":
        return await _read_form(request, query, limits)
    if media.startswith("image/") or media == "application/octet-stream":
        return Frame(await _read_raw(request, limits)), query
    if media == PIXELS:
        size = _pixels_size(parameters)
        return Frame(await _read_raw(request, limits), size), query
    raise UnsupportedMedia(
        f"send the image as it is with Content-Type image/jpeg (or the like), as the file `image` "
        f"of multipart/form-data, or bare pixels as {PIXELS}; not {media[:80]!r}"
    )


def _pixels_size(parameters: str) -> tuple[int, int]:
    """(height, width) from `width=192; height=256`."""
    given = dict(part.strip().lower().partition("=")[::2] for part in parameters.split(";"))
    sides = [given.get(name, "") for name in ("height", "width")]
    if not all(side.isascii() and side.isdigit() and len(side) < _SIDE_DIGITS for side in sides):
        raise InvalidRequest(
            f"bare pixels need their size: {PIXELS}; width=192; height=256", field="Content-Type"
        )
    height, width = map(int, sides)
    return height, width


async def _read_raw(request: Request, limits: ImageLimits) -> bytes:
    body = bytearray()
    async for chunk in _at_most(request, limits, room=0):
        body += chunk
    return bytes(body)


async def _read_form(request: Request, query: PoseQuery, limits: ImageLimits) -> tuple[Frame, PoseQuery]:
    parser = MultiPartParser(
        request.headers,
        _at_most(request, limits, room=FORM_ROOM_BYTES),
        max_files=1,
        max_fields=_MAX_FIELDS,
        max_part_size=FORM_ROOM_BYTES,
    )
    parser.spool_max_size = limits.bytes + FORM_ROOM_BYTES  # the limit holds in memory; nothing goes to disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"the multipart body is malformed: {error.message}") from error
    except (ValueError, LookupError) as error:  # charsets and headers that the parser trips over
        raise InvalidRequest("the multipart body is malformed") from error
    try:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise InvalidRequest("the form must hold the image as the file `image`", field="image")
        data = await image.read()
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    finally:
        await form.close()
    limits.check_bytes(len(data))
    return Frame(data), parse_query(fields | query.model_dump(exclude_unset=True))


def parse_query(values: dict[str, object]) -> PoseQuery:
    """Check query values or form fields. Raises InvalidRequest that names the wrong one."""
    try:
        return PoseQuery.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        raise InvalidRequest(*first_fault(faults, ("image", *PoseQuery.model_fields))) from error


def first_fault(faults: Sequence[dict], known: Iterable[str] = ()) -> tuple[str, str | None]:
    """The message and the field of the first of pydantic's findings; `known` are the fields of the form itself."""
    first = faults[0]
    where = [str(part) for part in first["loc"] if part not in ("query", "body")]
    field = where[0].encode("ascii", "backslashreplace").decode()[:64] if where else None
    if first["type"] == "extra_forbidden":
        names = ", ".join(known) if len(where) == 1 else ""
        return "there is no such field" + (f"; known: {names}" if names else ""), field
    return first["msg"], field


async def _at_most(request: Request, limits: ImageLimits, room: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body, as long as they stay within the limit for an image and `room` more bytes."""
    declared = request.headers.get("content-length", "")
    count = int(declared) if declared.isdecimal() else 0
    limits.check_bytes(count - room)
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        limits.check_bytes(count - room)
        yield chunk
