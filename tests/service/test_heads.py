"""Presence, classes and depth as clients get them: the same over REST and gRPC, and nothing of it of other models."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from typer.testing import CliRunner
from websockets.sync.client import connect

from model_zoo import scores
from model_zoo.errors import HeatmapError
from model_zoo.manifest import Calibration
from service import heads
from service.cli import cli as serve_commands
from service.client import AsyncClient, Client, ClientError
from service.client.answers import NOTHING
from service.client.cli import cli as client_commands
from service.client.video import draw
from service.core import build_core
from service.errors import InvalidRequest
from service.heads import checked, read
from service.pb.reppose.v1 import pose_pb2, pose_pb2_grpc
from service.rest import schemas, stream_schemas
from service.runner import Runner
from service.settings import BatchSettings, ModelSettings, Settings
from service.types import Frame, Options
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


def test_a_frame_of_which_the_net_says_no_numbers_fails_alone(
    heads_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner.run

    def mostly(self: Runner, crops: np.ndarray) -> heads.Answers:
        answer = run(self, crops)
        presence = answer.more[0].copy()
        presence[crops.max(axis=(1, 2, 3)) == 0] = np.nan
        return heads.Answers(answer.main, (presence, *answer.more[1:]))

    monkeypatch.setattr(Runner, "run", mostly)
    black = cv2.imencode(".png", np.zeros((120, 160, 3), np.uint8))[1].tobytes()

    async def ask() -> list[Any]:
        settings = Settings(
            models=ModelSettings(roots=(heads_root,), default=tiny_heads.NAME),
            batch=BatchSettings(workers=1, pin="off"),
        )
        core = build_core(settings)
        await core.load(settings)
        try:
            asked = [core.predictor.predict(Frame(data), Options()) for data in (scene.png, black, scene.png)]
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            assert await core.stop(30)

    first, second, third = asyncio.run(ask())
    assert isinstance(second, HeatmapError)
    assert first.poses[0].heads.presence == third.poses[0].heads.presence > 0


@pytest.mark.parametrize("value", [None, 0, 0.25, 1])
def test_a_probability_is_taken(value):
    assert checked(value) == value


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_anything_else_is_not(value):
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        checked(value)


RATE_HZ = 20


def film(scene: Scene) -> list[bytes]:
    """Somebody in even light, then with one bad frame, then brighter on one side, then gone."""
    even = [tiny_heads.shade(scene.picture, scene.box, 0)] * 6
    bad = [tiny_heads.shade(scene.picture, scene.box, -30)]
    bright = [tiny_heads.shade(scene.picture, scene.box, 30)] * 12
    gone = [np.full_like(scene.picture, tiny_model.GREY)] * 8
    return [tiny_model.encode(each) for each in (*even, *bad, *even, *bright, *gone)]


def grpc_film(both: serving.Service, frames: list[bytes], begin: int = 0, token: str = "") -> list[Any]:
    """The tracked answers to a file over gRPC; the first ones are from `begin` on."""
    config = pose_pb2.StreamConfig(model=tiny_heads.NAME, mode=pose_pb2.STREAM_MODE_FILE, resume_token=token)
    requests = [pose_pb2.EstimateStreamRequest(config=config)]
    requests += [
        pose_pb2.EstimateStreamRequest(
            sequence=number,
            timestamp_s=number / RATE_HZ,
            want_token=True,
            frame=pose_pb2.EstimateRequest(image=data),
        )
        for number, data in enumerate(frames[begin:], begin)
    ]
    with grpc.insecure_channel(both.target) as channel:
        answers = list(pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(iter(requests)))
    assert answers[0].HasField("opened")
    assert all(each.HasField("tracked") for each in answers[1:])
    return [each.tracked for each in answers[1:]]


def facts_of(track: Any) -> tuple[Any, ...]:
    """What a track says beside its points."""
    classes = [
        (each.of, each.label, each.probability, tuple(one.probability for one in each.probabilities))
        for each in track.classes
    ]
    return track.id, track.presence, len(track.keypoints), classes


def test_a_stream_calms_what_is_said(both, scene):
    frames = film(scene)
    answers = grpc_film(both, frames)
    raw = [each.raw.poses[0] for each in answers]
    tracks = [each.tracks[0] for each in answers]
    assert [each.id for each in tracks[:25]] == [1] * 25
    gestures = [each.classes[0].label for each in tracks[:25]]
    assert raw[6].classes[0].label == "dark"  # the bad frame
    changed = gestures.index("bright")
    assert gestures == ["even"] * changed + ["bright"] * (25 - changed)
    assert 13 < changed <= 19
    assert [each.presence for each in raw[25:]] == [0.0] * 8
    there = [bool(each.keypoints) for each in tracks]
    assert there[:25] == [True] * 25
    assert not any(there[28:])
    assert tracks[25].id in (0, 1)
    for track in tracks:
        assert 0 <= track.presence <= 1


def test_websocket_and_sessions_say_what_grpc_says(both, scene):
    frames = film(scene)
    expected = [facts_of(each.tracks[0]) for each in grpc_film(both, frames)]
    url = both.url.replace("http", "ws", 1) + "/v1/stream"
    found, held = [], []
    with connect(url, compression=None, proxy=None, max_size=None) as socket:
        socket.send(json.dumps({"model": tiny_heads.NAME, "mode": "file"}))
        for number, data in enumerate(frames):
            socket.send(struct.pack("<Qd", number, number / RATE_HZ) + data)
        socket.send(json.dumps({"end": True}))
        assert "opened" in json.loads(socket.recv(60))
        for _ in frames:
            found.append(json.loads(socket.recv(60))["tracked"]["tracks"][0])
    with httpx.Client(base_url=both.url, trust_env=False, timeout=60) as client:
        for number, data in enumerate(frames):
            answer = client.post(
                "/v1/sessions/film/frames",
                content=data,
                headers={"Content-Type": "image/png"},
                params={"model": tiny_heads.NAME, "sequence": number, "timestamp_s": number / RATE_HZ},
            )
            assert answer.status_code == 200, answer.text
            stream_schemas.TrackedResponse.model_validate_json(answer.content)
            held.append(answer.json()["tracks"][0])
    for answers in (found, held):
        said = [
            (
                each["id"],
                each["presence"],
                len(each["keypoints"]),
                [
                    (
                        one["of"],
                        one["label"],
                        one["probability"],
                        tuple(p["probability"] for p in one["probabilities"]),
                    )
                    for one in each.get("classes", [])
                ],
            )
            for each in answers
        ]
        assert said == expected


@pytest.mark.parametrize("cut", [3, 8, 16, 26])
def test_a_resumed_stream_says_what_it_would_have_said(both, scene, cut):
    frames = film(scene)
    whole = grpc_film(both, frames)
    token = whole[cut - 1].resume_token
    rest = grpc_film(both, frames, begin=cut, token=token)
    assert [facts_of(each.tracks[0]) for each in rest] == [facts_of(each.tracks[0]) for each in whole[cut:]]


def test_the_client_has_them_as_python_objects(both, scene):
    picture = tiny_heads.shade(scene.picture, scene.box, 30)
    with Client(both.target, jpeg_quality=None) as client:
        poses = client.estimate(picture, boxes=[(5, 400, 60, 60), scene.box], model=tiny_heads.NAME)
        assert poses.keypoints == tiny_model.SKELETON.keypoints
        nobody, somebody = poses.people
        assert nobody.points.shape == (0, 2)
        assert nobody.depth is None
        assert nobody.said.presence < 0.1
        assert nobody.said.classes == {}
        assert somebody.said.presence > 0.6
        assert somebody.said.classes["gesture"].label == "bright"
        assert somebody.said.classes["gesture"].labels == tiny_heads.GESTURES
        assert somebody.depth.shape == (K,)
        drawn = draw(picture, poses)
        assert (drawn != picture).any()
        plain = client.estimate(picture, boxes=[scene.box], model="tiny")
        assert plain.people[0].said is NOTHING
        assert plain.people[0].depth is None
        with client.stream(model=tiny_heads.NAME, live=False) as stream:
            stream.send(picture, timestamp_s=1.0)
            stream.finish()
            (answer,) = list(stream)
    (person,) = answer.poses.people
    assert person.smoothed.said.classes["gesture"].label == "bright"


@pytest.mark.parametrize("least", [None, 0.0, 0.5, 0.99])
def test_both_clients_ask_for_as_sure_a_presence_as_they_are_told(both, scene, least):
    """The person is there with about 0.7, the empty corner with next to nothing."""
    asked = {"model": tiny_heads.NAME, "min_presence": least}
    places = [scene.box, (5, 400, 60, 60)]

    async def ask_async():
        async with AsyncClient(both.target) as client:
            poses = await client.estimate(scene.png, boxes=places, **asked)
            async with client.stream(live=False, **asked) as stream:
                await stream.send(scene.png, timestamp_s=0.0, boxes=places)
                stream.finish()
                return poses, (await anext(stream)).poses

    with Client(both.target) as client:
        found = [client.estimate(scene.png, boxes=places, **asked)]
        with client.stream(live=False, **asked) as stream:
            stream.send(scene.png, timestamp_s=0.0, boxes=places)
            stream.finish()
            found += [answer.poses for answer in stream]
    found += asyncio.run(ask_async())
    assert len(found) == 4
    for poses in found:
        there = [len(person.points) > 0 for person in poses.people]
        assert there == [person.said.presence >= (0.5 if least is None else least) for person in poses.people]
        assert [bool(person.said.classes) for person in poses.people] == there
    assert there == {None: [True, False], 0.0: [True, True], 0.5: [True, False], 0.99: [False, False]}[least]


@pytest.mark.parametrize("least", [-0.1, 1.5])
def test_a_client_hears_that_its_least_presence_is_no_probability(both, scene, least):
    with Client(both.target) as client, pytest.raises(ClientError) as caught:
        client.estimate(scene.png, model=tiny_heads.NAME, min_presence=least)
    assert (caught.value.code, caught.value.field) == ("invalid_request", "min_presence")


@pytest.mark.parametrize("least", [0.0, 0.99])
def test_the_commands_ask_for_as_sure_a_presence_as_they_are_told(
    both, heads_root, scene, least, tmp_path, monkeypatch
):
    photo, film_file, points = tmp_path / "photo.png", tmp_path / "film.avi", tmp_path / "points.jsonl"
    photo.write_bytes(scene.png)
    monkeypatch.setenv("REPPOSE_MODELS__ROOTS", str(heads_root))
    monkeypatch.setenv("REPPOSE_MODELS__DEFAULT", f"{tiny_heads.NAME}@1")
    monkeypatch.setenv("REPPOSE_BATCH__PIN", "off")
    box = json.dumps([scene.box])
    done = CliRunner().invoke(
        serve_commands, ["predict", str(photo), "--boxes", box, "--min-presence", str(least)]
    )
    assert done.exit_code == 0, done.output
    (pose,) = json.loads(done.stdout)["poses"]
    assert bool(pose["keypoints"]) == (pose["presence"] >= least) == (least == 0)
    height, width = scene.picture.shape[:2]
    writer = cv2.VideoWriter(str(film_file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (width, height))
    writer.write(cv2.cvtColor(scene.picture, cv2.COLOR_RGB2BGR))
    writer.release()
    words = [str(film_file), "--points", str(points), "--server", both.target, "--model", tiny_heads.NAME]
    done = CliRunner().invoke(client_commands, [*words, "--min-presence", str(least)])
    assert done.exit_code == 0, done.output
    (frame,) = [json.loads(line) for line in points.read_text().splitlines()]
    (person,) = frame["people"]
    assert 0 < person["presence"] < 0.99
    assert bool(person["keypoints"]) == (least == 0)
    assert {each["of"] for each in person["classes"]} == ({"gesture", "handedness"} if least == 0 else set())
    assert all(0 < each["probability"] <= 1 for each in person["classes"])


CALIBRATED = {
    "of": "scores", "scale": 1.178, "shift": 1.099, "event": "the joint is where it is said to be", "data": "val",
    "count": 99, "bins": 15, "error_before": 0.2, "error": 0.02, "command": "none",
}  # fmt: skip
"""The map that rules about scores were made for: a model with it must be treated as one without, in all but scores."""


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Service]:
    """The tiny model as it is, and with calibrated scores."""
    root = tmp_path_factory.mktemp("calibrated")
    tiny_model.write(root)
    tiny_model.write(root, name="sure", calibration=[CALIBRATED], schema_version=2)
    with serving.running(root) as running:
        yield running


@pytest.mark.parametrize("decoder", ["argmax_shift", "dark", "dsnt"])
def test_scores_of_every_decoder_are_calibrated(calibrated, scene, decoder):
    by = Calibration(**CALIBRATED)
    for query in ({"boxes": f"[{list(scene.box)}]"}, {}):
        own, mapped = (
            serving.post(calibrated, scene.png, model=name, decoder=decoder, compare="true", **query).json()[
                "poses"
            ][0]
            for name in ("tiny", "sure")
        )
        assert own["box"] == mapped["box"]
        pairs = [
            (own, mapped),
            *zip(own["comparison"]["readings"], mapped["comparison"]["readings"], strict=True),
        ]
        for one, other in pairs:
            for before, after in zip(one["keypoints"], other["keypoints"], strict=True):
                assert (before["x"], before["y"]) == (after["x"], after["y"])
                assert after["score"] == pytest.approx(
                    float(scores.calibrated(before["score"], by)), abs=2e-3
                )


def test_calibrated_joints_are_drawn_as_the_rules_mean_them(calibrated, scene):
    query = {"boxes": f"[{list(scene.box)}]", "render": "true"}
    own, mapped = (
        cv2.imdecode(
            np.frombuffer(serving.post(calibrated, scene.png, model=name, **query).content, np.uint8), 1
        ).astype(int)
        for name in ("tiny", "sure")
    )
    assert np.abs(own - mapped).max() <= 2


def test_the_list_of_models_says_whose_scores_are_probabilities(calibrated):
    found = {
        each["name"]: each["calibrated"] for each in serving.get(calibrated, "/v1/models").json()["models"]
    }
    assert found == {"tiny": False, "sure": True}


def test_calibrated_people_are_followed_alike(calibrated, scene):
    answers = {}
    for name in ("tiny", "sure"):
        with httpx.Client(base_url=calibrated.url, trust_env=False, timeout=60) as client:
            tracks = [
                client.post(
                    f"/v1/sessions/{name}/frames",
                    content=scene.png,
                    headers={"Content-Type": "image/png"},
                    params={"model": name, "sequence": number, "timestamp_s": number / RATE_HZ},
                ).json()["tracks"][0]
                for number in range(4)
            ]
        answers[name] = [(each["id"], [(k["x"], k["y"]) for k in each["keypoints"]]) for each in tracks]
    assert answers["tiny"] == answers["sure"]
