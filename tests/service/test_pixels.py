"""Pixels that are sent without an encoding give what the same pixels in a PNG give, to the last bit."""

from __future__ import annotations

import grpc
import pytest

from service.errors import ImageTooLarge, InvalidImage
from service.images import ImageLimits, bare
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving
from tests.service.conftest import BOX, Scene

LIMITS = ImageLimits(bytes=3000, pixels=900, side=40)


def media(width: object, height: object) -> str:
    return f"application/x-raw-rgb; width={width}; height={height}"


def pixels_of(scene: Scene, **changes: object) -> pb.Pixels:
    height, width, _ = scene.picture.shape
    return pb.Pixels(**{"rgb": scene.picture.tobytes(), "width": width, "height": height} | changes)


def test_bare_pixels_are_rows_of_rgb() -> None:
    data = bytes(range(2 * 3 * 3))
    image = bare(data, (2, 3), LIMITS)
    assert image.shape == (2, 3, 3)
    assert image[1, 0].tolist() == [9, 10, 11]
    assert not image.flags.writeable


@pytest.mark.parametrize("size", [(3, 2 + 1), (2, 2), (0, 0), (-2, -3), (0, 6), (1, -6), (6, 0)])
def test_bytes_that_are_not_as_many_as_the_size_says(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImage, match="18 bytes are not"):
        bare(bytes(18), size, LIMITS)


@pytest.mark.parametrize("size", [(41, 1), (1, 41), (31, 30), (10**7, 10**7)])
def test_bare_pixels_have_limits_too(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge):
        bare(bytes(18), size, LIMITS)


@pytest.mark.parametrize("boxes", ["", f"[{list(BOX)}]"])
def test_the_same_numbers_as_a_png_over_http(boxes: str, service: serving.Service, scene: Scene) -> None:
    encoded = serving.post(service, scene.png, boxes=boxes)
    raw = serving.post(service, scene.picture.tobytes(), media=media(400, 480), boxes=boxes)
    assert raw.status_code == encoded.status_code == 200
    assert raw.content == encoded.content


def test_the_same_numbers_as_a_png_over_grpc(
    stub: pose_pb2_grpc.PoseServiceStub, service: serving.Service, scene: Scene
) -> None:
    frames = pb.EstimateRequest(image=scene.png), pb.EstimateRequest(pixels=pixels_of(scene))
    encoded, raw = (stub.Estimate(frame, timeout=60) for frame in frames)
    assert raw == encoded
    assert len(raw.poses) == 1
    messages = (pb.EstimateStreamRequest(frame=frame) for frame in frames)
    assert [answer.prediction for answer in stub.EstimateStream(messages, timeout=60)] == [encoded] * 2


@pytest.mark.parametrize(
    "form",
    [
        "application/x-raw-rgb",
        media("", 480),
        media(400, "-480"),
        media(400, "48e1"),
        media("²", 1),
        media(400, "9" * 5000),
        "application/x-raw-rgb; width=400",
    ],
)
def test_pixels_of_unknown_size_are_refused_in_words(form: str, service: serving.Service) -> None:
    answer = serving.post(service, bytes(30), media=form.encode())
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_request", "Content-Type")
    assert "width=192" in error["message"]


def test_the_wrong_number_of_pixels_is_the_images_fault(service: serving.Service, scene: Scene) -> None:
    answer = serving.post(service, scene.picture.tobytes(), media=media(400, 481))
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_image"
    answer = serving.post(service, bytes(30), media=media(90_000, 90_000))
    assert answer.json()["error"]["code"] == "image_too_large"


def test_the_wrong_number_of_pixels_over_grpc(stub: pose_pb2_grpc.PoseServiceStub, scene: Scene) -> None:
    for changes in ({"width": 401}, {"width": -400, "height": -480}, {"rgb": b""}, {"width": 0}):
        with pytest.raises(grpc.RpcError, match="bare pixels") as error:
            stub.Estimate(pb.EstimateRequest(pixels=pixels_of(scene, **changes)), timeout=60)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    both = pb.EstimateRequest(image=scene.png, pixels=pixels_of(scene))
    with pytest.raises(grpc.RpcError, match="not both"):
        stub.Estimate(both, timeout=60)
