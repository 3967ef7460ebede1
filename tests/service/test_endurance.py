"""What must not change however long the service runs, whoever leaves, and with whom a request shares its batch."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from model_zoo import bundle, geometry
from service import decoding, runner
from service.core import Core
from service.errors import WorkerLost
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.settings import BatchSettings
from service.types import Frame, Options
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene
from tests.service.test_predictor import with_core

ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20


@pytest.mark.timeout(300)
def test_memory_stays_flat_over_50_000_requests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.service.endurance", str(tmp_path), "50000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280)
    found = json.loads(done.stdout)
    assert sum(found["outcomes"].values()) == 50_000
    assert found["outcomes"]["ok"] > 45_000
    assert min(found["outcomes"][each] for each in ("left", "InvalidImage")) > 400
    assert found["stopped"]
    first, *_, last = found["held"]  # after 10,000 and after all
    assert last - first < 4 * MEGABYTE, found["held"]


class Leavers:
    """Clients that do not wait for what they asked."""

    def __init__(self, service: serving.Service, data: bytes) -> None:
        host, _, port = service.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._target = service.target
        self._data = data

    def post(self, share: float, *, reset: bool) -> None:
        """Send this share of a request, and hang up: in order, or as somebody whose cable was pulled."""
        head = (
            f"POST /v1/pose HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
            f"Content-Length: {len(self._data)}\r\n\r\n"
        )
        with socket.create_connection(self._address) as connection:
            connection.sendall(head.encode() + self._data[: int(share * len(self._data))])
            if share < 1:
                time.sleep(0.01)  # or the server would see the end before the request
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def call(self, count: int) -> None:
        """So many gRPC calls at once, which are cancelled one after the other once the first was answered."""
        with grpc.insecure_channel(self._target) as channel:
            stub = pose_pb2_grpc.PoseServiceStub(channel)
            request = pb.EstimateRequest(image=self._data)
            calls = [stub.Estimate.future(request) for _ in range(count)]
            calls[0].result(timeout=60)
            for call in calls:
                call.cancel()

    def wave(self, http: int, calls: int) -> None:
        """So many of each kind; of the HTTP requests one half breaks off in the body, one waits for its answer."""
        with ThreadPoolExecutor(16) as clients:
            sent = [
                clients.submit(self.post, 0.5 if number % 2 else 1.0, reset=number % 4 < 2)
                for number in range(http)
            ]
            sent += [clients.submit(self.call, calls // 4) for _ in range(4)]
            for each in sent:
                each.result()


def series(service: serving.Service, name: str, **labels: str) -> dict[str, float]:
    """Values of one metric by the last of its labels, where the others are these."""
    families = text_string_to_metric_families(serving.get(service, "/metrics").text)
    samples = [each for family in families for each in family.samples if each.name == name]
    found = {}
    for sample in samples:
        if labels.items() <= sample.labels.items():
            (label,) = sample.labels.keys() - labels.keys()
            found[sample.labels[label]] = sample.value
    return found


def settled(service: serving.Service, posts: int) -> dict[str, float]:
    """Outcomes of posts once so many have ended, and nothing waits or runs."""
    deadline = time.monotonic() + 60
    while True:
        outcomes = series(service, "reppose_requests_total", transport="http", method="pose")
        waiting = series(service, "reppose_queue_depth")
        busy = series(service, "reppose_worker_busy_seconds")
        if sum(outcomes.values()) == posts and not any((*waiting.values(), *busy.values())):
            return outcomes
        assert time.monotonic() < deadline, (outcomes, waiting, busy, service.text[-2000:])
        time.sleep(0.1)


def held_by(service: serving.Service) -> tuple[int, int]:
    """Open files, and resident bytes, of the service."""
    proc = Path(f"/proc/{service.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return len(list((proc / "fd").iterdir())), pages * 4096


@pytest.mark.timeout(240)
def test_a_thousand_who_hang_up_leave_nothing_behind(tiny_bundle_root: Path, scene: Scene) -> None:
    quiet = {"REPPOSE_BATCH__QUEUE": "5000", "REPPOSE_LOG__REQUESTS": "false"}
    data = tiny_model.encode(scene.picture[::2, ::2], "BMP")  # 144 KB: to forget one would show
    with serving.running(tiny_bundle_root, **quiet) as service:
        leavers = Leavers(service, data)
        fds, held = [], []
        for number in range(1, 6):
            leavers.wave(200, 160)
            settled(service, 200 * number)
            fds.append(held_by(service)[0])
            held.append(held_by(service)[1])
        posts = settled(service, 1000)
        calls = series(service, "reppose_requests_total", transport="grpc", method="Estimate")
        assert posts.keys() | calls.keys() <= {"ok", "client_gone"}
        assert posts["client_gone"] >= 500  # all who broke off in the body, at least
        assert sum(calls.values()) <= 800  # what was cancelled before it came here is nobody's
        assert calls["client_gone"] > 0
        assert max(fds) <= min(fds) + 3, fds  # a scrape's own connection may be among them
        # A crowd larger than those before lifts the level for good; what is lost with every request lifts it each time:
        # half a body of each of the 100 that break off in it, 7 MB.
        assert min(np.diff(held)) < 4 * MEGABYTE, held
        assert serving.post(service, scene.png).status_code == 200
        with grpc.insecure_channel(service.target) as channel:
            answer = pose_pb2_grpc.PoseServiceStub(channel).Estimate(pb.EstimateRequest(image=scene.png))
        assert len(answer.poses) == 1


BODY = bundle.find("body19-small")
MOST_PX = 1e-4


class Shipped:
    """The model that comes with the package, and crops of a photograph with what it finds in each alone."""

    def __init__(self, precision: str) -> None:
        import skimage

        self.manifest = BODY.manifest
        self._runner = runner.load(BODY, precision)
        photograph = _rgb(Path(skimage.__file__).parent / "data" / "astronaut.png")
        numbers = np.random.default_rng(7)
        extent = numbers.uniform(120, 400, (16, 2))
        self._boxes = np.concatenate([numbers.uniform(-50, 500 - extent), extent], axis=1)
        size = self.manifest.input.size
        self._maps = geometry.crop_affine(self._boxes, size, padding=self.manifest.input.padding)
        self._crops = np.stack([geometry.warp(photograph, each, size) for each in self._maps])
        self.alone = [[self.found([row], by)[0] for row in range(16)] for by in (True, False)]

    def found(
        self, rows: list[int], by_graph: bool, call: Callable[..., np.ndarray] = lambda net, crops: net(crops)
    ) -> np.ndarray:
        """(N, K, 2) points in pixels of the photograph, not rounded, by the graph's decoder or ours."""
        decoder = decoding.pick(self.manifest, None, on_heatmaps=not by_graph)
        run = self._runner.run if decoder.function else self._runner.keypoints
        return decoding.read(decoder, self.manifest, call(run, self._crops[rows]), self._maps[rows])[0]


