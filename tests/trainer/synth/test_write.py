"""What is written is what was made, byte for byte, however many processes make it and whoever interrupts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as rle

from model_zoo.skeletons import BODY19, HAND21
from tests.trainer.synth import painted
from trainer.data import people, store
from trainer.errors import DataError
from trainer.synth import contact_sheet, parts
from trainer.synth.backgrounds import Backgrounds
from trainer.synth.recipe import Recipe
from trainer.synth.write import frames, write

ROOT = Path(__file__).parents[3]
RECIPE = Recipe("body", n=10, seed=3, size=64)


def made(folder: Path) -> dict[str, bytes]:
    """Every file of a set."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of `RECIPE`, made by one process without a break."""
    folder = tmp_path_factory.mktemp("alone")
    write(folder, RECIPE, painted.kind())
    return folder


def test_the_reader_finds_what_was_made(alone: Path) -> None:
    found = people.read(alone / "body.json", BODY19)
    expected = [
        (index, sample, person)
        for index in range(RECIPE.n)
        for sample in painted.maker(RECIPE)(index)
        for person in sample.people
    ]
    assert len(found) == len(expected) == 9
    for read, (index, sample, person) in zip(found, expected, strict=True):
        assert read.image_id == index + 1
        inside = person.keypoints[:, 2] > 0
        assert 0 < inside.sum() < len(inside)
        np.testing.assert_array_equal(read.visible, person.keypoints[:, 2])
        np.testing.assert_allclose(read.points[inside], person.keypoints[inside, :2], atol=0.006)
        np.testing.assert_allclose(read.box, person.box, atol=0.006)
        assert read.area == person.mask.sum()
        # A JPEG of what was made, not of another index.
        assert np.abs(read.picture.load().astype(int) - sample.image).mean() < 20


def test_metres_become_pixels_as_large_as_the_picture_shows_them(alone: Path) -> None:
    """The span of z over the span of x is the same in metres and in the reader's pixels."""
    expected = [person for index in range(RECIPE.n) for person in painted.maker(RECIPE)(index)[0].people]
    for read, person in zip(people.read(alone / "body.json", BODY19), expected, strict=True):
        metres = person.keypoints_3d[:-1]
        pixels_per_metre = np.ptp(read.points[:-1, 0]) / np.ptp(metres[:, 0])
        assert np.ptp(read.depth[:-1]) == pytest.approx(np.ptp(metres[:, 2]) * pixels_per_metre, rel=0.1)
        assert np.isnan(read.depth[-1])


