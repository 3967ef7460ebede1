"""The REST service over real sockets: answers, errors, and everything around them."""

from __future__ import annotations

import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_zoo import codecs, skeletons
from service.rest.schemas import ErrorResponse, HealthResponse, ModelsResponse, PoseQuery, PoseResponse
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene
from tests.service.serving import get, post

LARGEST = 20 * 1024 * 1024


def boxes(*each: tuple[float, ...]) -> str:
    return json.dumps(each)


def points(answer: PoseResponse, index: int = 0) -> np.ndarray:
    return np.array([(each.x, each.y) for each in answer.poses[index].keypoints])


def answered(response: httpx.Response) -> PoseResponse:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    answer = PoseResponse.model_validate_json(response.content, strict=True)
    assert response.json() == answer.model_dump(
        mode="json", exclude_unset=True
    )  # the models define what the fast path writes
    return answer


def refused(response: httpx.Response, http: int, code: str, field: str | None = None) -> str:
    """The error has its form, its code and its field; gives its message."""
    assert response.status_code == http, response.text
    assert response.headers["content-type"] == "application/json"
    error = ErrorResponse.model_validate_json(response.content).error
    assert (error.code, error.field) == (code, field)
    return error.message


def test_a_box_gives_a_pose(service: serving.Service, scene: Scene) -> None:
    answer = answered(post(service, scene.png, boxes=boxes(scene.box)))
    assert (answer.model, answer.version, answer.decoder) == ("tiny", "2", "argmax_shift")
    assert (answer.image.width, answer.image.height) == (400, 480)
    (pose,) = answer.poses
    assert pose.box == scene.box
    assert pose.box_source == "request"
    assert [each.name for each in pose.keypoints] == list(tiny_model.SKELETON.keypoints)
    assert np.abs(points(answer) - scene.joints).max() < 5
    assert pose.score == pytest.approx(np.mean([each.score for each in pose.keypoints]), abs=1e-4)


def test_without_boxes_the_person_is_found(service: serving.Service) -> None:
    joints = tiny_model.person((300, 100, 160, 200))
    answer = answered(post(service, tiny_model.encode(tiny_model.paint((480, 640), joints, radius=12))))
    assert answer.poses[0].box_source == "found"
    assert np.abs(points(answer) - joints).max() < 5


def test_several_boxes_come_back_in_order(service: serving.Service, scene: Scene) -> None:
    sent = [(0, 0, 400, 480), scene.box, (10.5, 20.25, 100, 100)]
    answer = answered(post(service, scene.png, boxes=boxes(*sent), decoder="dark"))
    assert [pose.box for pose in answer.poses] == sent
    assert answer.decoder == "dark"


@pytest.mark.parametrize(
    "media", ["image/png", "image/jpeg", "IMAGE/PNG; x=y", "application/octet-stream", None]
)
def test_content_types_of_a_raw_body(media: str | None, service: serving.Service, scene: Scene) -> None:
    headers = {} if media is None else {"Content-Type": media}
    response = httpx.post(f"{service.url}/v1/pose", content=scene.png, headers=headers, trust_env=False)
    answered(response)


def test_multipart_takes_the_same_names_as_fields(service: serving.Service, scene: Scene) -> None:
    url = f"{service.url}/v1/pose"
    fields = {"boxes": boxes(scene.box), "decoder": "dark", "model": "tiny@1", "render": "false"}
    files = {"image": ("photo.png", scene.png, "image/png")}
    form = answered(httpx.post(url, data=fields, files=files, trust_env=False))
    assert form == answered(post(service, scene.png, **fields))
    assert form.version == "1"
    mixed = answered(httpx.post(url, params={"decoder": "dsnt"}, data=fields, files=files, trust_env=False))
    assert (mixed.decoder, mixed.version) == ("dsnt", "1")