def _rgb(path: Path) -> np.ndarray:
    import PIL.Image

    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module", params=["fp32", "int8"])
def shipped(request: pytest.FixtureRequest) -> Shipped:
    return Shipped(request.param)


@settings(max_examples=25)
@given(rows=st.lists(st.integers(0, 15), min_size=1, max_size=8), by_graph=st.booleans())
def test_the_answer_is_the_same_alone_and_inside_any_batch(
    rows: list[int], by_graph: bool, shipped: Shipped
) -> None:
    for row, points in zip(rows, shipped.found(rows, by_graph), strict=True):
        np.testing.assert_allclose(points, shipped.alone[not by_graph][row], rtol=0, atol=MOST_PX)


def replaced(core: Core, reason: str) -> float | None:
    labels = {"model": "tiny@1", "reason": reason}
    return core.metrics.registry.get_sample_value("reppose_workers_replaced_total", labels)


@pytest.mark.parametrize("reason", ["stuck", "died"])
def test_a_net_that_takes_its_worker_along(
    reason: str, tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    run = runner.Runner.run
    faults = iter([True])

    def fails_once(self: runner.Runner, crops: np.ndarray) -> np.ndarray:
        if next(faults, False):
            if reason == "died":
                raise SystemExit("no way on")
            assert let_go.wait(60)
        return run(self, crops)

    async def test(core: Core) -> Any:
        monkeypatch.setattr(runner.Runner, "run", fails_once)  # the model is warm by now
        assert (replaced(core, "stuck"), replaced(core, "died")) == (0, 0)
        with pytest.raises(WorkerLost):
            await core.predictor.predict(Frame(scene.png), Options(boxes=(scene.box,)))
        answer = await core.predictor.predict(Frame(scene.png), Options(boxes=(scene.box,)))
        while not replaced(core, reason):
            await asyncio.sleep(0.01)
        let_go.set()
        return answer

    answer = with_core(tiny_bundle_root, test, batch=BatchSettings(workers=1, pin="off", stuck_s=0.5))
    assert np.abs(answer.poses[0].points - scene.joints).max() < 5