def test_nobody_stands_behind_the_camera(alone: Path, tmp_path: Path) -> None:
    document = json.loads((alone / "body.json").read_text())
    depths = document["annotations"][0]["keypoints_3d"]
    document["annotations"][0]["keypoints_3d"] = [-each for each in depths]
    (tmp_path / "body.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(DataError, match="annotation 1: somebody behind the camera"):
        people.read(tmp_path / "body.json", BODY19, images=alone / "body.tar")


def test_what_the_json_tells_beyond_coco(alone: Path) -> None:
    document = json.loads((alone / "body.json").read_text())
    sample = painted.maker(RECIPE)(2)[0]
    image = document["images"][2]
    assert image["camera"]["fx"] == pytest.approx(sample.camera.fx, abs=1e-3)
    assert image["made"]["jpeg_quality"] == sample.meta["jpeg_quality"]
    first = next(each for each in document["annotations"] if each["image_id"] == 3)
    np.testing.assert_array_equal(rle.decode(first["segmentation"]), sample.people[0].mask)
    points = np.array(first["keypoints_3d"]).reshape(-1, 3)
    kept = np.array(first["keypoints"]).reshape(-1, 3)
    np.testing.assert_allclose(sample.camera.to_pixels(points)[:-1], kept[:-1, :2], atol=0.02)
    assert kept[-1].tolist() == [0, 0, 0]
    assert sample.camera.to_pixels(points)[-1] == pytest.approx([2 * RECIPE.size] * 2, abs=0.02)
    assert document["info"]["seed"] == RECIPE.seed


def test_the_tar_is_one_that_others_can_read(alone: Path) -> None:
    document = json.loads((alone / "body.json").read_text())
    with tarfile.open(alone / "body.tar") as archive:
        members = archive.getmembers()
    assert [each.name for each in members] == [each["file_name"] for each in document["images"]]
    assert [each.offset_data for each in members] == [each["tar_offset"] for each in document["images"]]
    assert [each.size for each in members] == [each["tar_size"] for each in document["images"]]


def test_the_store_takes_it(alone: Path, tmp_path: Path) -> None:
    found = people.read(alone / "body.json", BODY19)
    assert len(store.build(found, tmp_path)) == len(found)


def test_two_processes_make_the_same_bytes(alone: Path, tmp_path: Path) -> None:
    write(tmp_path, RECIPE, painted.kind(), jobs=2)
    assert made(tmp_path) == made(alone)


def test_another_seed_makes_other_pictures(alone: Path, tmp_path: Path) -> None:
    maker = painted.maker(RECIPE)
    other = painted.maker(Recipe("body", n=10, seed=4, size=64))
    assert not np.array_equal(maker(1)[0].image, other(1)[0].image)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_set_goes_on_and_ends_with_the_same_bytes(
    alone: Path, tmp_path: Path, number: signal.Signals
) -> None:
    code = f"""
from pathlib import Path
from tests.trainer.synth import painted
from tests.trainer.synth.test_write import RECIPE
from trainer.synth.write import write
if __name__ == "__main__":
    write(Path({str(tmp_path)!r}), RECIPE, painted.kind(painted.slow))
"""
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(code, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    pieces = parts.places(tmp_path / "body.parts", RECIPE.n, painted.kind().chunk)
    deadline = time.monotonic() + 60
    while sum(len(place.finished()) for place in pieces) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert "the same command goes on" in told
    done = sum(len(place.finished()) for place in pieces)
    assert 3 <= done < RECIPE.n
    write(tmp_path, RECIPE, painted.kind(painted.maker), jobs=2)
    assert made(tmp_path) == made(alone)


def test_finished_indices_are_not_made_again(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "body.parts"
    folder.mkdir()
    RECIPE.save(tmp_path / "body.recipe.json")
    kind = painted.kind(painted.failing)
    with parts.Part(parts.places(folder, RECIPE.n, kind.chunk)[0]) as part:
        for index in range(3):  # the failing maker's picture among them
            part.append(index, frames(RECIPE, kind, painted.maker(RECIPE), index))
    write(tmp_path, RECIPE, kind)
    assert made(tmp_path) == made(alone)


def test_what_is_half_written_is_cut_off(tmp_path: Path) -> None:
    kind, [place] = painted.kind(), parts.places(tmp_path, 3, 3)
    made_of = [frames(RECIPE, kind, painted.maker(RECIPE), index) for index in range(3)]
    with parts.Part(place) as part:
        for index in part.remaining:
            part.append(index, made_of[index])
    whole = place.tar.read_bytes(), place.lines.read_bytes()
    ends = [entry["end"] for entry in place.finished()]
    for tar_cut, lines_cut, left in (
        (len(whole[0]), len(whole[1]) - 1, 1),  # a line without its end
        (ends[1] + 100, len(whole[1]), 1),  # pictures that never reached the disk
        (ends[0] - 1, len(whole[1]), 3),
        (len(whole[0]), 0, 3),
    ):
        place.tar.write_bytes(whole[0][:tar_cut])
        place.lines.write_bytes(whole[1][:lines_cut])
        with parts.Part(place) as part:
            assert len(part.remaining) == left
            for index in part.remaining:
                part.append(index, made_of[index])
        assert (place.tar.read_bytes(), place.lines.read_bytes()) == whole


def test_a_finished_set_is_left_alone(alone: Path) -> None:
    before = made(alone)
    write(alone, RECIPE, painted.kind(painted.dying))
    assert made(alone) == before


def test_another_recipe_is_refused_and_harms_nothing(alone: Path) -> None:
    before = made(alone)
    with pytest.raises(DataError, match="another n and seed"):
        write(alone, Recipe("body", n=11, seed=5, size=64), painted.kind())
    assert made(alone) == before


def test_what_goes_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="picture 2: no such pose"):
        write(tmp_path / "failing", RECIPE, painted.kind(painted.failing))
    with pytest.raises(DataError, match="ended with status 9"):
        write(tmp_path / "dying", RECIPE, painted.kind(painted.dying))


def test_frames_of_clips_know_their_time(tmp_path: Path) -> None:
    write(tmp_path, Recipe("video", n=2, seed=1, size=48), painted.kind(painted.clips, chunk=1))
    images = json.loads((tmp_path / "body.json").read_text())["images"]
    assert [(each["video_id"], each["frame_index"]) for each in images] == [
        (clip, frame) for clip in (1, 2) for frame in range(3)
    ]
    assert [each["timestamp_s"] for each in images[:3]] == pytest.approx([0, 1 / 30, 2 / 30], abs=1e-6)


def test_the_contact_sheet_shows_joints_where_they_are(alone: Path) -> None:
    sheet = cv2.cvtColor(cv2.imread(str(alone / "body.jpg")), cv2.COLOR_BGR2RGB).astype(int)
    assert sheet.shape == (2 * contact_sheet.TILE_PX, 8 * contact_sheet.TILE_PX, 3)
    person = painted.maker(RECIPE)(1)[0].people[0]  # second tile
    factor = contact_sheet.TILE_PX / RECIPE.size
    x, y = ((person.keypoints[16, :2] + 0.5) * factor - 0.5).round().astype(int)
    assert np.abs(sheet[y, x + contact_sheet.TILE_PX] - contact_sheet.SEEN).max() < 60


def test_a_set_of_other_joints_is_not_taken_for_hands(alone: Path) -> None:
    with pytest.raises(DataError, match="no keypoint of hand21"):
        people.read(alone / "body.json", HAND21)


def test_backgrounds_of_a_folder_come_into_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        Backgrounds(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    one = Recipe("body", 1, backgrounds=tmp_path).facts
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((8, 8, 3), np.uint8))
    two = Recipe("body", 1, backgrounds=tmp_path).facts
    assert one["backgrounds"] != two["backgrounds"]
    assert str(tmp_path) not in json.dumps(two)
