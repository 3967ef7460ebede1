"""Reading COCO-keypoints JSON: both forms of pictures, merging by name, what is left out, what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.skeletons import BODY19, COCO17, HAND21, LSP14, Skeleton
from tests.trainer import people_made
from tests.trainer.people_made import MadeSet
from trainer.data import people
from trainer.errors import DataError

Document = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    """Six people in a folder of pictures."""
    return people_made.make(tmp_path_factory.mktemp("made"), count=6)


def rewritten(made: MadeSet, change: Callable[[Document], object]) -> Path:
    """The set's JSON with something changed, beside its pictures."""
    document = copy.deepcopy(made.document)
    change(document)
    path = made.annotations.with_name("changed.json")
    path.write_text(json.dumps(document), "utf-8")
    return path


def only_annotation(document: Document, **values: Any) -> None:
    """Keep the first annotation alone, with other values; None takes a key away."""
    entry = document["annotations"][0] | values
    document["annotations"] = [{key: value for key, value in entry.items() if value is not None}]


@pytest.mark.parametrize("skeleton", [BODY19, COCO17, LSP14], ids=lambda each: each.name)
def test_a_folder_and_an_indexed_tar_hold_the_same_people(tmp_path: Path, skeleton: Skeleton) -> None:
    folder = people_made.make(tmp_path / "folder", skeleton=skeleton)
    tar = people_made.make(tmp_path / "tar", skeleton=skeleton, tar=True)
    pairs = list(
        zip(people.read(folder.annotations, BODY19), people.read(tar.annotations, BODY19), strict=True)
    )
    assert len(pairs) == 12
    for a, b in pairs:
        assert (a.id, a.image_id, a.area) == (b.id, b.image_id, b.area)
        for name in ("box", "points", "visible", "weight"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(a.picture.load(), folder.pictures[a.image_id])
        np.testing.assert_array_equal(b.picture.load(), folder.pictures[a.image_id])


@pytest.mark.parametrize("source", [BODY19, COCO17, LSP14], ids=lambda each: each.name)
@pytest.mark.parametrize("wanted", [BODY19, COCO17, LSP14], ids=lambda each: each.name)
def test_keypoints_land_by_name_and_the_rest_has_no_weight(
    tmp_path: Path, source: Skeleton, wanted: Skeleton
) -> None:
    made = people_made.make(tmp_path, skeleton=source, unlabelled=0)
    found = people.read(made.annotations, wanted)
    assert len(found) == len(made.poses)
    for person, pose in zip(found, made.poses, strict=True):
        for index, name in enumerate(wanted.keypoints):
            if name in source.keypoints:
                np.testing.assert_array_equal(person.points[index], pose[BODY19.index(name)])
                assert person.weight[index] == 1
                assert person.visible[index] > 0
            else:
                np.testing.assert_array_equal(person.points[index], 0)
                assert person.weight[index] == person.visible[index] == 0


def test_every_category_brings_its_own_names(made: MadeSet) -> None:
    def reverse_names_of_a_second_category(document: Document) -> None:
        names = document["categories"][0]["keypoints"]
        document["categories"].append({"id": 7, "keypoints": names[::-1]})
        first = document["annotations"][0]
        labels = np.reshape(first["keypoints"], (-1, 3))[::-1]
        document["annotations"][0] = first | {"category_id": 7, "keypoints": labels.ravel().tolist()}

    changed, plain = (
        people.read(path, BODY19)[0]
        for path in (rewritten(made, reverse_names_of_a_second_category), made.annotations)
    )
    np.testing.assert_array_equal(changed.points, plain.points)
    np.testing.assert_array_equal(changed.visible, plain.visible)


def test_the_label_of_an_unlabelled_keypoint_is_not_looked_at(made: MadeSet) -> None:
    def label(document: Document) -> None:
        only_annotation(document, keypoints=[50.0, 60.0, 2] * 18 + [7.0, 8.0, 0])

    (person,) = people.read(rewritten(made, label), BODY19)
    np.testing.assert_array_equal(person.points[18], 0)
    assert person.weight.tolist() == [1] * 18 + [0]


@pytest.mark.parametrize(
    "values",
    [
        {"iscrowd": 1},
        {"bbox": [5, 5, 0, 30]},
        {"bbox": [5, 5, 30, 0]},
        {"bbox": [5, 5, -3, 30]},
        {"keypoints": None},
        {"keypoints": [20.0, 20.0, 2] * 4 + [0, 0, 0] * 15},
    ],
    ids=["crowd", "no width", "no height", "negative width", "box only", "four keypoints"],
)
def test_what_cannot_be_learnt_from_is_left_out(made: MadeSet, values: Document) -> None:
    def spoil_the_first(document: Document) -> None:
        document["annotations"][0] |= values
        if values.get("keypoints", ()) is None:
            del document["annotations"][0]["keypoints"]

    found = people.read(rewritten(made, spoil_the_first), BODY19, keypoints_at_least=5)
    assert [person.id for person in found] == [2, 3, 4, 5, 6]


def test_just_enough_keypoints_are_enough(made: MadeSet) -> None:
    def label_four(document: Document) -> None:
        only_annotation(document, keypoints=[20.0, 20.0, 1] * 4 + [0, 0, 0] * 15)

    path = rewritten(made, label_four)
    assert len(people.read(path, BODY19, keypoints_at_least=4)) == 1
    assert people.read(path, BODY19, keypoints_at_least=5) == []


def test_without_an_area_the_usual_share_of_the_box_stands_in(made: MadeSet) -> None:
    path = rewritten(made, lambda document: only_annotation(document, area=None, bbox=[1, 2, 10, 20]))
    assert people.read(path, BODY19)[0].area == pytest.approx(0.53 * 200)
    path = rewritten(made, lambda document: only_annotation(document, area=77.5))
    assert people.read(path, BODY19)[0].area == 77.5


def test_pictures_can_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    made = people_made.make(tmp_path / "pictures", count=3)
    elsewhere = tmp_path / "labels" / "people.json"
    elsewhere.parent.mkdir()
    made.annotations.rename(elsewhere)
    (first, *_) = people.read(elsewhere, BODY19, images=tmp_path / "pictures")
    np.testing.assert_array_equal(first.picture.load(), made.pictures[1])


def test_a_shared_picture_is_decoded_once_and_everyone_gets_their_own(tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=12)
    found = people.read(made.annotations, BODY19)
    given_out = list(people.pictures(found))
    assert [person.id for person, _ in given_out] == [person.id for person in found]
    for person, image in given_out:
        np.testing.assert_array_equal(image, made.pictures[person.image_id])
    by_id = {person.id: image for person, image in given_out}
    assert by_id[5] is by_id[6]  # the fifth picture shows two people
    assert by_id[4] is not by_id[5]


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"images": [], "annotations": [], "categories": []}'],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"wrong\.json"):
        people.read(path, BODY19)