def test_a_picture_with_the_skeleton_drawn(service: serving.Service, scene: Scene) -> None:
    response = post(service, scene.png, render="true", boxes=boxes(scene.box))
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    drawn = np.asarray(PIL.Image.open(io.BytesIO(response.content)))
    assert drawn.shape == scene.picture.shape
    changed = (drawn != scene.picture).any(axis=-1)
    assert all(changed[round(y), round(x)] for x, y in scene.joints)
    assert changed.mean() < 0.3


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"boxes": "nonsense"}, "invalid_boxes", "boxes"),
        ({"boxes": "[]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[1, 2, 3, 4]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3]]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3, 4, 5]]"}, "invalid_boxes", "boxes"),
        ({"boxes": '[[1, 2, 3, "4"]]'}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3, null]]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3, true]]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3, NaN]]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3, 1e999]]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 3, 1" + "0" * 400 + "]]"}, "invalid_boxes", "boxes"),
        ({"boxes": '{"a": 1}'}, "invalid_boxes", "boxes"),
        ({"boxes": "[" * 5000}, "invalid_boxes", "boxes"),
        ({"boxes": "[[1, 2, 0, 4]]"}, "invalid_boxes", "boxes"),
        ({"boxes": "[[500, 2, 30, 40]]"}, "invalid_boxes", "boxes"),
        ({"boxes": json.dumps([[0, 0, 9, 9]] * 33)}, "invalid_boxes", "boxes"),
        ({"model": "absent"}, "unknown_model", "model"),
        ({"model": "tiny@7"}, "unknown_model", "model"),
        ({"model": "x" * 2000}, "unknown_model", "model"),
        ({"decoder": "x" * 2000}, "unknown_decoder", "decoder"),
        ({"decoder": "absent"}, "unknown_decoder", "decoder"),
        ({"decoder": "../../etc/passwd"}, "unknown_decoder", "decoder"),
        ({"render": "perhaps"}, "invalid_request", "render"),
        ({"box": "[[1, 2, 3, 4]]"}, "invalid_request", "box"),
    ],
)
@pytest.mark.parametrize("as_form", [False, True])
def test_a_wrong_value_is_named(
    query: dict[str, str], code: str, field: str, as_form: bool, service: serving.Service, scene: Scene
) -> None:
    if as_form:
        files = {"image": scene.png}
        response = httpx.post(f"{service.url}/v1/pose", data=query, files=files, trust_env=False)
    else:
        response = post(service, scene.png, **query)
    assert len(refused(response, 422, code, field)) < 400


def test_an_empty_value_counts_as_left_out(service: serving.Service, scene: Scene) -> None:
    assert answered(post(service, scene.png, boxes="", model="", decoder="")).poses[0].box_source == "found"


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff\xd8\xff\xe0", bytes(10_000)])
def test_garbage_is_no_image(data: bytes, service: serving.Service) -> None:
    refused(post(service, data), 422, "invalid_image", "image")


