"""Other servers in the place of ours: the same model, the same work for a picture, the same client.

Each is a module of this package that runs as a process of its own, `python -m service.bench.peers.litserve`, with a
`Setting` as JSON in the environment. They are no dependencies of ours: who wants the comparison installs them.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from service.bench.load import Route

VARIABLE = "REPPOSE_BENCH_PEER"


@dataclass(frozen=True)
class Peer:
    """How to ask one of them for the poses in a JPEG."""

    distribution: str
    """What to install."""
    route: Route
    target: str
    """Path of its URL."""

    @property
    def installed(self) -> bool:
        return find_spec(self.distribution) is not None


PEERS = {
    "litserve": Peer("litserve", "multipart", "/predict"),
    "mosec": Peer("mosec", "rest", "/inference"),
}
"""By the name of their module. LitServe takes no bare bodies, so it gets forms."""


@dataclass(frozen=True)
class Setting:
    """What the server of a peer must know."""

    folder: str
    """Of the bundle."""
    precision: str
    provider: str
    port: int
    workers: int
    batch: int

    @property
    def environment(self) -> dict[str, str]:
        """The variable that says it."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def read(cls) -> Setting:
        """What the variable says."""
        return cls(**json.loads(os.environ[VARIABLE]))
