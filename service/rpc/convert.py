"""Protobuf messages <-> the service's own types."""

from __future__ import annotations

from service.errors import InvalidRequest
from service.pb.reppose.v1 import pose_pb2 as pb
from service.status import Report
from service.types import BoxSource, Comparison, Frame, Heatmaps, Options, Pose, Prediction, Reading

_BOX_SOURCE = {
    BoxSource.REQUEST: pb.BOX_SOURCE_REQUEST,
    BoxSource.FOUND: pb.BOX_SOURCE_FOUND,
    BoxSource.IMAGE: pb.BOX_SOURCE_IMAGE,
}


def request_from(message: pb.EstimateRequest) -> tuple[Frame, Options]:
    """What a client asks for. Raises InvalidRequest where it sends two images in one."""
    boxes = tuple((box.x, box.y, box.width, box.height) for box in message.boxes)
    options = Options(
        boxes=boxes or None,
        model=message.model or None,
        decoder=message.decoder or None,
        compare=message.compare,
        heatmaps=message.heatmaps,
    )
    if not message.HasField("pixels"):
        return Frame(message.image), options
    if message.image:
        raise InvalidRequest("send an image or pixels, not both", field="pixels")
    pixels = message.pixels
    return Frame(pixels.rgb, (pixels.height, pixels.width)), options


def prediction_to(prediction: Prediction) -> pb.EstimateResponse:
    """An answer for the client."""
    height, width = prediction.size
    return pb.EstimateResponse(
        model=prediction.model,
        version=prediction.version,
        decoder=prediction.decoder,
        image=pb.ImageSize(width=width, height=height),
        poses=[_pose(pose, prediction.keypoints) for pose in prediction.poses],
    )


def error_to(report: Report) -> pb.Error:
    """An error of one frame of a stream."""
    number, _ = report.status.grpc.value
    return pb.Error(status=number, code=report.status.code, message=report.message, field=report.field or "")


def _pose(pose: Pose, names: tuple[str, ...]) -> pb.Pose:
    x, y, width, height = pose.box
    return pb.Pose(
        box=pb.Box(x=x, y=y, width=width, height=height),
        box_source=_BOX_SOURCE[pose.box_source],
        score=pose.score,
        keypoints=_keypoints(pose, names),
        comparison=pose.comparison and _comparison(pose.comparison, names),
        heatmaps=pose.heatmaps and _heatmaps(pose.heatmaps),
    )


def _comparison(comparison: Comparison, names: tuple[str, ...]) -> pb.Comparison:
    return pb.Comparison(
        disagreement_px=comparison.disagreement_px,
        readings=[
            pb.Reading(decoder=each.decoder, keypoints=_keypoints(each, names))
            for each in comparison.readings
        ],
    )


def _heatmaps(heatmaps: Heatmaps) -> pb.Heatmaps:
    keypoints, rows, columns = heatmaps.values.shape
    return pb.Heatmaps(
        keypoints=keypoints,
        rows=rows,
        columns=columns,
        data=heatmaps.values.astype("<f4", copy=False).tobytes(),
        to_image=heatmaps.to_frame.ravel().tolist(),
    )


def _keypoints(found: Pose | Reading, names: tuple[str, ...]) -> list[pb.Keypoint]:
    return [
        pb.Keypoint(name=name, x=x, y=y, score=score)
        for name, (x, y), score in zip(names, found.points.tolist(), found.scores.tolist(), strict=True)
    ]
