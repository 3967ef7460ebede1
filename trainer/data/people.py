"""Read people from COCO-keypoints JSON, over a plain folder of pictures or over an indexed tar.

In the indexed form the pictures lie in one uncompressed tar and every entry of `images` carries `tar_offset` and
`tar_size`, the byte range of its picture; nothing is unpacked. Keypoints are matched to the wanted skeleton by
NAME, so LSP's 14 and COCO's 17 joints merge into one skeleton; what a set lacks gets weight 0.

An annotation may carry more labels, each of them optional: `keypoints_3d`, x, y and z per keypoint, of which z is read,
in pixels of the picture from any origin (null where unknown), or in metres from the lens where the entry of the picture
has a `camera` with its focal length `fx` in pixels; `presence`, 1 or 0; `gesture`, the name of a class; `handedness`,
`left` or `right`. Where nobody is present no keypoint counts. Of whom nothing but such a label is known needs no
keypoints; and a picture whose own entry has a `presence`, and that nobody is annotated in, is looked at as a whole.

Coordinates are those of the file: pixels of the stored picture, the centre of the first pixel at (0, 0).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import Skeleton
from trainer.errors import DataError

MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
"""What a document of another form than expected raises while it is taken apart."""

_WHOLE = ("presence", "gesture", "handedness")
"""Labels of the whole crop."""

AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""Labels are in pixels of the stored picture, so a tag that says how to turn it is left alone."""


@dataclass(frozen=True)
class Picture:
    """Where one picture's bytes are."""

    file: Path
    """The picture itself, or the tar that holds it."""
    offset: int = 0
    """First byte."""
    size: int | None = None
    """Number of bytes; None reads the whole file."""

    def load(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) RGB; DataError names the file where that fails."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.offset)
                data = stream.read(-1 if self.size is None else self.size)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {self.file}: {error}") from error
        if self.size is not None and len(data) < self.size:
            raise DataError(f"{self.file} ends before the picture at byte {self.offset} does")
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), AS_STORED) if data else None
        except cv2.error:
            image = None
        if image is None:
            raise DataError(f"{self.file} holds no readable picture at byte {self.offset}")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Person:
    """One annotated person in the keypoints of the wanted skeleton."""

    id: int
    """Annotation id in its file; negative for a whole picture, which has none."""
    image_id: int
    """Picture id in its file."""
    picture: Picture
    box: NDArray[np.float64]
    """(4,) x, y, width, height."""
    area: float
    """Square pixels, as OKS wants it."""
    points: NDArray[np.float64]
    """(K, 2); 0 where not labelled."""
    visible: NDArray[np.int64]
    """(K,) 0 not labelled, 1 labelled but hidden, 2 visible."""
    weight: NDArray[np.float64]
    """(K,) in 0..1: how much the label counts in the loss; 0 wherever `visible` is 0."""
    depth: NDArray[np.float64] | None = None
    """(K,) z in pixels of the picture, from any origin; NaN where not labelled. None: none is."""
    presence: float | None = None
    """1 somebody is there, 0 nobody is; None where that is not labelled."""
    gesture: str | None = None
    """Class of the whole crop; None where it is not labelled."""
    handedness: Literal["left", "right"] | None = None
    """Which hand of the person it is; None where that is not labelled."""

    @property
    def labelled(self) -> bool:
        """Whether anything but keypoints is known."""
        return not self.presence is self.gesture is self.handedness is None

    def with_labels(
        self, points: NDArray[np.float64], visible: NDArray[np.int64], weight: NDArray[np.float64]
    ) -> Person:
        """A copy with other labels."""
        return replace(self, points=points, visible=visible, weight=weight)


def load_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object; DataError names the file."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds no JSON object")
    return document


def read(
    annotations: Path, skeleton: Skeleton, *, images: Path | None = None, keypoints_at_least: int = 1
) -> list[Person]:
    """All usable people of one file, in its order.

    Args:
        annotations: COCO-keypoints JSON.
        skeleton: the keypoints wanted; matched by name.
        images: folder that `file_name` is relative to, or the indexed tar. None takes the tar of the same name
            beside the JSON if there is one, else the JSON's own folder.
        keypoints_at_least: people with fewer labelled keypoints of the skeleton are left out, as are crowds
            and boxes without an area; with 0 a box is enough.

    Raises:
        DataError: the file or `images` cannot be read, an entry is malformed, or the file has no keypoint that the
            skeleton knows though some are asked for.
    """
    document = load_json(annotations)
    if images is None:
        tar = annotations.with_suffix(".tar")
        images = tar if tar.is_file() else annotations.parent
    elif not images.exists():
        raise DataError(f"cannot read {images}: there is no such folder or tar")
    try:
        pictures = {entry["id"]: _picture(entry, images) for entry in document["images"]}
        columns = {
            each["id"]: _columns(each.get("keypoints", []), skeleton) for each in document["categories"]
        }
        focal = {e["id"]: float(e["camera"]["fx"]) for e in document["images"] if "camera" in e}
        people = [
            _person(entry, pictures, columns, len(skeleton), focal.get(entry["image_id"]))
            for entry in document["annotations"]
            if not entry.get("iscrowd")
            and (keypoints_at_least == 0 or _says_something(entry))
            and min(entry["bbox"][2:]) > 0
        ]
        annotated = {entry["image_id"] for entry in document["annotations"]}
        people += [
            _whole_picture(entry, pictures[entry["id"]], len(skeleton))
            for entry in document["images"]
            if entry.get("presence") is not None and entry["id"] not in annotated
        ]
    except MALFORMED as error:
        raise DataError(f"{annotations}: malformed entry ({type(error).__name__}: {error})") from error
    named = any(len(targets) for targets, _ in columns.values()) or any(each.labelled for each in people)
    if keypoints_at_least > 0 and not named:
        raise DataError(f"{annotations} names no keypoint of {skeleton.name}")
    return [person for person in people if _is_enough(person, keypoints_at_least)]


def _says_something(entry: dict[str, Any]) -> bool:
    return any(entry.get(label) is not None for label in ("keypoints", *_WHOLE))


def _is_enough(person: Person, keypoints_at_least: int) -> bool:
    """Few keypoints are a doubtful label; none at all are no label, and another one may be worth the crop."""
    count = (person.visible > 0).sum()
    return count >= keypoints_at_least or (count == 0 and person.labelled)


def _whole_picture(entry: dict[str, Any], picture: Picture, count: int) -> Person:
    """A picture of which is known whether somebody is there, but not where."""
    box = [0, 0, entry["width"], entry["height"]]
    found = {"id": -1 - entry["id"], "image_id": entry["id"], "bbox": box, "category_id": None}
    nothing = {None: _columns([], None)}
    return _person(found | {"presence": entry["presence"]}, {entry["id"]: picture}, nothing, count, None)


def _picture(entry: dict[str, Any], images: Path) -> Picture:
    if images.is_dir():
        return Picture(images / entry["file_name"])
    offset, size = int(entry["tar_offset"]), int(entry["tar_size"])
    if offset < 0 or size <= 0:
        raise ValueError(f"no byte range: tar_offset {offset}, tar_size {size}")
    return Picture(images, offset, size)


def _columns(names: list[str], skeleton: Skeleton | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices in the skeleton, indices in the file) of the keypoints that both have."""
    shared = [
        (skeleton.index(name), column) for column, name in enumerate(names) if name in skeleton.keypoints
    ]
    pairs = np.array(shared, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _person(
    entry: dict[str, Any],
    pictures: dict[int, Picture],
    columns: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
    count: int,
    focal_px: float | None,
) -> Person:
    labels = np.array(entry.get("keypoints", []), np.float64).reshape(-1, 3)
    targets, sources = columns[entry["category_id"]]
    box, area = np.array(entry["bbox"], np.float64), float(entry.get("area") or 0)
    if box.shape != (4,) or not np.isfinite([*box, *labels.ravel(), area]).all() or area < 0:
        raise ValueError(f"annotation {entry['id']}: bbox, keypoints and area must be finite numbers")
    if not np.isin(labels[:, 2], (0, 1, 2)).all():
        raise ValueError(f"annotation {entry['id']}: the third number of a keypoint must be 0, 1 or 2")
    points, visible = np.zeros((count, 2)), np.zeros(count, np.int64)
    if len(labels):
        points[targets], visible[targets] = labels[sources, :2], labels[sources, 2].astype(np.int64)
    presence = entry.get("presence")
    if presence not in (None, 0, 1):
        raise ValueError(f"annotation {entry['id']}: presence must be 0 or 1, got {presence!r}")
    handedness = entry.get("handedness")
    if handedness not in (None, "left", "right"):
        raise ValueError(f"annotation {entry['id']}: handedness must be left or right, got {handedness!r}")
    visible[:] = 0 if presence == 0 else visible
    points[visible == 0] = 0
    depth = None
    if "keypoints_3d" in entry:
        # A root that nobody labelled would move everybody's z.
        depth = np.where(visible > 0, _depth(entry["keypoints_3d"], (targets, sources), count), np.nan)
        if focal_px is not None and (known := depth[np.isfinite(depth)]).size:
            if known.mean() <= 0:
                raise ValueError(f"annotation {entry['id']}: somebody behind the camera")
            depth *= focal_px / known.mean()  # as large as the picture shows a metre at this distance
    return Person(
        id=int(entry["id"]),
        image_id=int(entry["image_id"]),
        picture=pictures[entry["image_id"]],
        box=box,
        area=area or float(0.53 * box[2] * box[3]),
        points=points,
        visible=visible,
        weight=(visible > 0).astype(np.float64),
        depth=depth,
        presence=None if presence is None else float(presence),
        gesture=None if entry.get("gesture") is None else str(entry["gesture"]),
        handedness=handedness,
    )


def _depth(
    numbers: list[float | None], columns: tuple[NDArray[np.int64], NDArray[np.int64]], count: int
) -> NDArray[np.float64]:
    targets, sources = columns
    depth = np.full(count, np.nan)
    depth[targets] = np.array(numbers, np.float64).reshape(-1, 3)[sources, 2]
    return depth


def pictures(people: Iterable[Person]) -> Iterator[tuple[Person, NDArray[np.uint8]]]:
    """Each person with its decoded picture; a picture shared by neighbours is decoded once."""
    last: tuple[Picture, NDArray[np.uint8]] | None = None
    for person in people:
        if last is None or last[0] != person.picture:
            last = (person.picture, person.picture.load())
        yield person, last[1]
