"""What the service is asked, as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from service.pb.reppose.v1 import pose_pb2 as pb
from service.types import Box


def request_from(
    image: bytes | np.ndarray,
    boxes: Sequence[Box] = (),
    jpeg_quality: int | None = 92,
    min_presence: float | None = None,
) -> pb.EstimateRequest:
    """One image.

    Args:
        image: a file's bytes, or (H, W, 3) RGB uint8.
        boxes: x, y, width, height in pixels each.
        jpeg_quality: of an array, 1 to 100; None sends its pixels.
        min_presence: least probability that somebody is there; None for the service's own.

    Raises:
        ValueError: an array that is no such picture.
    """
    request = pb.EstimateRequest(boxes=[pb.Box(x=x, y=y, width=w, height=h) for x, y, w, h in boxes])
    if min_presence is not None:
        request.min_presence = min_presence
    if isinstance(image, bytes):
        request.image = image
        return request
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    if jpeg_quality is None:
        height, width = image.shape[:2]
        request.pixels.CopyFrom(pb.Pixels(rgb=image.tobytes(), width=width, height=height))
    else:
        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        )
        if not done:
            raise ValueError(f"OpenCV cannot encode an image of shape {image.shape}")
        request.image = data.tobytes()
    return request


def config_from(
    *,
    live: bool,
    session: str,
    resume_token: str,
    model: str,
    decoder: str,
    smoothing: str,
    parameters: Mapping[str, float],
    tracking: bool | None,
    mailbox: int,
    max_age_ms: float,
) -> pb.StreamConfig:
    """What a stream is; see `AsyncClient.stream`."""
    config = pb.StreamConfig(
        session=session,
        resume_token=resume_token,
        model=model,
        decoder=decoder,
        mode=pb.STREAM_MODE_LIVE if live else pb.STREAM_MODE_FILE,
        mailbox=mailbox,
        max_age_ms=max_age_ms,
    )
    if smoothing or parameters:
        config.smoothing.CopyFrom(pb.Smoothing(name=smoothing, parameters=parameters))
    if tracking is not None:
        config.tracking = tracking
    return config
