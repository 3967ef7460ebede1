"""THE pixel convention, and the affine maps between a sent image, a net's crop and its heatmap.

Convention `centre-integer`: the centre of the top-left pixel is (0, 0), so an image of W x H pixels covers
[-0.5, W - 0.5] x [-0.5, H - 0.5]. A heatmap cell covers `stride` crop pixels:

    x_crop = (x_cell + 0.5) * stride - 0.5        x_cell = (x_crop + 0.5) / stride - 0.5

Boxes are (x, y, width, height) in the coordinates of the points: x, y is the left and top edge. The whole
image is the box (-0.5, -0.5, W, H). Sizes are (height, width). A crop fills its own
[-0.5, w - 0.5] x [-0.5, h - 0.5].

Matrices are (..., 2, 3) float64 affine maps acting on column vectors (x, y, 1). OpenCV's `warpAffine` has its
pixel centres at integers too, so the same matrices warp images and move points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.errors import GeometryError

PIXEL_CONVENTION = "centre-integer"
"""Name of the convention above, as written in every manifest."""

Floats = NDArray[np.floating[Any]]


def cells_to_pixels(points: ArrayLike, stride: float) -> Floats:
    """Map points from heatmap cells to crop pixels; any shape, float64."""
    return (np.asarray(points, np.float64) + 0.5) * stride - 0.5


def pixels_to_cells(points: ArrayLike, stride: float) -> Floats:
    """Map points from crop pixels to heatmap cells; the inverse of `cells_to_pixels`."""
    return (np.asarray(points, np.float64) + 0.5) / stride - 0.5


def whole_image_box(size: tuple[int, int]) -> Floats:
    """The (4,) box that covers an image of (height, width) pixels."""
    height, width = size
    return np.array([-0.5, -0.5, width, height], np.float64)


def box_of_points(points: ArrayLike) -> Floats:
    """The smallest (4,) box around (N, 2) points, N >= 1."""
    points = np.asarray(points, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low])


def expand_box(boxes: ArrayLike, size: tuple[int, int], padding: float) -> Floats:
    """Grow (..., 4) boxes about their centres to the aspect of `size` (height, width), then by `padding`.

    Raises:
        GeometryError: a box that is not finite or has no area, or a padding or size that is not positive.
    """
    boxes = np.asarray(boxes, np.float64)
    height, width = size
    if boxes.shape[-1:] != (4,) or not np.isfinite(boxes).all() or not (boxes[..., 2:] > 0).all():
        raise GeometryError("boxes must be finite (x, y, width, height) with a positive width and height")
    if not (padding > 0 and height > 0 and width > 0):
        raise GeometryError(f"padding and crop size must be positive, got {padding} and {size}")
    centres = boxes[..., :2] + boxes[..., 2:] / 2
    grown_height = np.maximum(boxes[..., 3], boxes[..., 2] * height / width) * padding
    extent = np.stack([grown_height * width / height, grown_height], axis=-1)
    return np.concatenate([centres - extent / 2, extent], axis=-1)


def detail(boxes: ArrayLike, size: tuple[int, int], padding: float) -> Floats:
    """How many pixels of the image, along each axis, one pixel of the crop around a box shows.

    Takes (..., 4) boxes and the rest as `expand_box`, answers (...).
    """
    return expand_box(boxes, size, padding)[..., 3] / size[0]


def crop_affine(
    boxes: ArrayLike,
    size: tuple[int, int],
    *,
    padding: float = 1.0,
    rotation_deg: ArrayLike = 0.0,
    flip: ArrayLike = False,
) -> Floats:
    """Maps from image pixels to the pixels of crops of `size` (height, width).

    The box, grown to the crop's aspect and by `padding`, fills the crop exactly. Then the content is turned
    about the crop's centre, and last mirrored left to right.

    Args:
        boxes: (..., 4) in image pixels.
        size: (height, width) of the crop.
        padding: context around the box; 1.25 shows an eighth of the box on each side.
        rotation_deg: (...), positive turns the content clockwise as seen (y points down).
        flip: (...) bool, True mirrors x. The caller swaps left and right keypoints.

    Returns:
        (..., 2, 3) float64.

    Raises:
        GeometryError: as `expand_box`.
    """
    grown = expand_box(boxes, size, padding)
    height, width = size
    scale = height / grown[..., 3]
    centres = grown[..., :2] + grown[..., 2:] / 2
    angle = np.deg2rad(np.broadcast_to(np.asarray(rotation_deg, np.float64), scale.shape))
    mirror = np.where(np.broadcast_to(np.asarray(flip, bool), scale.shape), -1.0, 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.stack([np.stack([mirror * cos, -mirror * sin], -1), np.stack([sin, cos], -1)], -2)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = middle - np.einsum("...ij,...j->...i", linear, centres)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def upright_crop_affine(boxes: Iterable[Sequence[float]], size: tuple[int, int], padding: float) -> Floats:
    """As `crop_affine` without rotation and flip, to the last bit, for the few boxes of a frame.

    In Python's own numbers: for one box numpy's calls take fifty times as long as what they compute.

    Returns:
        (N, 2, 3) float64.

    Raises:
        GeometryError: as `expand_box`.
    """
    height, width = size
    if not (padding > 0 and height > 0 and width > 0):
        raise GeometryError(f"padding and crop size must be positive, got {padding} and {size}")
    maps = []
    for box in boxes:
        x, y, box_width, box_height = map(float, box)
        if not (
            math.isfinite(x) and math.isfinite(y) and 0 < box_width < math.inf and 0 < box_height < math.inf
        ):
            raise GeometryError("boxes must be finite (x, y, width, height) with a positive width and height")
        grown_height = max(box_height, box_width * height / width) * padding
        grown_width = grown_height * width / height
        scale = height / grown_height
        centre_x = x + box_width / 2 - grown_width / 2 + grown_width / 2
        centre_y = y + box_height / 2 - grown_height / 2 + grown_height / 2
        maps.append(
            (
                (scale, 0.0, (width - 1) / 2 - scale * centre_x),
                (0.0, scale, (height - 1) / 2 - scale * centre_y),
            )
        )
    return np.array(maps, np.float64).reshape(-1, 2, 3)


def invert(matrices: ArrayLike) -> Floats:
    """Inverse of (..., 2, 3) affine maps; GeometryError where one has no inverse."""
    matrices = np.asarray(matrices, np.float64)
    a, b, x = (matrices[..., 0, column] for column in range(3))
    c, d, y = (matrices[..., 1, column] for column in range(3))
    determinant = a * d - b * c
    if not np.isfinite(matrices).all() or not (np.abs(determinant) > 1e-12).all():
        raise GeometryError("the affine map has no inverse")
    inverse = np.empty(matrices.shape)
    for row, (first, second) in enumerate(((d, -b), (-c, a))):
        first, second = first / determinant, second / determinant
        inverse[..., row, 0] = first
        inverse[..., row, 1] = second
        inverse[..., row, 2] = -(first * x + second * y)
    return inverse


def compose(outer: ArrayLike, inner: ArrayLike) -> Floats:
    """The (..., 2, 3) map that does what `inner` does, then what `outer` does; leading axes broadcast."""
    outer, inner = np.asarray(outer, np.float64), np.asarray(inner, np.float64)
    offset = np.einsum("...ij,...j->...i", outer[..., :2], inner[..., 2]) + outer[..., 2]
    return np.concatenate([outer[..., :2] @ inner[..., :2], offset[..., None]], axis=-1)


def reduced(side: int, factor: int) -> int:
    """Pixels along one side of an image that is reduced by a whole factor: the last may be covered only in part."""
    return -(-side // factor)


def from_reduced(size: tuple[int, int], factor: int, backwards: tuple[bool, bool] = (False, False)) -> Floats:
    """Map to the pixels of an image from those of its reduced copy, of which each covers `factor` x `factor`.

    The scale is `factor` to the last bit, also where a side is no multiple of it, as JPEG's DCT scaling has it: the
    copy's last pixel then reaches beyond the image.

    Args:
        size: (height, width) of the image.
        factor: a whole number.
        backwards: for x and for y, whether the copy was made of the mirrored image and then mirrored back, so that it
            is its first pixel that reaches beyond.

    Returns:
        (2, 3) float64.
    """
    height, width = size
    x, y = (
        (factor - 1) / 2 - (reduced(side, factor) * factor - side if mirrored else 0)
        for side, mirrored in zip((width, height), backwards, strict=True)
    )
    return np.array([[factor, 0, x], [0, factor, y]], np.float64)


def apply(matrices: ArrayLike, points: ArrayLike) -> Floats:
    """Move (..., N, 2) points by (..., 2, 3) maps; leading axes broadcast."""
    matrices, points = np.asarray(matrices, np.float64), np.asarray(points, np.float64)
    return points @ np.swapaxes(matrices[..., :2], -1, -2) + matrices[..., None, :, 2]


def crop(
    image: NDArray[np.uint8], matrix: ArrayLike, size: tuple[int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resample an (H, W, 3) image into a crop of `size`, of however many pixels it is: what a net is shown.

    As `warp`, but where `averaging` says more than 1, warped is the mean of so many pixels along each axis. Bilinear
    resampling alone looks at the 2 x 2 pixels that are nearest, and what lies between them becomes noise and false
    patterns.

    Takes and answers as `warp`.
    """
    matrix = np.asarray(matrix, np.float64)
    factor = averaging(matrix)
    if factor > 1:
        image, matrix = _averaged(image, matrix, size, factor)
    return warp(image, matrix, size, out)


