"""Labels of whole crops: who is known by no keypoint, and which hand a mirror image shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_zoo.skeletons import BODY19, HAND21
from tests.trainer import people_made
from trainer import config as configuration
from trainer.data import people
from trainer.data.labels import LEFT, RIGHT, UNKNOWN
from trainer.data.loader import Loader
from trainer.errors import ConfigError, DataError
from trainer.nets import build
from trainer.objective import Labels, Objective


def write(folder: Path, *, count: int = 6, **changes: Any) -> Path:
    """A set of made people, with `changes` to the entries of the annotations by their number."""
    made = people_made.make(folder, count=count, unlabelled=0.0)
    for number, entry in enumerate(made.document["annotations"]):
        for key, values in changes.items():
            entry[key] = values[number]
            if entry[key] is None:
                del entry[key]
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    return made.annotations


def test_pictures_of_nobody_are_looked_at_as_a_whole(tmp_path: Path) -> None:
    """The form of a set of hands and of no hands: boxes of the ones, and no keypoints at all."""
    made = people_made.make(tmp_path, count=4)
    made.document["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 30], "presence": 1}
    ]
    made.document["categories"] = [{"id": 1, "name": "hand"}]
    for entry, presence in zip(made.document["images"], (1, 0, 0, None), strict=True):
        entry["presence"] = presence
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    found = people.read(made.annotations, HAND21, keypoints_at_least=5)
    sizes = [[float(entry["width"]), float(entry["height"])] for entry in made.document["images"]]
    assert [each.presence for each in found] == [1.0, 0.0, 0.0]
    assert [each.box.tolist() for each in found] == [[0, 0, 20, 30], [0, 0, *sizes[1]], [0, 0, *sizes[2]]]
    assert len({each.id for each in found}) == 3
    assert not any(each.visible.any() or each.weight.any() for each in found)


def test_a_set_that_says_nothing_is_still_refused(tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=1)
    made.document["categories"] = [{"id": 1, "name": "person", "keypoints": ["tail"]}]
    made.document["annotations"][0]["keypoints"] = [1, 1, 2]
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    with pytest.raises(DataError, match="names no keypoint of body19"):
        people.read(made.annotations, BODY19)


def test_who_has_few_keypoints_is_left_out_and_who_has_none_counts_by_another_label(tmp_path: Path) -> None:
    points = people_made.make(tmp_path, count=1, unlabelled=0.0).document["annotations"][0]["keypoints"]
    some = [*points[:12], *[0] * (len(points) - 12)]
    found = people.read(
        write(
            tmp_path,
            keypoints=[points, some, some, [0] * len(points), [0] * len(points), points],
            gesture=[None, None, 3, 4, None, 5],
        ),
        BODY19,
        keypoints_at_least=5,
    )
    assert [each.gesture for each in found] == [None, "4", "5"]


@pytest.mark.parametrize("value", ["both", "LEFT", 1, ["left"]])
def test_a_hand_is_left_or_right(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match="handedness must be left or right"):
        people.read(write(tmp_path, count=1, handedness=[value]), BODY19)


def test_a_mirror_image_shows_the_other_hand(tmp_path: Path) -> None:
    hands = ["left", "right", None, "left", "right", None]
    annotations = write(tmp_path, handedness=hands)
    changes = {"net": people_made.run_document()["net"] | {"handedness": True}}
    expected = np.array([LEFT, RIGHT, UNKNOWN, LEFT, RIGHT, UNKNOWN], np.float32)
    for flip, mirrored in ((0.0, False), (1.0, True)):
        config = configuration.parse(
            people_made.run_document(
                augmentation={"flip": flip},
                data={"train": [{"annotations": annotations.name}]},
                **changes,
            )
        )
        loader = Loader(config, tmp_path, tmp_path / "cache", device=torch.device("cpu"))
        batch = next(loader.epoch(0))
        own = expected[batch.people]
        other = np.where(own == UNKNOWN, UNKNOWN, 1 - own)
        assert batch.handedness.tolist() == (other if mirrored else own).tolist()


def test_the_hand_of_nobody_is_not_learnt() -> None:
    config = configuration.parse(
        people_made.run_document(net=people_made.run_document()["net"] | {"handedness": True})
    )
    assert config.losses.terms()["handedness"] == 1.0
    net, objective = build.plain(config), Objective(config)
    outputs = net(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    assert outputs["handedness"].shape == (3,)
    outputs["handedness"].retain_grad()
    nothing = torch.zeros(3, len(BODY19))
    known = Labels(
        pixels=torch.zeros(3, len(BODY19), 2),
        depth=torch.full((3, len(BODY19)), torch.nan),
        weights=nothing,
        in_space=torch.zeros(3, dtype=torch.bool),
        areas=torch.ones(3),
        presence=torch.tensor([0.0, 1.0, UNKNOWN]),
        classes=torch.full((3,), -1),
        handedness=torch.tensor([LEFT, LEFT, RIGHT]),
        size=(64, 64),
        stride=8,
    )
    parts = objective(outputs, known, epoch=0.0)
    assert parts["handedness"].weight == 2
    objective.total(parts).backward()
    gradient = outputs["handedness"].grad
    assert gradient[0] == 0
    assert gradient[1] < 0 < gradient[2]


def test_a_loss_needs_its_head() -> None:
    with pytest.raises(ConfigError, match=r"losses\.handedness: net\.handedness asks for no such head"):
        configuration.parse(people_made.run_document(losses={"heatmap": 1, "handedness": 1}))
