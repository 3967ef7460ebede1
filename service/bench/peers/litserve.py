"""LitServe (Lightning AI): an API process and workers, joined by queues."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Response

from service.bench.peers import Setting
from service.bench.peers.poser import Poser

try:
    import litserve
except ImportError:  # then this module can be imported, not run
    litserve = None


class Poses(litserve.LitAPI if litserve else object):
    """The model behind LitServe."""

    def setup(self, device: str) -> None:
        self._poser = Poser(Setting.read())

    def decode_request(
        self, request
    ) -> bytes:  # LitServe looks at annotations, and cannot read them as strings
        return request["image"].file.read()

    def batch(self, inputs: Iterable[bytes]) -> list[bytes]:
        return list(inputs)

    def predict(self, pictures: list[bytes]) -> list[bytes]:
        return self._poser.answer(pictures)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


def main() -> None:
    """Serve until the process is ended."""
    setting = Setting.read()
    server = litserve.LitServer(
        Poses(max_batch_size=setting.batch, batch_timeout=0.001),
        accelerator="cpu",
        workers_per_device=setting.workers,
    )
    server.run(host="127.0.0.1", port=setting.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    from service.bench.peers.litserve import main  # its workers look the class up by this name

    main()
