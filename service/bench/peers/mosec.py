"""Mosec: a front in Rust and worker processes in Python, joined by sockets."""

from __future__ import annotations

import sys

from service.bench.peers import Setting
from service.bench.peers.poser import Poser

try:
    import mosec
except ImportError:  # then this module can be imported, not run
    mosec = None


class Poses(mosec.Worker if mosec else object):
    """The model behind Mosec."""

    def __init__(self) -> None:
        super().__init__()
        self._poser = Poser(Setting.read())

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        return self._poser.answer(data)


def main() -> None:
    """Serve until the process is ended."""
    setting = Setting.read()
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(setting.port), "--log-level", "warning"]
    server = mosec.Server()
    server.append_worker(Poses, num=setting.workers, max_batch_size=setting.batch, max_wait_time=1)
    server.run()


if __name__ == "__main__":
    from service.bench.peers.mosec import main  # its workers look the class up by this name

    main()
