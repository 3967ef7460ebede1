"""A stream and who sends it: let in once more with every frame, so that what was revoked or has expired ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from service.auth.guard import Caller
from service.types import Frame


class Visit:
    """One open stream, as `with`.

    Args:
        admit: the client as it is now; raises where it may no longer ask.
        patient: a sender of a file: what is too much is not refused but made to wait.

    Raises:
        RateLimited: the client has enough streams open.
    """

    def __init__(self, admit: Callable[[], Caller], *, patient: bool = False) -> None:
        self._admit = admit
        self.patient = patient
        self._account = admit().account

    @property
    def owner(self) -> str:
        """Of its session."""
        return self._admit().owner

    async def frame(self, frame: Frame) -> Frame:
        """Let a frame in, and say to whom its pixels go.

        Raises:
            RateLimited: it is one too many.
            Unauthenticated, PermissionDenied: the client may no longer ask.
        """
        account = self._admit().account
        if self.patient:
            if (wait_s := account.lend_frame()) > 0:
                await asyncio.sleep(wait_s)
            meter = account.lend_pixels
        else:
            account.frame()
            meter = account.pixels
        return replace(frame, meter=meter) if account.counts_pixels else frame

    def __enter__(self) -> Visit:
        """The stream begins."""
        self._account.open_stream()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The stream has ended."""
        self._account.close_stream()
