"""Whatever is sent, the answer is a pose or an error that blames the request, in its proper form; never a 500."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.rest.schemas import ErrorResponse, PoseResponse
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene

FUZZ = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SMALL = tiny_model.encode(tiny_model.paint((48, 40), radius=1))

images = st.one_of(
    st.just(SMALL),
    st.binary(max_size=200),
    st.integers(0, len(SMALL)).map(lambda length: SMALL[:length]),
    st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=4)).map(
        lambda change: SMALL[: change[0]] + change[1] + SMALL[change[0] + 1 :]
    ),
)
numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(width=64), st.sampled_from(["", "1", None]))
boxes = st.one_of(
    st.text(max_size=30),
    st.lists(st.lists(numbers, min_size=3, max_size=5), max_size=4).map(str),
    st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(0.5, 200)] * 2).map(lambda box: str([list(box)])),
)
names = st.one_of(st.sampled_from(["tiny", "tiny@1", "dark", "dsnt", ""]), st.text(max_size=20))
queries = st.fixed_dictionaries(
    {},
    optional={
        "boxes": boxes,
        "model": names,
        "decoder": names,
        "render": st.sampled_from(["true", "0", "x"]),
    },
)


@pytest.fixture(scope="module")
def client(service: serving.Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        yield client


def check(response: httpx.Response) -> None:
    if response.status_code == 200:
        if response.headers["content-type"] != "image/png":
            PoseResponse.model_validate_json(response.content, strict=True)
    else:
        assert 400 <= response.status_code < 500, response.text
        error = ErrorResponse.model_validate_json(response.content).error
        assert error.code
        assert error.message


@FUZZ
@given(
    data=images, query=queries, media=st.sampled_from(["image/png", "application/octet-stream", "text/plain"])
)
def test_raw_bodies_and_queries(client: httpx.Client, data: bytes, query: dict[str, str], media: str) -> None:
    check(client.post("/v1/pose", content=data, params=query, headers={"Content-Type": media}))


@FUZZ
@given(
    query=st.lists(
        st.sampled_from(
            [
                "boxes",
                "model",
                "decoder",
                "render",
                "=",
                "=",
                "&",
                ";",
                "%00",
                "%ff",
                "%",
                "+",
                "[[1,1,9,9]]",
                "tiny",
                "\\",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_raw_query_strings(client: httpx.Client, query: str) -> None:
    check(client.post(httpx.URL("/v1/pose", query=query.encode()), content=SMALL))


@FUZZ
@given(
    data=images,
    fields=st.dictionaries(
        st.one_of(st.sampled_from(["boxes", "model", "decoder", "render"]), st.text()), st.text()
    ),
    name=st.sampled_from(["image", "image", "picture", ""]),
)
def test_forms(client: httpx.Client, data: bytes, fields: dict[str, str], name: str) -> None:
    check(client.post("/v1/pose", data=fields, files={name: ("photo", data, "image/png")}))


pieces = st.sampled_from(
    [
        b"--x", b"\r\n", b"\r\n\r\n", b"--x--\r\n", b"Content-Disposition: form-data", b'; name="image"', b"; name=",
        b'; filename="a"', b"Content-Type: image/png", b": ", b"\xff", b"\0", b"--", SMALL, b'name*=utf-8\'\'%00',
        b"Content-Transfer-Encoding: base64",
    ]
)  # fmt: skip


@FUZZ
@given(
    body=st.lists(pieces, max_size=14).map(b"".join),
    media=st.sampled_from(
        [
            "multipart/form-data; boundary=x",
            "multipart/form-data; boundary=x; charset=unicode_escape",
            "multipart/form-data; boundary=x; charset=idna",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary="',
            "multipart/form-data; boundary=" + "y" * 300,
            "multipart/form-data;;;=",
        ]
    ),
)
def test_broken_forms(client: httpx.Client, body: bytes, media: str) -> None:
    check(client.post("/v1/pose", content=body, headers={"Content-Type": media}))


doubles = st.floats(width=64)


@FUZZ
@given(
    data=images,
    sent=st.lists(st.tuples(doubles, doubles, doubles, doubles), max_size=3),
    model=names,
    decoder=names,
)
def test_grpc(
    service: serving.Service, data: bytes, sent: list[tuple[float, ...]], model: str, decoder: str
) -> None:
    boxes = [pb.Box(x=x, y=y, width=width, height=height) for x, y, width, height in sent]
    request = pb.EstimateRequest(image=data, boxes=boxes, model=model, decoder=decoder)
    with grpc.insecure_channel(service.target) as channel:
        call = pose_pb2_grpc.PoseServiceStub(channel).Estimate.future(request, timeout=60)
        if call.exception() is None:
            assert len(call.result().poses) == max(1, len(sent))
        else:
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, call.exception()
            assert call.details()


def test_it_answers_after_all_that(service: serving.Service, scene: Scene) -> None:
    assert serving.post(service, scene.png).status_code == 200
    assert not any("traceback" in str(line).lower() for line in service.lines)
