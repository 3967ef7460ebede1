"""The gRPC listener: the pose service, health and reflection on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.auth.guard import OPEN_TO_ALL, Guard
from service.errors import StartupError
from service.images import ImageLimits
from service.pb.reppose.v1 import pose_pb2, pose_pb2_grpc
from service.predictor import Predictor
from service.rpc.access import Access
from service.rpc.patience import Patience
from service.rpc.servicer import PoseServicer
from service.streams.hub import Hub
from service.watching import Watch

SERVICE = pose_pb2.DESCRIPTOR.services_by_name["PoseService"].full_name

_MESSAGE_ROOM_BYTES = 64 * 1024
"""What a message may hold beside an image of the largest size; a larger image still gets the service's own error."""
_LAST_ANSWER_S = 0.2
"""For the last bytes of the last answers to leave."""
_PONG_S = 20.0
"""How long a client may take to say that it is there."""
_NO_COMPRESSION = 1
"""The set of compressions that holds `identity` alone."""


@dataclass(frozen=True)
class RpcLimits:
    """What connections and calls may take."""

    connections: int = 4096
    calls: int = 1024
    """At a time, over one connection."""
    metadata_bytes: int = 32 * 1024
    handshake_s: float = 10.0
    """Until HTTP/2 is spoken, TLS included."""
    message_s: float = 30.0
    """For the first message of a call."""
    idle_s: float = 60.0
    """Between the messages of a stream without a config; those with one have a hub that looks after them."""
    ping_s: float = 30.0
    keep_alive_s: float = 300.0
    """For a connection without calls."""

    def options(self) -> list[tuple[str, int]]:
        """As gRPC knows them."""
        return [
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_concurrent_streams", self.calls),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.server_handshake_timeout_ms", _ms(self.handshake_s)),
            ("grpc.keepalive_time_ms", _ms(self.ping_s)),
            ("grpc.keepalive_timeout_ms", _ms(_PONG_S)),
            ("grpc.max_connection_idle_ms", _ms(self.keep_alive_s)),
        ]


def _ms(seconds: float) -> int:
    return max(1, round(1e3 * seconds))


class RpcServer:
    """A gRPC server on one port.

    Args:
        predictor: answers frames.
        hub: has the streams with a config.
        watch: hears of every frame.
        limits: on an image's bytes, from which the longest message follows.
        host, port: where to listen; port 0 takes any free one.
        stream_frames: most unanswered frames of one stream.
        guard: who may ask.
        bounds: of connections and calls.
        credentials: for TLS; None for none.
        refused: told the reason when a call was given up.

    Raises:
        StartupError: the port is taken, or the address is not ours.
    """

    def __init__(
        self,
        predictor: Predictor,
        hub: Hub,
        watch: Watch,
        limits: ImageLimits,
        *,
        host: str,
        port: int,
        stream_frames: int,
        guard: Guard = OPEN_TO_ALL,
        bounds: RpcLimits = RpcLimits(),
        credentials: grpc.ServerCredentials | None = None,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:

        def turned_away(service: str, method: str, code: str) -> None:
            counted = method if service == SERVICE else None
            watch.refused("grpc", counted, code, method=method, service=service)

        patience = Patience(bounds.message_s, refused)
        access = Access(guard, turned_away)
        self._server = grpc.aio.server(
            interceptors=(access, patience) if guard.active else (patience,),
            options=(
                ("grpc.so_reuseport", 0),  # else a second server would share the port in silence
                ("grpc.max_receive_message_length", limits.bytes + _MESSAGE_ROOM_BYTES),
                # Images are compressed already, and what is not could be a bomb.
                ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
                *bounds.options(),
            ),
        )
        self._credentials = credentials  # gRPC calls back into them
        self._poses = PoseServicer(
            predictor,
            hub,
            watch,
            stream_frames=stream_frames,
            message_s=bounds.message_s,
            idle_s=bounds.idle_s,
            refused=refused,
        )
        pose_pb2_grpc.add_PoseServiceServicer_to_server(self._poses, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise StartupError(
                f"cannot listen for gRPC on {host}:{port}: the port is taken or the address is not ours; "
                "REPPOSE_GRPC__PORT names another (0 for any free one)"
            )

    async def start(self) -> None:
        """Begin to accept; health says NOT_SERVING until told otherwise."""
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Tell grpc.health.v1, for the server as a whole and for the pose service."""
        response = health_pb2.HealthCheckResponse
        state = response.SERVING if serving else response.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, finish those that ask for poses, and cut off what is left after `grace_s`.

        Watchers of the health service never end by themselves, so they are not waited for.
        """
        stopping = asyncio.create_task(self._server.stop(grace_s))
        drained = asyncio.create_task(self._poses.drain())
        await asyncio.wait((stopping, drained), return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        await self._server.stop(min(grace_s, _LAST_ANSWER_S))
        await stopping