def test_a_missing_file_or_folder_of_pictures_is_named(made: MadeSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json"):
        people.read(tmp_path / "absent.json", BODY19)
    with pytest.raises(DataError, match="no-pictures"):
        people.read(made.annotations, BODY19, images=tmp_path / "no-pictures")


def test_a_set_of_other_keypoints_is_refused(made: MadeSet) -> None:
    with pytest.raises(DataError, match="names no keypoint of hand21"):
        people.read(made.annotations, HAND21)


@pytest.mark.parametrize(
    "values",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, 4, 5]},
        {"bbox": [float("nan"), 2, 3, 4]},
        {"bbox": [1, 2, float("inf"), 4]},
        {"bbox": "1234"},
        {"bbox": None},
        {"area": float("nan")},
        {"area": -4},
        {"area": "large"},
        {"keypoints": [1.0, 2.0]},
        {"keypoints": [1.0, 2.0, 2] * 5},
        {"keypoints": [float("nan"), 2.0, 2] * 19},
        {"keypoints": [1.0, 2.0, 3] * 19},
        {"keypoints": [1.0, 2.0, -1] * 19},
        {"keypoints": ["a", "b", "c"] * 19},
        {"image_id": 999},
        {"image_id": [1]},
        {"category_id": 999},
        {"id": "first"},
        {"id": None},
    ],
    ids=repr,
)
def test_a_malformed_annotation_names_the_file(made: MadeSet, values: Document) -> None:
    path = rewritten(made, lambda document: only_annotation(document, **values))
    with pytest.raises(DataError, match=r"changed\.json"):
        people.read(path, BODY19)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, 3, "text", [3], ["text"], [None], [[]], {"a": 1}], ids=repr)
