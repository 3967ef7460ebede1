"""Labels by another net: kept where it agrees with itself on several views, in pixels of the picture."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from model_zoo.skeletons import BODY19, HAND21, Skeleton
from tests.trainer import peer_made, people_made
from trainer import cli, labelling
from trainer.benchmark_families import FAMILIES
from trainer.data import people
from trainer.errors import DataError
from trainer.peer import Peer

SIDE, SIZE = 120, (384, 384)


def picture(kind: str) -> NDArray[np.uint8]:
    """BGR; `dots` to be found, `doubt` with what makes the net guess, `nothing`."""
    image = np.full((SIDE, SIDE, 3), 60, np.uint8)
    if kind != "nothing":
        for centre, colour in zip(peer_made.DOTS, ((0, 0, 255), (0, 255, 0), (255, 0, 0)), strict=True):
            cv2.circle(image, [int(each) for each in centre], 6, colour, cv2.FILLED)
    if kind == "doubt":
        image[100:, 100:] = 255
    return image


def json_of(folder: Path, size: dict[str, int], boxes: dict[int, list[int]]) -> Path:
    """One picture, `0.png`, and people of whom nothing but their boxes is known."""
    path = folder / "boxes.json"
    annotations = [
        {"id": number, "image_id": 0, "category_id": 1, "bbox": box} for number, box in boxes.items()
    ]
    image = {"id": 0, "file_name": "0.png", "width": SIDE, "height": SIDE} | size
    document = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "hand"}]}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """Five: one has keypoints already, and of one it is said that nobody is there."""
    kinds = ("dots", "doubt", "nothing", "dots", "dots")
    annotations: list[dict[str, Any]] = []
    for number, kind in enumerate(kinds):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(kind))
        annotations.append(
            {
                "id": 10 + number,
                "image_id": number,
                "category_id": 1,
                "bbox": [0, 0, SIDE, SIDE],
                "presence": 1,
            }
        )
    annotations[0] |= {"gesture": "5", "handedness": "left"}
    annotations[3]["presence"] = 0
    annotations[4]["keypoints"] = [50, 50, 2] * 21
    images = [
        {"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}
        for number in range(len(kinds))
    ]
    categories = [{"id": 1, "name": "hand", "keypoints": [*HAND21.keypoints]}]
    path = tmp_path / "patches.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def truth(keypoints: tuple[str, ...], skeleton: Skeleton) -> NDArray[np.float64]:
    """Where the dots put the keypoints of the skeleton, in pixels of the picture."""
    axes = peer_made.DOTS[1:] - peer_made.DOTS[0]
    found = peer_made.DOTS[0] + peer_made.places(len(keypoints)) @ axes
    return found[[keypoints.index(name) for name in skeleton.keypoints]]


def test_who_is_seen_alike_gets_keypoints(patches: Path, tmp_path: Path) -> None:
    document = labelling.label(peer_made.Made(), patches, HAND21, SIZE)
    assert (document["info"]["looked_at"], document["info"]["kept"]) == (3, 1)
    labelling.write(document, tmp_path / "new" / "labelled.json")
    [person] = people.read(tmp_path / "new" / "labelled.json", HAND21, images=tmp_path)
    wanted = truth(peer_made.HAND, HAND21)
    assert (person.image_id, person.gesture, person.handedness, person.presence) == (0, "5", "left", 1)
    np.testing.assert_allclose(person.points, wanted, atol=0.5)
    assert (person.visible == 2).all()
    low, high = person.box[:2], person.box[:2] + person.box[2:]
    margin = labelling.MARGIN * np.ptp(wanted, axis=0).max()
    np.testing.assert_allclose([wanted.min(axis=0) - low, high - wanted.max(axis=0)], margin, atol=0.6)


def test_sides_of_a_mirrored_body_are_the_body_s_own(patches: Path) -> None:
    """The net calls the left side of a mirrored body its right one, as any does."""
    net = peer_made.Made(BODY19.keypoints, BODY19.flip_order)
    [found] = labelling.seen(net, people.read(patches, HAND21)[:1], BODY19, SIZE)
    assert len(found) == len(labelling.VIEWS)
    for view in found:
        np.testing.assert_allclose(view, truth(BODY19.keypoints, BODY19), atol=0.6)


def test_agreement_is_measured_by_the_size_of_what_was_found() -> None:
    square = np.array([[0.0, 0], [100, 0], [0, 100], [100, 100]])
    for moved, agrees in ((5.2, True), (5.4, False)):  # of three views two are sqrt(2) as far from the median
        assert (2 / 3 * np.sqrt(2) * moved <= 100 * labelling.APART) is np.bool_(agrees)
        for scale in (0.2, 1.0, 7.0):
            views = [square * scale, (square + moved) * scale, (square - moved) * scale]
            assert (labelling.agreed(views) is not None) is agrees
    assert labelling.agreed([square] * (labelling.FOUND_IN - 1)) is None
    np.testing.assert_allclose(labelling.agreed([square, square + 1, square + 10, square]), square + 0.5)


def test_what_lies_outside_the_picture_is_not_labelled(
    patches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_made, "places", lambda count: np.tile([[0.0, 0.0], [-1, 0]], (count, 1))[:count])
    document = labelling.label(peer_made.Made(), patches, HAND21, SIZE)
    [entry] = document["annotations"]
    labels = np.array(entry["keypoints"]).reshape(-1, 3)
    assert entry["num_keypoints"] == (labels[:, 2] == 2).sum() == 11
    assert not labels[labels[:, 2] == 0].any()


def test_a_peer_of_something_else_is_refused(patches: Path) -> None:
    with pytest.raises(DataError, match=r"knows no nose, .* of body19"):
        labelling.label(peer_made.Made(), patches, BODY19, SIZE)


def test_the_command_runs_the_program(patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "hand", replace(FAMILIES["hand"], peer=Path(peer_made.__file__)))
    out = tmp_path / "labelled.json"
    run = ["label", patches.name, str(out), "--data", str(tmp_path), "--peer", sys.executable]
    told = CliRunner().invoke(cli.app, run)
    assert told.exit_code == 0, told.output
    assert told.output.rstrip().endswith("labelled.json: 1 of 3")
    document = json.loads(out.read_text())
    assert "Dots 1.0 (none)" in document["info"]["description"]
    assert [each["image_id"] for each in document["annotations"]] == [0]
    finished = tmp_path / "finished.json"
    entries = [each for each in json.loads(patches.read_text())["annotations"] if each.get("keypoints")]
    finished.write_text(json.dumps(json.loads(patches.read_text()) | {"annotations": entries}))
    told = CliRunner().invoke(cli.app, [*run[:1], finished.name, *run[2:]])
    assert told.exit_code != 0
    assert "has nobody without keypoints" in str(told.exception)


def test_a_neighbour_s_hand_is_not_this_one_s(tmp_path: Path) -> None:
    """Both boxes' surroundings show the only hand that the net can see."""
    cv2.imwrite(str(tmp_path / "0.png"), np.hstack([picture("dots"), picture("nothing")]))
    boxes = {1: [20, 10, 80, 100], 2: [105, 0, 110, 110]}
    document = json_of(tmp_path, {"width": 2 * SIDE}, boxes)
    found = labelling.label(peer_made.Made(), document, HAND21, SIZE)
    assert [each["id"] for each in found["images"]] == [0]
    [entry] = found["annotations"]
    x, _, width, _ = entry["bbox"]
    assert found["info"]["looked_at"] == 2
    assert boxes[1][0] <= x + width / 2 <= boxes[1][0] + boxes[1][2]


