"""Measuring: a net that knows the answer gets full marks, whatever the decoder, the batch and the picture's form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_zoo import codecs, geometry
from model_zoo.codecs import gaussian
from model_zoo.manifest import BundleManifest, Codec
from model_zoo.skeletons import BODY19, COCO17, LSP14, Skeleton
from tests.trainer import people_made
from trainer import evaluate
from trainer.data import people
from trainer.data.people import Person
from trainer.errors import DataError

SIZE, STRIDE, PADDING = (128, 96), 4, 1.25
CODEC = Codec(sigma_cells=1.5)


class Oracle:
    """A net that looks nothing up in the picture but the order of its crops, and is always right."""

    def __init__(self, found: list[Person]) -> None:
        matrices = geometry.crop_affine(np.stack([p.box for p in found]), SIZE, padding=PADDING)
        points = geometry.apply(matrices, np.stack([p.points for p in found]))
        size = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
        self.maps = gaussian.draw(geometry.pixels_to_cells(points, STRIDE), size, CODEC.sigma_cells)
        self.calls: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The next maps."""
        at = sum(self.calls)
        self.calls.append(len(images))
        return self.maps[at : at + len(images)]


def manifest(training: dict[str, object]) -> BundleManifest:
    """A manifest for the crops above."""
    return BundleManifest.model_validate(
        {
            "name": "oracle", "version": "1", "description": "Knows", "licence": "none", "skeleton": "body19",
            "keypoints": BODY19.keypoints,
            "input": {"name": "images", "height": SIZE[0], "width": SIZE[1], "padding": PADDING},
            "outputs": [
                {"name": "heatmaps", "height": SIZE[0] // STRIDE, "width": SIZE[1] // STRIDE, "stride": STRIDE}
            ],
            "codec": CODEC, "macs": 1, "parameters": 1, "opset": 17, "training": training,
        }
    )  # fmt: skip


@pytest.fixture
def training() -> dict[str, object]:
    """Where the oracle comes from: nowhere."""
    return {
        "command": "none", "config": {}, "seed": 1, "epochs": 0, "hours": 0, "hardware": "none", "started": "never",
        "versions": {}, "data": [],
    }  # fmt: skip


def made(folder: Path, skeleton: Skeleton = BODY19) -> list[Person]:
    """Twelve people."""
    return people.read(people_made.make(folder, skeleton=skeleton, unlabelled=0).annotations, BODY19)


@pytest.mark.parametrize("decoder", ["dark", "udp", "argmax_shift"])
@pytest.mark.parametrize("batch", [1, 5, 12, 32])
def test_points_come_back_in_pixels_of_the_picture(tmp_path: Path, decoder: str, batch: int) -> None:
    found = made(tmp_path)
    images, matrices = evaluate.crops(found, SIZE, PADDING)
    oracle = Oracle(found)
    points, scores = evaluate.predict(oracle, images, matrices, CODEC, decoder, STRIDE, batch)
    assert oracle.calls == [batch] * (12 // batch) + ([12 % batch] if 12 % batch else [])
    scale = np.sqrt(np.linalg.det(geometry.invert(matrices)[..., :2]))[
        :, None
    ]  # picture pixels per crop pixel
    error_cells = np.linalg.norm(points - np.stack([p.points for p in found]), axis=-1) / scale / STRIDE
    assert error_cells.max() < (0.36 if decoder == "argmax_shift" else 0.05)
    assert (scores > 0.7).all()


def test_crops_are_those_of_the_boxes_in_order(tmp_path: Path) -> None:
    found = made(tmp_path)
    images, matrices = evaluate.crops(found, SIZE, PADDING)
    for person, image, matrix in zip(found, images, matrices, strict=True):
        expected = geometry.crop_affine(person.box, SIZE, padding=PADDING)
        np.testing.assert_allclose(matrix, expected)
        np.testing.assert_array_equal(image, geometry.warp(person.picture.load(), expected, SIZE))


@pytest.mark.parametrize(
    ("skeleton", "figures"),
    [
        (BODY19, ["PCK@0.2", "PCKh@0.5", "OKS-AP"]),
        (LSP14, ["PCK@0.2", "PCKh@0.5"]),
        (COCO17, ["PCK@0.2", "OKS-AP"]),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_net_that_knows_gets_full_marks_in_what_the_labels_allow(
    tmp_path: Path, training: dict[str, object], skeleton: Skeleton, figures: list[str]
) -> None:
    found = made(tmp_path, skeleton)
    for person in found:  # elsewhere there is nothing to know
        person.points[person.visible == 0] = person.points[person.visible > 0].mean(axis=0)
    scores = evaluate.scores(Oracle(found), found, manifest(training), "dark")
    assert [each.metric for each in scores] == figures
    assert all(each.value == pytest.approx(100) and each.people == 12 for each in scores)


class Sure(Oracle):
    """It also says of the gesture of every crop: the first class with 0.8; and of presence 0.9, or 0.3 of nobody."""

    def __init__(self, found: list[Person]) -> None:
        super().__init__(found)
        self.there = np.array([0.9 if person.presence else 0.3 for person in found], np.float32)
        self.asked = 0

    def further(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The next ones; it is asked for everything again and again."""
        rows = np.arange(self.asked, self.asked + len(images)) % len(self.there)
        self.asked += len(images)
        return {
            "here": self.there[rows],
            "sign": np.tile(np.array([0.8, 0.2], np.float32), (len(images), 1)),
        }


def test_probabilities_are_held_against_how_often_they_came_true(
    tmp_path: Path, training: dict[str, object]
) -> None:
    """Twelve: four of them nobody; of the other eight, five show the first sign."""
    found = [
        replace(
            person,
            presence=float(row >= 4),
            gesture=None if row < 4 else "one" if row < 9 else "two",
        )
        for row, person in enumerate(made(tmp_path))
    ]
    outputs = [
        {"name": "here", "kind": "presence", "of": "person"},
        {"name": "sign", "kind": "classes", "of": "gesture", "labels": ["one", "two"]},
    ]
    asked = manifest(training).model_dump()
    asked["outputs"] = [*asked["outputs"], *outputs]
    calibrated = {
        "of": "scores", "scale": 1e-6, "shift": 0.0, "event": "near", "data": "d", "count": 1, "bins": 15,
        "error_before": 0.0, "error": 0.0, "command": "c",
    }  # fmt: skip
    told = BundleManifest.model_validate(asked | {"schema_version": 2, "calibration": [calibrated]})
    scores = {each.metric: each for each in evaluate.scores(Sure(found), found, told, "dark")}
    errors = {name: each for name, each in scores.items() if name.endswith("ECE")}
    assert {name: each.people for name, each in errors.items()} == {
        "presence ECE": 12, "gesture ECE": 8, "score ECE": 12,
    }  # fmt: skip
    assert errors["presence ECE"].value == pytest.approx(100 * (4 * 0.3 + 8 * 0.1) / 12, abs=1e-4)
    assert errors["gesture ECE"].value == pytest.approx(100 * (0.8 - 5 / 8), abs=1e-4)
    assert errors["score ECE"].value == pytest.approx(50, abs=0.1)  # 0.5 of every keypoint, all are right
    assert all(each.better == "less" for each in errors.values())


def test_a_keypoint_is_near_within_a_tenth_of_the_long_side(tmp_path: Path) -> None:
    found = made(tmp_path)
    points = np.stack([person.points for person in found]).astype(np.float64)
    sides = np.array([person.box[2:].max() for person in found])
    for share, right in ((0.0999, True), (0.1001, False)):
        moved = points + share * sides[:, None, None] * np.array([0.6, 0.8])
        assert (evaluate.near(found, moved) == right).all()


def test_a_set_that_allows_no_figure_says_so(tmp_path: Path, training: dict[str, object]) -> None:
    found = made(tmp_path)
    for person in found:
        person.visible[5:] = 0  # the face alone
    with pytest.raises(DataError, match="too few labelled keypoints"):
        evaluate.scores(Oracle(found), found, manifest(training), "dark")


def test_nobody_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="nobody"):
        evaluate.crops([], SIZE, PADDING)


def test_every_decoder_of_the_zoo_can_be_asked_for(tmp_path: Path, training: dict[str, object]) -> None:
    found = made(tmp_path)
    for name in codecs.DECODERS:
        (pck, *_) = evaluate.scores(Oracle(found), found, manifest(training), name)
        assert pck.value == pytest.approx(100), name
