"""The whole path, every step by its own command: made people -> train -> evaluate -> export -> serve -> a pose."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.scores import calibrated
from model_zoo.skeletons import BODY19, LSP14
from tests.trainer import people_made
from tests.trainer.people_made import MadeSet
from trainer import evaluate
from trainer.data import people
from trainer.export import OnnxNet

NAME = "made-people"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory, write_people: Callable[..., MadeSet]) -> MadeSet:
    """People that the model was not trained on."""
    return write_people(tmp_path_factory.mktemp("data"), "unseen", count=30, seed=99)


@pytest.fixture(scope="module")
def served(unseen: MadeSet, write_people: Callable[..., MadeSet]) -> Bundle:
    """A bundle, by `reppose-train train` on two merged sets, `evaluate` and `export`."""
    root = unseen.annotations.parent
    write_people(root, "people", count=150, seed=1, tar=True)
    write_people(root, "sport", count=60, seed=2, skeleton=LSP14)
    document = people_made.run_document(
        name=NAME,
        data={
            "train": [{"annotations": "people.json"}, {"annotations": "sport.json"}],
            "validate_on": [{"annotations": "unseen.json"}],
        },
        phases=[{"epochs": 8, "height": 64, "width": 64}, {"epochs": 6, "height": 96, "width": 96}],
        optimisation={"batch": 16, "learning_rate": 0.01, "ema": 0.95},
        validate_every=7,
    )
    config = root / "run.yaml"
    config.write_text(yaml.safe_dump(document), "utf-8")
    data, run = ["--data", str(root)], str(root / "run")

    command("train", str(config), *data, "--out", run, "--accelerator", "cpu", "--processes", "1")
    table = command("evaluate", run, *data, "--on", "unseen.json")
    assert all(metric in table for metric in ("PCK@0.2", "PCKh@0.5", "OKS-AP"))
    command("export", run, *data, "--on", "unseen.json", "--out", str(root / "bundles"))
    return bundle.find(NAME, "1", [root / "bundles"])


def command(*arguments: str) -> str:
    """What a command of `reppose-train` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *arguments],
        capture_output=True, text=True, check=False, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def service(root: Path, log: Path) -> Iterator[str]:
    """`reppose-serve` with the bundles of a folder, from ready to stopped; gives its address."""
    http, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{http}"
    environment = os.environ | {
        "REPPOSE_MODELS__ROOTS": str(root), "REPPOSE_MODELS__DEFAULT": NAME,
        "REPPOSE_HTTP__PORT": str(http), "REPPOSE_GRPC__PORT": str(grpc),
    }  # fmt: skip
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, "-m", "service"], env=environment, stderr=output) as process,
    ):
        try:
            wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0, log.read_text()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the service takes requests; fail with its log where it does not come up."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with DIRECT.open(f"{url}/healthz/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())


def posted(url: str, picture: bytes, boxes: list[Any]) -> dict[str, Any]:
    """The answer of POST /v1/pose."""
    query = urllib.parse.urlencode({"boxes": json.dumps(boxes)})
    request = urllib.request.Request(f"{url}/v1/pose?{query}", picture, {"Content-Type": "image/png"})
    with DIRECT.open(request, timeout=60) as answer:
        return json.load(answer)


def test_the_served_pose_is_the_evaluated_one(served: Bundle, unseen: MadeSet, tmp_path: Path) -> None:
    manifest = served.manifest
    assert manifest.accuracy[0].value > 30  # a model that has learnt nothing would make this test easy
    found = people.read(unseen.annotations, BODY19)
    images, matrices = evaluate.crops(found, manifest.input.size, manifest.input.padding)
    expected, scores = evaluate.predict(
        OnnxNet(served.model_path),
        images,
        matrices,
        manifest.codec,
        manifest.codec.decoder,
        manifest.heatmaps.stride,
    )
    folder = unseen.annotations.parent
    with service(folder / "bundles", tmp_path / "service.log") as url:
        for entry in unseen.document["images"]:
            rows = [row for row, person in enumerate(found) if person.image_id == entry["id"]]
            boxes = [found[row].box.tolist() for row in rows]
            answer = posted(url, (folder / entry["file_name"]).read_bytes(), boxes)
            assert (answer["model"], answer["version"]) == (NAME, "1")
            assert answer["image"] == {"width": entry["width"], "height": entry["height"]}
            for row, box, pose in zip(rows, boxes, answer["poses"], strict=True):
                np.testing.assert_allclose(pose["box"], box, atol=0.01)
                assert [each["name"] for each in pose["keypoints"]] == list(manifest.keypoints)
                points = [(each["x"], each["y"]) for each in pose["keypoints"]]
                np.testing.assert_allclose(points, expected[row], atol=0.05)
                sure = [each["score"] for each in pose["keypoints"]]
                likely = calibrated(np.clip(scores[row], 0, 1), manifest.score_calibration)
                np.testing.assert_allclose(sure, likely, atol=2e-3)