def averaging(matrix: ArrayLike) -> int:
    """The power of two that leaves 1 to 2 of an image's pixels for one of the crop, along the axis that has fewer.

    1 where there are fewer than 2 already. Takes a (2, 3) map from the image to the crop.
    """
    (xx, xy, _), (yx, yy, _) = np.asarray(matrix, np.float64).tolist()
    scale = max(math.hypot(xx, yx), math.hypot(xy, yy)) * (1 - 1e-9)  # just twice as many are averaged
    return 1 if scale > 0.5 else 2 ** -math.frexp(scale)[1]


def _averaged(
    image: NDArray[np.uint8], matrix: Floats, size: tuple[int, int], factor: int
) -> tuple[NDArray[np.uint8], Floats]:
    """The part of an image that a crop shows, reduced by a power of two, and the map from there to the crop.

    The pixels that become one are those of the `reduced` image. Halving repeatedly, which has a fast path, takes half
    as long as the mean at once.
    """
    corners = apply(invert(matrix), np.array([[x, y] for x in (0, size[1] - 1) for y in (0, size[0] - 1)]))
    corners = pixels_to_cells(corners, factor)
    last = np.array([reduced(image.shape[1], factor), reduced(image.shape[0], factor)])
    low = np.clip(np.floor(corners.min(axis=0)), 0, last - 1).astype(int)
    high = np.clip(np.floor(corners.max(axis=0)) + 2, low + 1, last).astype(int)
    (left, top), (right, bottom) = (low * factor).tolist(), (high * factor).tolist()
    part = image[top:bottom, left:right]
    for _ in range(factor.bit_length() - 1):
        height, width = part.shape[:2]
        if (
            height % 2 or width % 2
        ):  # at the end of the image: half of the last pixel is outside, which is black
            part = cv2.copyMakeBorder(part, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    first = cells_to_pixels(low, factor)
    return part, compose(matrix, np.array([[factor, 0, first[0]], [0, factor, first[1]]], np.float64))


def warp(
    image: NDArray[np.uint8], matrix: ArrayLike, size: tuple[int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resample an (H, W, 3) image into a crop of `size` (height, width): bilinear, black outside.

    Right where the crop has about as many pixels as the image, as in training, which turns crops that were cut with
    `crop`; that is for any image.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), from image pixels to crop pixels.
        size: (height, width) of the crop.
        out: C-contiguous (height, width, 3) uint8 to write into; saves a copy where the caller owns a batch.

    Returns:
        The crop; `out` itself where it was given.
    """
    height, width = size
    return cv2.warpAffine(
        image, np.asarray(matrix, np.float64), (width, height), dst=out, flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0),
    )  # fmt: skip
