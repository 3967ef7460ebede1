"""Presence, classes and depth as clients get them: the same over REST and gRPC, and nothing of it of other models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from google.protobuf import json_format

from model_zoo.errors import HeatmapError
from service import heads
from service.errors import InvalidRequest
from service.heads import checked, read
from service.pb.reppose.v1 import pose_pb2, pose_pb2_grpc
from service.rest import schemas
from tests import tiny_heads, tiny_model
from tests.service import serving
from tests.service.conftest import Scene

K = len(tiny_model.SKELETON)


@pytest.fixture(scope="module")
def heads_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with and without further outputs, side by side."""
    root = tmp_path_factory.mktemp("heads")
    tiny_model.write(root)
    tiny_heads.write(root)
    return root


@pytest.fixture(scope="module")
def both(heads_root: Path) -> Iterator[serving.Service]:
    """A service of both."""
    with serving.running(heads_root) as running:
        yield running


@pytest.fixture
def calls(both: serving.Service) -> Iterator[pose_pb2_grpc.PoseServiceStub]:
    """A gRPC client of it."""
    with grpc.insecure_channel(both.target) as channel:
        yield pose_pb2_grpc.PoseServiceStub(channel)


def boxes(scene: Scene) -> str:
    """The person, and a place without anybody."""
    return f"[{list(scene.box)}, [5, 400, 60, 60]]"


def ask(both: serving.Service, scene: Scene, **query: Any) -> dict[str, Any]:
    """The answer of the model with heads over REST, as its own schema reads it."""
    picture = tiny_model.encode(tiny_heads.shade(scene.picture, scene.box, query.pop("brighter", 6)))
    query = {"model": tiny_heads.NAME, "boxes": boxes(scene)} | query
    answer = serving.post(both, picture, **query)
    assert answer.status_code == 200, answer.text
    schemas.PoseResponse.model_validate_json(answer.content)
    return answer.json()


def test_who_is_there_is_told_from_nobody(both, scene):
    somebody, nobody = ask(both, scene)["poses"]
    assert somebody["presence"] > 0.6
    assert len(somebody["keypoints"]) == K
    assert nobody["presence"] < 0.1
    assert nobody["keypoints"] == []
    assert nobody["score"] == 0
    assert "classes" not in nobody
    assert nobody["box"] == [5, 400, 60, 60]


@pytest.mark.parametrize(
    ("least", "present"), [(0.0, [True, True]), (0.5, [True, False]), (1.0, [False, False])]
)
def test_the_request_says_how_sure_is_sure_enough(both, scene, least, present):
    found = ask(both, scene, min_presence=least)["poses"]
    assert [bool(each["keypoints"]) for each in found] == present
    assert all(0 <= each["presence"] <= 1 for each in found)


@pytest.mark.parametrize(
    ("brighter", "gesture", "hand"), [(16, "bright", "left"), (0, "even", None), (-16, "dark", "right")]
)
def test_classes_are_those_of_the_picture(both, scene, brighter, gesture, hand):
    said = {each["of"]: each for each in ask(both, scene, brighter=brighter)["poses"][0]["classes"]}
    assert list(said) == ["gesture", "handedness"]
    assert said["gesture"]["label"] == gesture
    assert [each["label"] for each in said["gesture"]["probabilities"]] == list(tiny_heads.GESTURES)
    if hand is not None:
        assert said["handedness"]["label"] == hand
    for each in said.values():
        numbers = {one["label"]: one["probability"] for one in each["probabilities"]}
        assert sum(numbers.values()) == pytest.approx(1, abs=2e-4)
        assert each["probability"] == numbers[each["label"]]
    assert said["gesture"]["probability"] == max(
        each["probability"] for each in said["gesture"]["probabilities"]
    )


def test_depth_is_in_pixels_of_the_frame(both, scene):
    """A person twice as large is twice as deep."""
    large = scene.picture.repeat(2, axis=0).repeat(2, axis=1)
    answers = []
    for picture, factor in ((scene.picture, 1), (large, 2)):
        box = [factor * each for each in scene.box]
        answer = serving.post(both, tiny_model.encode(picture), model=tiny_heads.NAME, boxes=f"[{box}]")
        answers.append([each["z"] for each in answer.json()["poses"][0]["keypoints"]])
    small, large_z = np.array(answers)
    assert small[0] == 0
    assert small[-1] > 5
    np.testing.assert_allclose(large_z, 2 * small, rtol=0.05)


def test_both_protocols_give_the_same_numbers(both, calls, scene):
    for extra in ({}, {"compare": True}, {"heatmaps": True}, {"min_presence": 0.0}, {"min_presence": 0.95}):
        rest = ask(both, scene, **extra)
        picture = tiny_model.encode(tiny_heads.shade(scene.picture, scene.box, 6))
        request = pose_pb2.EstimateRequest(
            image=picture,
            model=tiny_heads.NAME,
            boxes=[pose_pb2.Box(x=x, y=y, width=w, height=h) for x, y, w, h in (scene.box, (5, 400, 60, 60))],
            **extra,
        )
        for one, other in zip(rest["poses"], calls.Estimate(request).poses, strict=True):
            assert ("presence" in one) == other.HasField("presence")
            assert one["presence"] == other.presence
            assert one["score"] == other.score
            assert [(k["name"], k["x"], k["y"], k["score"], k["z"]) for k in one["keypoints"]] == [
                (k.name, k.x, k.y, k.score, k.z) for k in other.keypoints
            ]
            said = [
                json_format.MessageToDict(each, always_print_fields_with_no_presence=True)
                for each in other.classes
            ]
            assert one.get("classes", []) == said
            assert ("heatmaps" in one) == other.HasField("heatmaps")
            assert ("comparison" in one) == other.HasField("comparison")


def test_one_person_is_found_without_a_box(both, scene):
    found = serving.post(both, scene.png, model=tiny_heads.NAME).json()["poses"]
    assert [each["box_source"] for each in found] == ["found"]
    assert found[0]["presence"] > 0.6
    empty = tiny_model.encode(np.full((200, 160, 3), tiny_model.GREY, np.uint8))
    (nobody,) = serving.post(both, empty, model=tiny_heads.NAME).json()["poses"]
    assert (nobody["keypoints"], nobody["box_source"]) == ([], "image")
    assert nobody["presence"] < 0.1


def test_a_model_without_heads_says_nothing_of_them(both, calls, scene):
    (pose,) = serving.post(both, scene.png, boxes=f"[{list(scene.box)}]", min_presence=0.99).json()["poses"]
    assert not {"presence", "classes"} & pose.keys()
    assert all("z" not in each for each in pose["keypoints"])
    answer = calls.Estimate(pose_pb2.EstimateRequest(image=scene.png, min_presence=0.99))
    assert not answer.poses[0].HasField("presence")
    assert not answer.poses[0].classes
    assert not answer.poses[0].keypoints[0].HasField("z")


def test_the_list_of_models_tells_what_each_says(both):
    found = {each["name"]: each for each in serving.get(both, "/v1/models").json()["models"]}
    assert found[tiny_heads.NAME]["presence_of"] == "person"
    assert found[tiny_heads.NAME]["depth_root"] == "nose"
    assert [(each["of"], tuple(each["labels"])) for each in found[tiny_heads.NAME]["classes"]] == [
        ("gesture", tiny_heads.GESTURES),
        ("handedness", tiny_heads.HANDS),
    ]
    assert found["tiny"]["presence_of"] is None
    assert found["tiny"]["classes"] == []
    assert not found["tiny"]["calibrated"]


@pytest.mark.parametrize("least", ["-0.1", "1.1", "nan", "x"])
def test_a_least_presence_that_is_no_probability_is_refused(both, calls, scene, least):
    answer = serving.post(both, scene.png, model=tiny_heads.NAME, min_presence=least)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "min_presence")
    if least != "x":
        with pytest.raises(grpc.RpcError) as caught:
            calls.Estimate(pose_pb2.EstimateRequest(image=scene.png, min_presence=float(least)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert ("reppose-field", "min_presence") in caught.value.trailing_metadata()


def test_a_picture_shows_nobody_who_is_not_there(both, scene):
    """And writes the classes of those who are."""
    query = {"model": tiny_heads.NAME, "boxes": boxes(scene), "render": "true"}
    drawn = [serving.post(both, scene.png, min_presence=each, **query).content for each in (0, 0.5, 1)]
    assert len(set(drawn)) == 3
    last = cv2.imdecode(np.frombuffer(drawn[2], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(last, scene.picture)


def test_the_service_may_be_told_another_least_presence(heads_root, scene):
    with serving.running(heads_root, REPPOSE_MODELS__MIN_PRESENCE="0.99") as strict:
        (pose,) = serving.post(strict, scene.png, model=tiny_heads.NAME, boxes=f"[{list(scene.box)}]").json()[
            "poses"
        ]
        assert pose["keypoints"] == []
        metrics = serving.get(strict, "/metrics").text
        assert f'reppose_presence_total{{model="{tiny_heads.NAME}@1",present="false"}} 1.0' in metrics


def test_what_was_found_is_counted(both, scene):
    ask(both, scene, brighter=16)
    metrics = serving.get(both, "/metrics").text
    for series in (
        f'reppose_presence_total{{model="{tiny_heads.NAME}@1",present="true"}}',
        f'reppose_presence_total{{model="{tiny_heads.NAME}@1",present="false"}}',
        f'reppose_classified_total{{label="bright",model="{tiny_heads.NAME}@1",of="gesture"}}',
    ):
        assert series in metrics
    assert 'model="tiny@1",present=' not in metrics


def test_frames_with_and_without_boxes_share_batches_and_get_their_own_heads(both, scene):
    """Every answer under load is the one that the frame gets alone."""
    pictures = [tiny_model.encode(tiny_heads.shade(scene.picture, scene.box, d)) for d in (-16, 0, 6, 16)]

    def one(number: int) -> tuple[int, Any]:
        query: dict[str, Any] = {"model": tiny_heads.NAME}
        if number % 3:
            query["boxes"] = boxes(scene)
        return number % 12, serving.post(both, pictures[number % 4], **query).json()

    alone = dict(map(one, range(12)))
    with ThreadPoolExecutor(8) as pool:
        for key, answer in pool.map(one, range(48)):
            assert answer == alone[key]


def test_numbers_that_are_none_are_an_error_of_the_net():
    wanted = heads.outputs(tiny_heads.manifest())
    maps = np.tile(np.array([[2.0, 0, 0], [0, 2, 0]]), (2, 1, 1))
    more = [np.zeros(2), np.full((2, 3), 1 / 3), np.full((2, 2), 0.5), np.ones((2, K))]
    found = read(wanted, more, maps, [0.0, 0.5])
    assert [each.present for each in found] == [True, False]
    np.testing.assert_allclose(found[0].depth, tiny_heads.DEPTH_SCALE / 2)
    for bad in (np.nan, np.inf):
        with pytest.raises(HeatmapError, match="'keep'"):
            read(wanted, [np.array([0.5, bad]), *more[1:]], maps, [0.5, 0.5])


@pytest.mark.parametrize("value", [None, 0, 0.25, 1])
def test_a_probability_is_taken(value):
    assert checked(value) == value


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_anything_else_is_not(value):
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        checked(value)
