"""A stream and who sends it: let in once more with every frame, so that what was revoked or has expired ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from service.auth.guard import Caller
from service.errors import RateLimited
from service.streams.contract import StreamFrame
from service.types import Frame


class Visit:
    """One open stream, as `with`, which raises RateLimited where the client has enough streams open.

    Args:
        admit: the client as it is now; raises where it may no longer ask.
        patient: a sender whose frames all count: what is too much is not refused but held up.
    """

    def __init__(self, admit: Callable[[], Caller], *, patient: bool = False) -> None:
        self._admit, self._patient = admit, patient
        self._opened = self._caller = admit()

    @property
    def owner(self) -> str:
        """Of its session."""
        return self._opened.owner

    async def let_in(self, sent: StreamFrame) -> StreamFrame:
        """The next frame of a stream with a config; one too many becomes its error. Raises as `turn` does."""
        try:
            await self.turn()
        except RateLimited as error:
            return replace(sent, error=sent.error or error)
        frame = self.metered(sent.frame)
        return sent if frame is sent.frame else replace(sent, frame=frame)

    def metered(self, frame: Frame) -> Frame:
        """The frame, whose pixels this client pays for."""
        account = self._caller.account
        if not account.counts_pixels:
            return frame
        return replace(frame, meter=account.lend_pixels if self._patient else account.pixels)

    async def turn(self) -> None:
        """Wait or ask for the turn of one more frame.

        Raises:
            RateLimited: it is one too many.
            Unauthenticated, PermissionDenied: the client may no longer ask; ends the stream.
        """
        self._caller = self._admit()
        if not self._patient:
            self._caller.account.frame()
        elif (wait_s := self._caller.account.lend_frame()) > 0:
            await asyncio.sleep(wait_s)

    def __enter__(self) -> Visit:
        """The stream begins."""
        self._opened.account.open_stream()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The stream has ended."""
        self._opened.account.close_stream()