def test_a_part_of_another_type_names_the_file(made: MadeSet, part: str, value: object) -> None:
    path = rewritten(made, lambda document: document.update({part: value}))
    with pytest.raises(DataError, match=r"changed\.json"):
        people.read(path, BODY19)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
_places = st.sampled_from(
    [("images", key) for key in ("id", "file_name")]
    + [
        ("annotations", key)
        for key in ("id", "image_id", "category_id", "iscrowd", "bbox", "area", "keypoints")
    ]
    + [("categories", key) for key in ("id", "keypoints")]
)


@given(place=_places, value=_values)
def test_whatever_stands_in_a_field_it_is_read_or_refused_by_name(
    made: MadeSet, place: tuple[str, str], value: object
) -> None:
    part, key = place
    path = rewritten(made, lambda document: document[part][0].update({key: value}))
    refusal = None
    try:
        found = people.read(path, BODY19)
        for person in found:
            person.picture.load()
    except DataError as error:
        refusal = str(error)
    if refusal is not None:
        assert str(made.annotations.parent) in refusal
        return
    for person in found:
        assert np.isfinite([*person.points.ravel(), *person.box]).all()
        assert person.area > 0


@given(st.binary(max_size=400))
def test_a_picture_of_any_bytes_is_decoded_or_refused_by_name(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"any\.png"):
        people.Picture(path).load()


def test_a_missing_or_broken_picture_is_named(made: MadeSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        people.Picture(tmp_path / "gone.png").load()
    with pytest.raises(DataError, match=str(tmp_path)):
        people.Picture(tmp_path).load()
    with pytest.raises(DataError, match="people"):
        people.Picture(made.annotations).load()


def test_a_truncated_tar_is_refused_by_name(tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=3, tar=True)
    tar = tmp_path / "people.tar"
    last = made.document["images"][-1]
    content = tar.read_bytes()
    for end in (last["tar_offset"] + last["tar_size"] - 1, last["tar_offset"], 10):
        tar.write_bytes(content[:end])
        *_, person = people.read(made.annotations, BODY19)
        with pytest.raises(DataError, match=r"people\.tar"):
            person.picture.load()


def test_half_a_jpeg_is_no_picture(tmp_path: Path) -> None:
    # A decoder fills what is missing of a JPEG with grey and calls it a picture.
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    content = cv2.imencode(".jpg", image)[1].tobytes()
    tar = tmp_path / "cut.tar"
    tar.write_bytes(bytes(512) + content)
    whole = people.Picture(tar, 512, len(content))
    assert whole.load().shape == (64, 64, 3)
    tar.write_bytes((bytes(512) + content)[:-1])
    with pytest.raises(DataError, match=r"cut\.tar ends before the picture at byte 512"):
        whole.load()


@pytest.mark.parametrize(
    "values",
    [
        {"tar_offset": -1},
        {"tar_size": 0},
        {"tar_size": -5},
        {"tar_offset": None},
        {"tar_offset": float("inf")},
    ],
    ids=repr,
)
def test_a_byte_range_that_is_none_is_refused(tmp_path: Path, values: Document) -> None:
    made = people_made.make(tmp_path, count=2, tar=True)
    made.document["images"][0] |= values
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    with pytest.raises(DataError, match=r"people\.json"):
        people.read(made.annotations, BODY19)


def test_the_made_set_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    a, b, other = (
        people_made.make(tmp_path / name, seed=seed, count=4) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert a.document == b.document
    np.testing.assert_array_equal(a.poses, b.poses)
    assert all((a.pictures[key] == b.pictures[key]).all() for key in a.pictures)
    assert not np.array_equal(a.poses, other.poses)
