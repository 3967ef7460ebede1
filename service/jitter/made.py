"""Clips of people made to order, whose joints are known in every frame: sets of `reppose-train synth --kind video`.

Read are COCO keypoints with `video_id`, `frame_index` and `timestamp_s` of each picture, the pictures in a tar of the
same name, and `keypoints_3d` with `camera`, which tell where a joint is that the picture does not show.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import InvalidRequest
from service.streams.smoothing import length_of
from service.types import Floats

MOVING = 0.15
"""Somebody whose joints move by more than this many of the person's lengths a second, in the mean, is in motion."""
FEWEST_FRAMES = 8
"""A clip is measured that has as many of them at rest, and as many in motion."""
FEWEST_SHOWN = 8
"""Joints that have to lie within the picture in every frame."""


@dataclass(frozen=True, eq=False)
class MadeClip:
    """One person in one clip; see `motion.KnownClip`."""

    kind: str
    rate_hz: int
    names: tuple[str, ...]
    times: Floats
    points: Floats
    """(T, K, 2) pixels."""
    archive: Path
    """The tar."""
    places: tuple[tuple[int, int], ...]
    """Offset and size of each frame in it."""

    @property
    def size_px(self) -> float:
        """Median length of the person."""
        return float(np.median([length_of(each) for each in self.points]))

    def truth(self, times: Floats) -> Floats:
        """(T, K, 2) where the joints are at (T,) any times: straight lines between frames, still before and after."""
        flat = self.points.reshape(len(self.points), -1)
        columns = [np.interp(times, self.times, column) for column in flat.T]
        return np.stack(columns, axis=-1).reshape(len(columns[0]), *self.points.shape[1:])

    def is_rest(self, times: Floats) -> Floats:
        """(T,) whether the person is at rest then."""
        speed = np.linalg.norm(np.gradient(self.points, self.times, axis=0), axis=-1).mean(axis=-1)
        return np.interp(times, self.times, speed) < MOVING * self.size_px

    def frames(self) -> Iterator[bytes]:
        """The encoded frames, one after the other."""
        with self.archive.open("rb") as archive:
            for offset, size in self.places:
                archive.seek(offset)
                yield archive.read(size)


def clips(annotations: Path, count: int, seed: int) -> list[MadeClip] | None:
    """Some clips with one person who rests and moves; None where the set has pictures and no clips.

    Raises:
        InvalidRequest: the files cannot be read.
    """
    try:
        data = json.loads(annotations.read_text())
        if not any("video_id" in image for image in data["images"]):
            return None
        found = _read(data, annotations.with_suffix(".tar"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidRequest(f"cannot read photographs or clips from {annotations}: {error!r}") from error
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[index] for index in sorted(order)]


def _read(data: dict[str, Any], archive: Path) -> list[MadeClip]:
    frames: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for image in data["images"]:
        frames[image["video_id"]].append(image)
    people: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for person in data["annotations"]:
        people[person["image_id"]].append(person)
    names = tuple(data["categories"][0]["keypoints"])
    made = [_clip(images, people, names, archive) for images in frames.values()]
    return [clip for clip in made if clip is not None]


def _clip(
    images: list[dict[str, Any]],
    people: dict[int, list[dict[str, Any]]],
    names: tuple[str, ...],
    archive: Path,
) -> MadeClip | None:
    """A clip that can be measured, or None."""
    images = sorted(images, key=lambda image: image["frame_index"])
    shown = [people[image["id"]] for image in images]
    if len(images) < 2 * FEWEST_FRAMES or {len(each) for each in shown} != {1}:
        return None
    persons = [person for [person] in shown]
    if min(person["num_keypoints"] for person in persons) < FEWEST_SHOWN:
        return None
    times = np.array([image["timestamp_s"] for image in images], np.float64)
    points = np.stack([_projected(each, image) for each, image in zip(persons, images, strict=True)])
    if not np.isfinite(points).all() or not (np.diff(times) > 0).all():
        return None
    clip = MadeClip(
        "made", round(1 / float(np.median(np.diff(times)))), names, times, points, archive,
        tuple((image["tar_offset"], image["tar_size"]) for image in images),
    )  # fmt: skip
    rest = clip.is_rest(times).sum()
    return clip if FEWEST_FRAMES <= rest <= len(images) - FEWEST_FRAMES else None


def _projected(person: dict[str, Any], image: dict[str, Any]) -> Floats:
    """(K, 2) pixels of the joints, also of those that the picture does not show."""
    camera = image["camera"]
    joints = np.array(person["keypoints_3d"], np.float64).reshape(-1, 3)
    focal, middle = (np.array([camera[f"{name}x"], camera[f"{name}y"]]) for name in "fc")
    return joints[:, :2] / np.where(joints[:, 2:] > 0, joints[:, 2:], np.nan) * focal + middle
