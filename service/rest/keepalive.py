"""uvicorn's WebSocket, but a client that is held up is not taken for one that is gone.

uvicorn asks by a ping whether somebody is there, and hangs up where no pong comes in time. Of a client that sends
faster than its frames are computed nothing more is read, so that TCP holds it up; its pong then waits behind its
frames, for as long as those take.
"""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class PatientWebSocket(WebSocketsSansIOProtocol):
    """For `uvicorn.Config(ws=...)`: hangs up where nothing at all was heard, though the service listened."""

    _heard_s = 0.0

    def data_received(self, data: bytes) -> None:
        self._heard_s = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        if self.read_paused or self.loop.time() - self._heard_s < self.ping_timeout:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()
