"""A running service for the tests that only ask it questions, and a picture whose pose is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from service.pb.reppose.v1 import pose_pb2_grpc
from tests import tiny_model
from tests.service import serving

BOX = (150.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True)
class Scene:
    """A picture of one person."""

    picture: np.ndarray
    joints: np.ndarray
    box: tuple[float, float, float, float]
    png: bytes


@pytest.fixture(scope="session")
def scene() -> Scene:
    """400 x 480 pixels with one person well inside."""
    joints = tiny_model.person(BOX)
    picture = tiny_model.paint((480, 400), joints, radius=15)
    return Scene(picture, joints, BOX, tiny_model.encode(picture))


@pytest.fixture(scope="session")
def service(tiny_bundle_root: Path) -> Iterator[serving.Service]:
    """A service that many tests share."""
    with serving.running(tiny_bundle_root) as running:
        yield running


@pytest.fixture
def stub(service: serving.Service) -> Iterator[pose_pb2_grpc.PoseServiceStub]:
    """A gRPC client of that service."""
    with grpc.insecure_channel(service.target) as channel:
        yield pose_pb2_grpc.PoseServiceStub(channel)
