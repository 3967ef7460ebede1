"""Skeletons without a body's limbs are measured by their box; what else a run and its files must keep apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from model_zoo.skeletons import HAND21
from trainer import config as configuration
from trainer import loop, metrics
from trainer.data.people import Person, Picture
from trainer.errors import ConfigError


def hand(rng: np.random.Generator) -> Person:
    """A made hand in a box of 60 x 40."""
    points = rng.uniform([10, 20], [70, 60], (len(HAND21), 2))
    seen = np.full(len(HAND21), 2)
    return Person(
        id=1, image_id=1, picture=Picture(Path("none.png")), box=np.array([10.0, 20, 60, 40]), area=2400.0,
        points=points, visible=seen, weight=np.ones(len(HAND21)),
    )  # fmt: skip


@pytest.mark.parametrize(("off_px", "expected"), [(0.0, 100.0), (5.9, 100.0), (6.1, 0.0)])
def test_a_hand_is_right_within_a_tenth_of_its_box(off_px: float, expected: float) -> None:
    people = [hand(np.random.default_rng(seed)) for seed in range(3)]
    found = np.stack([person.points for person in people]) + np.array([off_px, 0])
    score = metrics.headline(people, found, HAND21)
    assert (score.metric, score.people) == ("PCK@0.1box", 3)
    assert score.value == pytest.approx(expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_taken_as_stored_like_its_labels(tmp_path: Path, orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (10, 20, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(Picture(tmp_path / "turned.png").load(), stored)
    cv2.imwrite(str(tmp_path / "plain.png"), stored[..., ::-1])
    np.testing.assert_array_equal(Picture(tmp_path / "plain.png").load(), stored)


def document(*sets: str) -> dict[str, Any]:
    """A run that is validated on these sets."""
    return {
        "name": "made",
        "description": "made",
        "codec": {"sigma_cells": 1.0},
        "data": {
            "train": [{"annotations": "a.json"}],
            "validate_on": [{"annotations": each} for each in sets],
        },
        "phases": [{"epochs": 1, "height": 64, "width": 64}],
    }


def test_columns_of_the_table_do_not_collide() -> None:
    named = configuration.parse(document("a/val.json", "b/val.json"))
    assert [source.name for source in named.data.validate_on] == ["a/val", "b/val"]
    for sets in (("val.json", "val.json"), ("loss.json",)):
        with pytest.raises(ConfigError, match=r"metrics\.csv"):
            configuration.parse(document(*sets))


def test_by_default_a_process_gets_enough_of_a_batch() -> None:
    for batch in (1, 16, 64, 1024):
        count = loop.default_processes("cpu", batch)
        assert count >= 1
        assert count == 1 or batch // count >= loop.LEAST_SHARE