def test_half_an_image_is_no_image(service: serving.Service, scene: Scene) -> None:
    refused(post(service, scene.png[: len(scene.png) // 2]), 422, "invalid_image", "image")


def test_other_media_are_refused_in_words(service: serving.Service, scene: Scene) -> None:
    url = f"{service.url}/v1/pose"
    assert "image/jpeg" in refused(
        httpx.post(url, json={}, trust_env=False), 415, "unsupported_media", "image"
    )
    refused(httpx.post(url, data={"image": "x"}, trust_env=False), 415, "unsupported_media", "image")
    packed = httpx.post(
        url,
        content=scene.png,
        headers={"Content-Encoding": "gzip", "Content-Type": "image/png"},
        trust_env=False,
    )
    refused(packed, 415, "unsupported_media", "image")


@pytest.mark.parametrize(
    ("media", "body", "field"),
    [
        ("multipart/form-data", b"", None),
        ("multipart/form-data; boundary=x", b"no boundary here", None),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--\r\n", None),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--x--\r\n',
            "image",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="decoder"\r\n\r\ndark\r\n--x--\r\n',
            "image",
        ),
        (
            "multipart/form-data; boundary=x",
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\na\r\n'
                for _ in range(2)
            )
            + b"--x--\r\n",
            None,
        ),
        (
            "multipart/form-data; boundary=x; charset=punycode",
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff-\xfe\r\n--x--\r\n',
            "image",
        ),
    ],
)
def test_malformed_forms(media: str, body: bytes, field: str | None, service: serving.Service) -> None:
    refused(post(service, body, media=media), 422, "invalid_request", field)


def test_the_declared_length_alone_condemns_a_body(service: serving.Service) -> None:
    """Not one byte of the body is sent, and the answer comes all the same."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(
            b"POST /v1/pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 10000000000\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("multipart", [False, True])
def test_a_body_without_a_length_is_read_to_the_limit_and_no_further(
    multipart: bool, service: serving.Service
) -> None:
    """The client would send for ever; the answer comes while it sends."""
    host, port = service.url.removeprefix("http://").split(":")
    media = b"multipart/form-data; boundary=x" if multipart else b"image/png"
    start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' if multipart else b""
    piece = bytes(1 << 20)
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(
            b"POST /v1/pose HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: "
            + media
            + b"\r\n\r\n"
        )
        if start:
            client.sendall(b"%x\r\n%s\r\n" % (len(start), start))
        for _ in range(LARGEST // len(piece) + 2):
            client.sendall(chunk)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_too_many_pixels_are_refused_by_the_header(service: serving.Service) -> None:
    image = tiny_model.encode(np.zeros((16_400, 4, 3), np.uint8))
    assert "16400" in refused(post(service, image), 413, "image_too_large", "image")


def test_unknown_paths_and_methods_have_the_form_of_errors(service: serving.Service) -> None:
    refused(get(service, "/v1/nothing"), 404, "not_found")
    refused(get(service, "/v1/pose"), 405, "method_not_allowed")
    refused(httpx.delete(f"{service.url}/v1/models", trust_env=False), 405, "method_not_allowed")


def test_models(service: serving.Service) -> None:
    listed = ModelsResponse.model_validate_json(get(service, "/v1/models").content)
    assert listed.default == "tiny@2"
    assert listed.decoders == sorted(codecs.decoders())
    assert [(model.name, model.version, model.default) for model in listed.models] == [
        ("tiny", "1", False),
        ("tiny", "2", True),
    ]
    (model, _) = listed.models
    skeleton = skeletons.skeleton(model.skeleton)
    assert tuple(model.keypoints) == skeleton.keypoints
    assert tuple(model.bones) == skeleton.bones
    assert (model.input.height, model.input.width) == (tiny_model.HEIGHT, tiny_model.WIDTH)


def test_every_listed_decoder_can_be_asked_for(service: serving.Service, scene: Scene) -> None:
    for decoder in ModelsResponse.model_validate_json(get(service, "/v1/models").content).decoders:
        assert answered(post(service, scene.png, decoder=decoder)).decoder == decoder


def test_health(service: serving.Service) -> None:
    assert HealthResponse.model_validate_json(get(service, "/healthz/live").content).status == "live"
    ready = get(service, "/healthz/ready")
    assert ready.status_code == 200
    assert HealthResponse.model_validate_json(ready.content) == HealthResponse(status="ready")


def test_documentation(service: serving.Service) -> None:
    assert get(service, "/docs").status_code == 200
    document = get(service, "/openapi.json").json()
    pose = document["paths"]["/v1/pose"]["post"]
    queried = {each["name"] for each in pose["parameters"] if each["in"] == "query"}
    assert queried == set(PoseQuery.model_fields)
    assert {"boxes", "model", "decoder", "render"} <= set(PoseQuery.model_fields)
    assert all(each["description"] for each in pose["parameters"])
    assert {"image/jpeg", "application/octet-stream", "multipart/form-data"} <= set(
        pose["requestBody"]["content"]
    )
    assert set(pose["responses"]) >= {"200", "413", "415", "422", "429", "503"}
    assert "#/components/schemas/HTTPValidationError" not in json.dumps(document)


def test_a_request_id_is_sent_back_and_logged(service: serving.Service, scene: Scene) -> None:
    url = f"{service.url}/v1/pose"
    sent = httpx.post(url, content=scene.png, headers={"X-Request-ID": "frame-17"}, trust_env=False)
    assert sent.headers["x-request-id"] == "frame-17"
    line = service.wait_for("request", request_id="frame-17")
    assert (line["path"], line["status"], line["outcome"]) == ("/v1/pose", 200, "ok")
    made_up = httpx.post(url, content=b"", headers={"X-Request-ID": 'a"b\tc'}, trust_env=False)
    assert len(made_up.headers["x-request-id"]) == 32


def samples(service: serving.Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(get(service, "/metrics").text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_what_happened(service: serving.Service, scene: Scene) -> None:
    def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
        return name, frozenset(labels.items())

    ok = key("reppose_requests_total", transport="http", method="pose", outcome="ok")
    bad = key("reppose_requests_total", transport="http", method="pose", outcome="invalid_image")
    taken = key("reppose_request_seconds_count", transport="http", method="pose")
    infer = key("reppose_stage_seconds_count", model="tiny@2", stage="infer")
    decode = key("reppose_stage_seconds_count", model="tiny@2", stage="decode")
    crops = key("reppose_batch_crops_sum", model="tiny@2")
    answered(post(service, scene.png))
    refused(post(service, b"garbage"), 422, "invalid_image", "image")
    before = samples(service)
    answered(post(service, scene.png, boxes=boxes(scene.box, scene.box)))
    refused(post(service, b"garbage"), 422, "invalid_image", "image")
    get(service, "/healthz/ready")
    get(service, "/v1/nothing")
    after = samples(service)
    grown = {name: after[name] - before[name] for name in (ok, bad, taken, infer, decode, crops)}
    assert grown == {ok: 1, bad: 1, taken: 2, infer: 1, decode: 2, crops: 2}
    assert after[key("reppose_queue_depth", model="tiny@2")] == 0
    assert after[key("reppose_queue_capacity", model="tiny@2")] == 256
    assert after[key("reppose_model_info", model="tiny", version="2", skeleton="body19", default="true")] == 1
    assert after[key("reppose_ready")] == 1
    assert after[key("process_resident_memory_bytes")] > 0
    outcomes = {dict(labels)["outcome"] for name, labels in after if name == "reppose_requests_total"}
    assert not {"internal", "not_found"} & outcomes


def test_many_clients_each_get_their_own(service: serving.Service) -> None:
    def ask(number: int) -> None:
        box = (20.0 + 3 * number, 10.0 + 2 * number, 90.0 + number, 150.0)
        joints = tiny_model.person(box)
        data = tiny_model.encode(tiny_model.paint((260, 300), joints, radius=8))
        answer = answered(post(service, data, boxes=boxes(box)))
        assert np.abs(points(answer) - joints).max() < 4

    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(ask, range(48)):
            pass


def test_a_client_that_hangs_up_disturbs_nobody(service: serving.Service, scene: Scene) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
        % len(scene.png)
    )
    for sent in (head[:20], head, head + scene.png[:100], head + scene.png):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(sent)
    answered(post(service, scene.png))
    assert not any("Traceback" in str(line) or "traceback" in str(line) for line in service.lines)


def hang_up_after_asking(service: serving.Service, data: bytes) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
        % len(data)
    )
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(head + data)


def test_what_a_client_no_longer_waits_for_is_not_computed(tiny_bundle_root: Path, scene: Scene) -> None:
    """One worker is held up by a large image; those who queue behind it and leave cost nothing."""
    large = tiny_model.encode(np.zeros((6000, 6000, 3), np.uint8), compress_level=1)
    gone = 'reppose_requests_total{method="pose",outcome="client_gone",transport="http"} 5.0'
    with (
        serving.running(tiny_bundle_root, REPPOSE_BATCH__WORKERS="1", REPPOSE_BATCH__SIZE="1") as service,
        ThreadPoolExecutor(4) as pool,
    ):
        busy = [pool.submit(post, service, large) for _ in range(4)]
        while 'reppose_queue_depth{model="tiny@2"} 3.0' not in get(service, "/metrics").text:
            assert not any(each.done() for each in busy)
        for _ in range(5):
            hang_up_after_asking(service, scene.png)
        assert [each.result().status_code for each in busy] == [200] * 4
        text = get(service, "/metrics").text
    assert gone in text
    assert 'reppose_stage_seconds_count{model="tiny@2",stage="decode"} 4.0' in text


def overload_answers(service: serving.Service, data: bytes) -> list[httpx.Response]:
    def ask(_: Any) -> httpx.Response:
        return post(service, data)

    with ThreadPoolExecutor(24) as pool:
        return list(pool.map(ask, range(48)))


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tiny_bundle_root: Path) -> None:
    large = tiny_model.encode(np.full((2000, 2000, 3), 128, np.uint8))
    with serving.running(tiny_bundle_root, REPPOSE_BATCH__QUEUE="1", REPPOSE_BATCH__WORKERS="1") as small:
        answers = overload_answers(small, large)
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                refused(answer, 429, "overloaded")
                assert answer.headers["retry-after"] == "1"


def test_an_answer_leaves_in_one_piece(service: serving.Service, scene: Scene) -> None:
    """Head and body come with the same packet, so that the client wakes up once."""
    request = b"POST /v1/pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for _ in range(5):
            connection.sendall(request % len(scene.png) + scene.png)
            head, _, body = connection.recv(1 << 20).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert PoseResponse.model_validate_json(body).model == "tiny"
