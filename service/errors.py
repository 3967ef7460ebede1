"""What can go wrong while serving. These classes know no transport; `status.py` does.

The text of such an error is written for the client: it says what is wrong and what would be right, and quotes what the
client sent only through `repr`.
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidRequest(ServiceError):
    """A request that cannot be understood; `field` names the part that is wrong."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidBoxes(ServiceError):
    """Boxes that are malformed, without area, outside of the frame, or too many."""


class InvalidImage(ServiceError):
    """Bytes that are no image of a known format, or a broken one."""


class ImageTooLarge(ServiceError):
    """An image with more bytes or pixels than the service takes."""


class UnsupportedMedia(ServiceError):
    """A body that is declared to be something else than an image."""


class UnknownModel(ServiceError):
    """No model of this name and version is served."""


class UnknownSession(ServiceError):
    """No session of this name belongs to this client; it may have been idle for too long."""


class SessionConflict(ServiceError):
    """Somebody else continued the session at the same time."""


class BrokenSession(ServiceError):
    """What was kept of a session cannot be read: it is damaged, or of another version of the service."""


class InvalidToken(ServiceError):
    """A resume token that is damaged, expired, or not this client's."""


class StoreUnavailable(ServiceError):
    """The store of the sessions does not answer."""


class Overloaded(ServiceError):
    """The queue is full; a later attempt may succeed."""


class DeadlineExceeded(ServiceError):
    """The client's deadline has passed, or would have before the answer."""


class Unauthenticated(ServiceError):
    """A request without a credential, or with one that is none; `sent` tells the two apart."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class PermissionDenied(ServiceError):
    """A good credential that lacks the role that a request needs."""


class RateLimited(ServiceError):
    """This client has asked for more than its share; trying again after `retry_after_s` may succeed."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ServiceError):
    """The service starts or stops."""


class WorkerLost(ServiceError):
    """The worker that had the request hangs or died; another took its place, but not this request."""


class StartupError(ServiceError):
    """The service cannot start: a port is taken, a model is missing or broken."""


class BadCredentialFile(StartupError):
    """A file of keys that cannot be read, or says what cannot be."""
