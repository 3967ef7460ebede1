"""The store of decoded crops: what lies where, and that it is made once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest

from model_zoo.skeletons import BODY19
from tests.trainer import people_made
from trainer.data import people, store
from trainer.data.people import Person, Picture
from trainer.errors import DataError


@pytest.fixture(scope="module")
def made_people(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """Seven people, two of them in one picture."""
    made = people_made.make(tmp_path_factory.mktemp("made"), count=7)
    return people.read(made.annotations, BODY19)


def dotted(folder: Path, at: np.ndarray, box: tuple[float, float, float, float]) -> Person:
    """A person of one joint, which is a white dot on black in a picture of 160 x 120."""
    image = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(image, tuple(int(v) for v in (at * 16).round()), 4 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    path = folder / f"dot-{at[0]:g}-{at[1]:g}.png"
    assert cv2.imwrite(str(path), image)
    one = np.ones(1)
    return Person(1, 1, Picture(path), np.array(box), 1.0, at[None], one.astype(np.int64), one)


def centroid(image: np.ndarray) -> np.ndarray:
    """x, y of the middle of the light."""
    light = image.astype(float).mean(-1)
    rows, columns = np.indices(light.shape)
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize("box", [(20, 10, 90, 80), (60.5, 30.25, 20, 60), (-10, -20, 150, 150)])
def test_points_lie_where_the_picture_shows_them(tmp_path: Path, box: tuple[float, ...]) -> None:
    dots = [np.array(at) for at in ((60.0, 50.0), (75.3, 61.8), (67.5, 42.5))]
    stored = store.build([dotted(tmp_path, at, box) for at in dots], tmp_path / "cache")
    for image, points in zip(stored.images, stored.points, strict=True):
        np.testing.assert_allclose(centroid(image), points[0], atol=0.3)


def test_a_box_is_centred_and_its_long_side_fills_its_share(
    made_people: list[Person], tmp_path: Path
) -> None:
    stored = store.build(made_people, tmp_path)
    middles = stored.boxes[:, :2] + stored.boxes[:, 2:] / 2
    np.testing.assert_allclose(middles, (store.SIDE_PX - 1) / 2, atol=1e-9)
    np.testing.assert_allclose(stored.boxes[:, 2:].max(axis=1), store.SIDE_PX / store.CONTEXT)
    ratios = np.stack([person.box for person in made_people])
    np.testing.assert_allclose(stored.boxes[:, 2] / stored.boxes[:, 3], ratios[:, 2] / ratios[:, 3])


def test_points_keep_their_place_in_the_box_and_weights_are_taken_over(
    made_people: list[Person], tmp_path: Path
) -> None:
    stored = store.build(made_people, tmp_path)
    for index, person in enumerate(made_people):
        inside = (person.points - person.box[:2]) / person.box[2:]
        found = (stored.points[index] - stored.boxes[index, :2]) / stored.boxes[index, 2:]
        np.testing.assert_allclose(found, inside, atol=1e-9)
        np.testing.assert_array_equal(stored.weights[index], person.weight)


def test_a_store_built_elsewhere_is_the_same_byte_by_byte(made_people: list[Person], tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.build(made_people, tmp_path / name)
    (a,), (b,) = (list((tmp_path / name).iterdir()) for name in ("a", "b"))
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()


def test_the_second_call_maps_the_first_one_s_file(made_people: list[Person], tmp_path: Path) -> None:
    store.build(made_people, tmp_path)
    (path,) = tmp_path.iterdir()
    written = np.load(path, mmap_mode="r+")
    written[0, 0, 0] = (1, 2, 3)
    written.flush()
    again = store.build(made_people, tmp_path)
    assert again.images[0, 0, 0].tolist() == [1, 2, 3]  # not decoded anew
    assert not again.images.flags.writeable


@pytest.mark.parametrize("what", ["order", "box", "number"])
def test_other_people_get_another_file(made_people: list[Person], tmp_path: Path, what: str) -> None:
    others = list(made_people)
    if what == "order":
        others = others[::-1]
    elif what == "number":
        others.pop()
    else:
        others[0] = Person(**{**vars(others[0]), "box": others[0].box + 1})
    store.build(made_people, tmp_path)
    store.build(others, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_labels_alone_need_no_new_crops(made_people: list[Person], tmp_path: Path) -> None:
    silenced = [each.with_labels(each.points + 1, each.visible, each.weight * 0) for each in made_people]
    first, second = store.build(made_people, tmp_path), store.build(silenced, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert first.weights.any()
    assert not second.weights.any()


def _build(annotations: Path, cache: Path) -> None:
    store.build(people.read(annotations, BODY19), cache)


def test_processes_that_race_leave_one_whole_file(tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=7)
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_build, args=(made.annotations, tmp_path / "cache")) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    alone = store.build(people.read(made.annotations, BODY19), tmp_path / "alone")
    (raced,) = (tmp_path / "cache").iterdir()
    np.testing.assert_array_equal(np.load(raced), alone.images)


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_picture_that_cannot_be_read_is_named_and_nothing_stays_behind(tmp_path: Path, damage: str) -> None:
    made = people_made.make(tmp_path, count=4)
    picture = tmp_path / made.document["images"][2]["file_name"]
    if damage == "missing":
        picture.unlink()
    else:
        picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match=picture.name):
        store.build(people.read(made.annotations, BODY19), tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*")) == []


def test_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody"):
        store.build([], tmp_path)
