"""Protobuf messages <-> the service's own types."""

from __future__ import annotations

from service.pb.reppose.v1 import pose_pb2 as pb
from service.status import Report
from service.types import BoxSource, Frame, Options, Pose, Prediction

_BOX_SOURCE = {
    BoxSource.REQUEST: pb.BOX_SOURCE_REQUEST,
    BoxSource.FOUND: pb.BOX_SOURCE_FOUND,
    BoxSource.IMAGE: pb.BOX_SOURCE_IMAGE,
}


def request_from(message: pb.EstimateRequest) -> tuple[Frame, Options]:
    """What a client asks for."""
    boxes = tuple((box.x, box.y, box.width, box.height) for box in message.boxes)
    options = Options(boxes=boxes or None, model=message.model or None, decoder=message.decoder or None)
    return Frame(message.image), options


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
        keypoints=[
            pb.Keypoint(name=name, x=px, y=py, score=score)
            for name, (px, py), score in zip(names, pose.points.tolist(), pose.scores.tolist(), strict=True)
        ],
    )
