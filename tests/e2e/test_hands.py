"""Hands from pictures to streams, every step by its own command: train, export with calibration, 8 bits, serve.

What is served is what was measured: the same labels of the same made hands, over REST, gRPC and a stream, and the same
numbers as the exported graph gives by itself.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import yaml

from model_zoo import bundle, geometry
from model_zoo.bundle import Bundle
from model_zoo.skeletons import HAND21
from service.pb.reppose.v1 import pose_pb2, pose_pb2_grpc
from tests import tiny_model
from tests.service import serving
from tests.trainer import hands_made
from trainer.data import people
from trainer.data.people import Person
from trainer.export import OnnxNet

NAME = "mini-hand"


def command(*arguments: str) -> str:
    """What a command of `reppose-train` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *arguments],
        capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made hands to learn from, to calibrate on and to measure on."""
    root = tmp_path_factory.mktemp("hands")
    for name, count, seed in (("hands", 96, 1), ("val", 64, 2), ("unseen", 40, 3)):
        hands_made.make(root, name, count=count, seed=seed)
    return root


@pytest.fixture(scope="module")
def made(data: Path) -> Bundle:
    """Both precisions, calibrated, by the commands."""
    config = data / "hand.yaml"
    config.write_text(yaml.safe_dump(hands_made.run_document()), "utf-8")
    where = ["--data", str(data)]
    command("train", str(config), *where, "--out", str(data / "run"), "--accelerator", "cpu",
            "--processes", "1")  # fmt: skip
    told = command("export", str(data / "run"), *where, "--on", "unseen.json", "--calibrate", "all",
                   "--out", str(data / "bundles"))  # fmt: skip
    for name in ("gesture", "handedness", "presence", "scores"):
        assert f"{name}: expected calibration error" in told
    quantised(data)
    tiny_model.write(data / "served")
    return bundle.find(NAME, None, [data / "served"])


def quantised(data: Path) -> None:
    """`reppose-zoo quantize`."""
    script = Path(sys.executable).with_name("reppose-zoo")
    done = subprocess.run(
        [
            str(script), "quantize", str(data / "bundles" / NAME / "1"), "--data", str(data), "--calibrate", "val.json",
            "--on", "unseen.json", "--out", str(data / "served"), "--crops", "48", "--method", "minmax", "--force",
        ],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def service(made: Bundle) -> Iterator[serving.Service]:
    """Hands and bodies side by side; the graph in float32, whose numbers can be compared."""
    with serving.running(made.folder.parents[1], REPPOSE_MODELS__PRECISION="fp32") as running:
        yield running


@pytest.fixture(scope="module")
def unseen(data: Path) -> list[Person]:
    """Hands that the net has not seen, and pictures without any."""
    return people.read(data / "unseen.json", HAND21)


def posted(service: serving.Service, person: Person, **query: Any) -> dict[str, Any]:
    """The pose of one labelled box."""
    boxes = json.dumps([person.box.tolist()])
    answer = serving.post(service, person.picture.file.read_bytes(), model=NAME, boxes=boxes, **query)
    assert answer.status_code == 200, answer.text
    (pose,) = answer.json()["poses"]
    return pose


def test_the_bundle_tells_what_it_does(made: Bundle) -> None:
    manifest = made.manifest
    assert manifest.int8_file is not None
    assert [each.of for each in manifest.calibration] == ["gesture", "handedness", "presence", "scores"]
    assert all(each.error < 0.2 for each in manifest.calibration)
    by_metric = {(each.metric, each.precision): each.value for each in manifest.accuracy}
    for precision in ("fp32", "int8"):
        assert by_metric["gesture accuracy", precision] > 85
        assert by_metric["presence AUC", precision] > 90


def test_labels_of_unseen_hands_are_answered(service: serving.Service, unseen: list[Person]) -> None:
    right: dict[str, list[bool]] = {"presence": [], "gesture": [], "handedness": []}
    for person in unseen:
        pose = posted(service, person)
        right["presence"].append(bool(pose["keypoints"]) == bool(person.presence))
        if pose["keypoints"] and person.presence:
            said = {each["of"]: each["label"] for each in pose["classes"]}
            right["gesture"].append(said["gesture"] == person.gesture)
            right["handedness"].append(said["handedness"] == person.handedness)
    shares = {name: np.mean(each) for name, each in right.items()}
    assert all(share > 0.85 for share in shares.values()), shares


def test_a_mirrored_hand_is_the_other_one(
    service: serving.Service, unseen: list[Person], made: Bundle
) -> None:
    """As the manifest says that classes change places."""
    (handedness,) = (each for each in made.manifest.classes if each.of == "handedness")
    alike = []
    for person in [each for each in unseen if each.presence][:12]:
        picture = person.picture.load()
        flipped = tiny_model.encode(picture[:, ::-1])
        x, y, width, height = person.box
        box = [picture.shape[1] - 1 - x - width, y, width, height]
        answer = serving.post(service, flipped, model=NAME, boxes=json.dumps([box]), min_presence=0)
        (mirrored,) = answer.json()["poses"]
        labels = [
            next(each["label"] for each in pose["classes"] if each["of"] == "handedness")
            for pose in (posted(service, person, min_presence=0), mirrored)
        ]
        before, after = map(handedness.labels.index, labels)
        alike.append(handedness.mirror[before] == after)
    assert np.mean(alike) > 0.8


def test_rest_and_grpc_give_the_numbers_of_the_graph(
    service: serving.Service, unseen: list[Person], made: Bundle
) -> None:
    net, spec = OnnxNet(made.model_path), made.manifest.input
    with grpc.insecure_channel(service.target) as channel:
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        for person in unseen[:8]:
            (matrix,) = geometry.upright_crop_affine([person.box.tolist()], spec.size, spec.padding)
            crop = geometry.crop(person.picture.load(), matrix, spec.size)[None]
            said, points = net.further(crop), net.keypoints(crop)[0]
            rest = posted(service, person, min_presence=0)
            x, y, width, height = person.box
            request = pose_pb2.EstimateRequest(
                image=person.picture.file.read_bytes(),
                boxes=[pose_pb2.Box(x=x, y=y, width=width, height=height)],
                model=NAME,
                min_presence=0,
            )
            (other,) = stub.Estimate(request).poses
            assert rest["presence"] == other.presence == pytest.approx(float(said["presence"][0]), abs=1e-3)
            for own, their in zip(rest["classes"], other.classes, strict=True):
                numbers = [each["probability"] for each in own["probabilities"]]
                assert numbers == [each.probability for each in their.probabilities]
                np.testing.assert_allclose(numbers, said[own["of"]][0], atol=1e-3)
            z = [each["z"] for each in rest["keypoints"]]
            assert z == [each.z for each in other.keypoints]
            scale = np.sqrt(np.abs(np.linalg.det(np.asarray(matrix)[:, :2])))
            np.testing.assert_allclose(z, said["depth"][0] / scale, atol=0.02)
            np.testing.assert_allclose([each["score"] for each in rest["keypoints"]], points[:, 2], atol=2e-3)


def test_a_stream_of_a_hand_that_opens(service: serving.Service) -> None:
    """A fist, then an open hand, then nothing: one change of gesture, and nobody at the end."""
    rng = np.random.default_rng(8)
    frames = []
    for gesture in ["fist"] * 10 + ["open"] * 14 + [None] * 8:
        hand = None if gesture is None else hands_made.hand(np.random.default_rng(4), gesture, "right")
        if hand is not None:
            low, high = hand[:, :2].min(axis=0), hand[:, :2].max(axis=0)
        frames.append((tiny_model.encode(hands_made.picture(rng, hand)), [*low, *(high - low)]))
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        tracks = []
        for number, (frame, box) in enumerate(frames):
            answer = client.post(
                "/v1/sessions/hand/frames",
                content=frame,
                headers={"Content-Type": "image/png"},
                params={
                    "model": NAME,
                    "sequence": number,
                    "timestamp_s": number / 20,
                    "boxes": json.dumps([box]),
                },
            )
            assert answer.status_code == 200, answer.text
            tracks.append(answer.json()["tracks"][0])
    shown = [
        next((each["label"] for each in track.get("classes", []) if each["of"] == "gesture"), None)
        for track in tracks
    ]
    changes = [b for a, b in itertools.pairwise(shown) if a != b]
    assert shown[0] == "fist"
    assert changes == ["open", None]
    assert tracks[9]["presence"] > 0.5 > tracks[-1]["presence"]
    assert tracks[-1]["keypoints"] == []


def test_bodies_are_answered_beside_hands(service: serving.Service) -> None:
    joints = tiny_model.person((150, 60, 120, 300))
    picture = tiny_model.encode(tiny_model.paint((480, 400), joints, radius=15))
    answer = serving.post(service, picture, boxes="[[150, 60, 120, 300]]").json()
    assert answer["model"] == "tiny"
    assert "presence" not in answer["poses"][0]
    found = np.array([[each["x"], each["y"]] for each in answer["poses"][0]["keypoints"]])
    assert np.abs(found - joints).max() < 3