def test_a_box_is_enough_of_a_label_to_look_there(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture("dots"))
    document = labelling.label(peer_made.Made(), json_of(tmp_path, {}, {1: [0, 0, SIDE, SIDE]}), HAND21, SIZE)
    [entry] = document["annotations"]
    np.testing.assert_allclose(
        np.array(entry["keypoints"]).reshape(-1, 3)[:, :2], truth(peer_made.HAND, HAND21), atol=0.5
    )
    assert "presence" not in entry


def test_a_set_that_does_not_tell_its_pictures_sizes_is_refused_before_anybody_is_looked_at(
    tmp_path: Path,
) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture("dots"))
    path = json_of(tmp_path, {}, {1: [0, 0, SIDE, SIDE]})
    document = json.loads(path.read_text())
    del document["images"][0]["width"]
    path.write_text(json.dumps(document))
    peer = peer_made.Made()
    peer.find = pytest.fail
    with pytest.raises(DataError, match="images 0: width and height are missing"):
        labelling.label(peer, path, HAND21, SIZE)


def test_the_command_takes_a_tar_and_its_answer_is_read_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "hand", replace(FAMILIES["hand"], peer=Path(peer_made.__file__)))
    encoded = cv2.imencode(".png", np.vstack([picture("nothing"), picture("dots")]))[1].tobytes()
    (tmp_path / "stored").mkdir()
    tar, image = tmp_path / "stored" / "hands.tar", {"id": 0, "file_name": "0.png", "height": 2 * SIDE}
    people_made.write_tar(tar, [image], {0: encoded})
    json_of(tmp_path, image, {1: [10, 10 + SIDE, 100, 100]})
    out = tmp_path / "new" / "labelled.json"
    run = ["label", "boxes.json", str(out), "--data", str(tmp_path), "--images", "stored/hands.tar"]
    told = CliRunner().invoke(cli.app, [*run, "--peer", sys.executable])
    assert told.exit_code == 0, told.output
    [person] = people.read(out, HAND21, images=tar)
    np.testing.assert_allclose(person.points, truth(peer_made.HAND, HAND21) + np.array([0, SIDE]), atol=0.5)
    [(_, image)] = people.pictures([person])
    assert image.shape == (2 * SIDE, SIDE, 3)
    for wrong, reason in (
        (tmp_path, "it is a folder, or the set itself"),
        (tmp_path / "boxes.json", "it is a folder, or the set itself"),
        (tmp_path / "boxes.json" / "new.json", "cannot be made"),
    ):
        told = CliRunner().invoke(cli.app, [run[0], run[1], str(wrong), *run[3:], "--peer", sys.executable])
        assert told.exit_code == 2
        assert reason in told.output
    assert not list(out.parent.glob("*.partial"))


def test_numbers_of_pictures_may_be_text(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture("dots"))
    path = json_of(tmp_path, {"id": "0"}, {1: [0, 0, SIDE, SIDE]})
    path.write_text(path.read_text().replace('"image_id": 0', '"image_id": "0"'))
    labelling.write(labelling.label(peer_made.Made(), path, HAND21, SIZE), tmp_path / "labelled.json")
    [person] = people.read(tmp_path / "labelled.json", HAND21)
    assert (person.image_id, person.visible.all()) == (0, True)


def test_what_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*labelled\.json: "):
        labelling.write({}, tmp_path / "file" / "labelled.json")


def test_a_peer_that_has_ended_is_one_clear_line(tmp_path: Path) -> None:
    program = tmp_path / "brief.py"
    program.write_text('print(\'{"name": "Brief", "licence": "none", "keypoints": []}\', flush=True)')
    with Peer(Path(sys.executable), program) as peer:
        peer._process.wait()
        with pytest.raises(DataError, match="Brief ended without an answer"):
            peer.find(np.zeros((1, 8, 8, 3), np.uint8))
