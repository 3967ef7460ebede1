"""Draw poses on a frame: bones and joints, coloured by the person's own left and right.

A joint below FAINT_SCORE and its bones are left out; above, they grow from faint to full at SURE_SCORE. Lines scale
with the person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from model_zoo.scores import for_rules
from model_zoo.skeletons import Skeleton
from service.types import Floats, Image, Pose

if TYPE_CHECKING:  # who draws elsewhere needs no manifest
    from model_zoo.manifest import Calibration

FAINT_SCORE = 0.15
SURE_SCORE = 0.5

Colour = tuple[int, int, int]

_LEFT: Colour = (255, 140, 26)
_RIGHT: Colour = (40, 150, 255)
_MIDDLE: Colour = (250, 225, 70)
_OUTLINE: Colour = (20, 20, 24)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SUBPIXEL_BITS = 4
_FAR_PX = 1 << 20


def draw(
    image: Image, poses: Iterable[Pose], skeleton: Skeleton, calibration: Calibration | None = None
) -> Image:
    """A copy of an (H, W, 3) RGB image with the poses drawn on it, and what they are of; who is absent is not.

    Args:
        image: the frame.
        poses: found in it.
        skeleton: theirs.
        calibration: of their scores; None where these are as the net gives them.
    """
    canvas = np.array(image, np.uint8, order="C")
    for pose in poses:
        if pose.present:
            _draw_pose(canvas, pose, skeleton, for_rules(pose.scores, calibration))
            _write_classes(canvas, pose)
    return canvas


def png(image: Image) -> bytes:
    """Encode an (H, W, 3) RGB image as PNG; quick rather than small."""
    done, encoded = cv2.imencode(
        ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape}")
    return encoded.tobytes()


def _draw_pose(canvas: Image, pose: Pose, skeleton: Skeleton, scores: Floats) -> None:
    opacity = np.clip((scores - FAINT_SCORE) / (SURE_SCORE - FAINT_SCORE), 0, 1)
    opacity = np.where(scores >= FAINT_SCORE, 0.3 + 0.7 * opacity, 0.0)
    thickness = _thickness(pose, canvas.shape[:2])
    colours = [_colour(name) for name in skeleton.keypoints]
    bones = sorted(skeleton.bones, key=lambda bone: min(opacity[list(bone)]))
    for parent, child in bones:
        strength = min(opacity[parent], opacity[child])
        ends = pose.points[[parent, child]]
        colour = _bone_colour(colours[parent], colours[child])
        _blend(
            canvas, ends, thickness * 2, strength, lambda patch, at, c=colour: _line(patch, at, thickness, c)
        )
    for index in np.argsort(opacity):
        spot = pose.points[[index]]
        colour = colours[index]
        _blend(
            canvas,
            spot,
            thickness * 3,
            opacity[index],
            lambda patch, at, c=colour: _dot(patch, at, thickness, c),
        )


def _write_classes(canvas: Image, pose: Pose) -> None:
    """Put the classes above the box, or into it where there is no room."""
    if pose.heads is None or not pose.heads.classes:
        return
    text = ", ".join(f"{each.label} {each.probability:.2f}" for each in pose.heads.classes)
    scale = float(np.clip(min(canvas.shape[:2]) / 640, 0.35, 1.5))
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    left, top = (int(min(max(number, -_FAR_PX), _FAR_PX)) for number in pose.box[:2])
    x = min(max(left, 0), max(canvas.shape[1] - width, 0))
    y = min(max(top - below, height), max(canvas.shape[0] - below, height))
    for colour, thickness in ((_OUTLINE, 3), (_MIDDLE, 1)):
        cv2.putText(canvas, text, (x, y), _FONT, scale, colour, thickness, cv2.LINE_AA)


def _thickness(pose: Pose, size: tuple[int, int]) -> int:
    """Width of a bone in pixels: about a fiftieth of the person, less in a frame that shows them larger than itself."""
    person = min(max(pose.box[2:]), max(size))
    return int(np.clip(round(person / 90), 1, 24))


def _colour(keypoint: str) -> Colour:
    return _LEFT if keypoint.startswith("left_") else _RIGHT if keypoint.startswith("right_") else _MIDDLE


def _bone_colour(parent: Colour, child: Colour) -> Colour:
    """A bone has its side's colour; one that joins both sides, the middle's."""
    if parent == child:
        return parent
    sides = {parent, child} - {_MIDDLE}
    return sides.pop() if len(sides) == 1 else _MIDDLE


def _blend(canvas: Image, points: Floats, margin: int, strength: float, paint) -> None:
    """Paint around the points on a copy of that part of the canvas, and mix it in as strongly as asked."""
    if strength <= 0 or np.abs(points).max() > _FAR_PX:
        return
    height, width = canvas.shape[:2]
    low = np.clip(np.floor(points.min(axis=0)) - margin, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + margin + 1, 0, (width, height)).astype(int)
    if (high <= low).any():
        return
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    painted = patch.copy()
    paint(painted, np.round((points - low) * (1 << _SUBPIXEL_BITS)).astype(int).tolist())
    cv2.addWeighted(painted, float(strength), patch, 1 - float(strength), 0, dst=painted)
    patch[:] = painted


def _line(patch: Image, ends: Sequence[Sequence[int]], thickness: int, colour: Colour) -> None:
    start, end = ends
    outline = thickness + max(2, thickness // 2)
    for stroke, width in ((_OUTLINE, outline), (colour, thickness)):
        cv2.line(patch, start, end, stroke, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def _dot(patch: Image, at: Sequence[Sequence[int]], thickness: int, colour: Colour) -> None:
    radius = max(2.0, 1.1 * thickness)
    for stroke, reach in ((_OUTLINE, radius + max(1.0, thickness / 4)), (colour, radius)):
        cv2.circle(
            patch,
            at[0],
            round(reach * (1 << _SUBPIXEL_BITS)),
            stroke,
            cv2.FILLED,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )
