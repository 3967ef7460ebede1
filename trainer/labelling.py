"""Keypoints for pictures that have none, by somebody else's net, where it agrees with itself.

The net sees each picture four times: at other sizes, mirrored, and turned by a right angle. Where it is right it finds
the same points in all; what it makes up is somewhere else each time. Points are the median of the views, in COCO's
form, for `data.train` of a configuration. They can be no better than that net, so that nothing is measured on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo import geometry
from model_zoo.skeletons import Skeleton
from trainer import files
from trainer.data import people as reading
from trainer.data.people import Person
from trainer.errors import DataError
from trainer.peer import Peer
from trainer.progress import track

VIEWS = ((2.0, 0.0, False), (1.42, 0.0, True), (1.83, 90.0, False), (1.36, -90.0, False))
"""Context about the box, by how much the content is turned clockwise, and whether it is then mirrored."""
FOUND_IN = 3
"""In how many views a person must be found."""
APART = 0.05
"""Farthest mean distance of the views from their median that is agreement, of the long side about the points."""
MARGIN = 0.1
"""About the points on each side, of their long side: the box that is written, as the other sets of hands have it."""
_AT_ONCE = 32

Floats = NDArray[np.floating[Any]]


def label(
    peer: Peer, annotations: Path, skeleton: Skeleton, size: tuple[int, int], images: Path | None = None
) -> dict[str, Any]:
    """Everybody of a set who is there and has no keypoints yet, where the peer agrees with itself.

    Where several are in a picture, what the peer finds is taken for the person in whose box its middle lies.

    Args:
        peer: that looks for them.
        annotations: COCO-keypoints JSON.
        skeleton: of the keypoints; all of them must be the peer's.
        size: height and width of what the peer is shown.
        images: as `trainer.data.people.read`.

    Returns:
        A COCO-keypoints document of those who got keypoints; what else is known of them is kept.

    Raises:
        DataError: the set cannot be read, does not say how large its pictures are, or has nobody to be labelled;
            the peer lacks a keypoint.
    """
    if missing := [name for name in skeleton.keypoints if name not in peer.keypoints]:
        raise DataError(f"{peer.name} knows no {', '.join(missing)} of {skeleton.name}")
    everybody = reading.read(annotations, skeleton, images=images, keypoints_at_least=0)
    people = [each for each in everybody if each.presence != 0 and not each.visible.any()]
    if not people:
        raise DataError(f"{annotations} has nobody without keypoints")
    pictures = {
        number: entry | {"id": number}
        for entry in reading.load_json(annotations)["images"]
        for number in (int(entry["id"]),)  # as `read` has it
    }
    if lacking := {
        each.image_id for each in people if not {"width", "height"} <= pictures[each.image_id].keys()
    }:
        raise DataError(f"{annotations}: images {min(lacking)}: width and height are missing")
    labelled = []
    starts = range(0, len(people), _AT_ONCE)
    for start in track(starts, "Looking at people", total=len(starts)):
        some = people[start : start + _AT_ONCE]
        for person, views in zip(some, seen(peer, some, skeleton, size), strict=True):
            if (points := agreed(views)) is not None and _within(person, points):
                labelled.append((person, points))
    entries = [_entry(number, *each, pictures) for number, each in enumerate(labelled, start=1)]
    return {
        "info": {
            "description": f"Keypoints by {peer.name} ({peer.licence}), not by people",
            "looked_at": len(people),
            "kept": len(entries),
            "rule": f"found in {FOUND_IN} of {len(VIEWS)} views that are {APART:.0%} of the person apart at most",
        },
        "images": [pictures[number] for number in dict.fromkeys(each["image_id"] for each in entries)],
        "annotations": entries,
        "categories": [{"id": 1, "name": skeleton.name, "keypoints": [*skeleton.keypoints]}],
    }


def seen(
    peer: Peer, people: Sequence[Person], skeleton: Skeleton, size: tuple[int, int]
) -> list[list[Floats]]:
    """What the peer finds of each person, view by view where it finds anything: (K, 2) in pixels of the picture."""
    columns = np.array([peer.keypoints.index(name) for name in skeleton.keypoints])
    boxes = np.stack([person.box for person in people])
    found: list[list[Floats]] = [[] for _ in people]
    loaded = [image for _, image in reading.pictures(people)]
    for padding, turned_deg, mirrored in VIEWS:
        matrices = geometry.crop_affine(boxes, size, padding=padding, rotation_deg=turned_deg, flip=mirrored)
        crops = np.stack([geometry.crop(*each, size) for each in zip(loaded, matrices, strict=True)])
        points, scores = peer.find(crops)
        points = geometry.apply(geometry.invert(matrices), points)
        order = columns[[*skeleton.flip_order]] if mirrored else columns
        for views, mine, score in zip(found, points[:, order], scores[:, order], strict=True):
            if (score > 0).all():
                views.append(mine)
    return found


def agreed(views: Sequence[Floats]) -> Floats | None:
    """The median (K, 2) of what was found, None where that is too little or too far apart."""
    if len(views) < FOUND_IN:
        return None
    middle = np.median(views, axis=0)
    size = geometry.box_of_points(middle)[2:].max()
    apart = np.linalg.norm(np.stack(views) - middle, axis=-1).mean()
    return middle if apart <= APART * size else None


def _within(person: Person, points: Floats) -> bool:
    """Whether they are this person's, and no neighbour's whom the context about the box shows too."""
    middle = points.mean(axis=0) - person.box[:2]
    return bool((middle >= 0).all() and (middle <= person.box[2:]).all())


def _entry(
    number: int, person: Person, points: Floats, pictures: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """As COCO has it; a keypoint outside the picture is not labelled."""
    picture = pictures[person.image_id]
    last = np.array([picture["width"], picture["height"]]) - 0.5
    inside = ((points >= -0.5) & (points < last)).all(axis=1)
    keypoints = np.where(inside[:, None], np.column_stack([points, np.full(len(points), 2)]), 0)
    x, y, width, height = geometry.box_of_points(points)
    margin = MARGIN * max(width, height)
    known = {
        "presence": None if person.presence is None else int(person.presence),
        "gesture": person.gesture,
        "handedness": person.handedness,
    }
    return {
        "id": number,
        "image_id": person.image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": np.round([x - margin, y - margin, width + 2 * margin, height + 2 * margin], 2).tolist(),
        "area": round(0.53 * (width + 2 * margin) * (height + 2 * margin), 2),
        "keypoints": np.round(keypoints, 2).ravel().tolist(),
        "num_keypoints": int(inside.sum()),
        **{name: value for name, value in known.items() if value is not None},
    }


def write(document: dict[str, Any], out: Path) -> None:
    """Write the document; DataError where that cannot be."""
    try:
        files.write_text(out, json.dumps(document))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from error
