"""What a credential may be good for, and which of it each way into the service asks for.

Whatever has no line here is answered to nobody where credentials are asked for, and fails the tests.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Something that a client may be allowed. None of them includes another."""

    PREDICT = "predict"
    """Ask for poses, and for what describes the models."""
    ADMIN = "admin"
    """Change what is served."""
    METRICS = "metrics"
    """Read the metrics."""


OPEN = None
"""In place of a role: everybody may, credentials or not."""

HTTP: dict[str, Role | None] = {
    "pose": Role.PREDICT,
    "models": Role.PREDICT,
    "frames": Role.PREDICT,
    "session": Role.PREDICT,
    "stream": Role.PREDICT,
    "metrics": Role.METRICS,
    "reload": Role.ADMIN,
    "live": OPEN,
    "ready": OPEN,
    # The documentation holds no secret; where credentials are asked for it is there only if the settings say so.
    "openapi": OPEN,
    "swagger_ui_html": OPEN,
    "swagger_ui_redirect": OPEN,
    "redoc_html": OPEN,
}
"""By the name of the route, HTTP and WebSocket alike."""

GRPC: dict[str, Role | None] = {
    "reppose.v1.PoseService": Role.PREDICT,
    "grpc.reflection.v1alpha.ServerReflection": Role.PREDICT,
    "grpc.health.v1.Health": OPEN,  # load balancers and orchestrators ask it
}
"""By the full name of the service; of all its calls."""
