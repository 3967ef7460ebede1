"""What a made picture is: pixels, and everything that is true of them.

Camera frame: x to the right, y down, z forward, in metres. Pixels follow `model_zoo.geometry`: the centre of the
top-left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.geometry import Floats

SEEN, HIDDEN, OUTSIDE = 2, 1, 0
"""Visibility of a keypoint: seen, behind something or inside the picture but not seen, not in the picture."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: pixel = f * (x, y) / z + c, for points (x, y, z) = R @ world + t."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    R: Floats = field(default_factory=lambda: np.eye(3))
    """(3, 3) rotation from the world into the camera frame."""
    t: Floats = field(default_factory=lambda: np.zeros(3))
    """(3,) translation, metres."""

    @classmethod
    def of_field_of_view(cls, degrees: float, width: int, height: int, **place: Any) -> Camera:
        """Square pixels, the principal point in the middle, and this angle over the longer side."""
        focal = max(width, height) / (2 * np.tan(np.radians(degrees) / 2))
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height, **place)

    @property
    def intrinsics(self) -> Floats:
        """(3, 3) matrix that maps camera-frame points to homogeneous pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def to_camera(self, points: ArrayLike) -> Floats:
        """(..., 3) world points in the camera frame."""
        return np.asarray(points, np.float64) @ np.asarray(self.R, np.float64).T + self.t

    def to_pixels(self, points: ArrayLike) -> Floats:
        """(..., 3) camera-frame points to (..., 2) pixels; those at or behind the lens come back as NaN."""
        points = np.asarray(points, np.float64)
        depth = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
        return points[..., :2] / depth * (self.fx, self.fy) + (self.cx, self.cy)

    def project(self, points: ArrayLike) -> Floats:
        """(..., 3) world points to (..., 2) pixels; those at or behind the lens come back as NaN."""
        return self.to_pixels(self.to_camera(points))


@dataclass(frozen=True)
class Person:
    """The truth about one person of a picture."""

    keypoints: Floats
    """(K, 3) x, y in pixels and visibility (SEEN, HIDDEN or OUTSIDE)."""
    keypoints_3d: Floats
    """(K, 3) metres in the camera frame; true for hidden and outside ones too."""
    box: Floats
    """(4,) x, y, width, height of the silhouette, hidden parts too, clipped to the picture; zeros where none is."""
    mask: NDArray[np.bool_]
    """(H, W) the pixels where the person, or what it wears and holds, is what the camera sees."""
    person_id: int
    labels: dict[str, Any] = field(default_factory=dict)
    """Further entries of the annotation, JSON-able: presence, gesture, handedness."""


@dataclass(frozen=True)
class Sample:
    """One made picture."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    people: tuple[Person, ...]
    camera: Camera
    timestamp_s: float | None = None
    """Seconds since the first frame of its video; None for a single picture."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the picture was made from; JSON-able."""
