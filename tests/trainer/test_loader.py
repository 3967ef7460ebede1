"""Batches: everybody comes up as often as configured, whoever asks and whatever was asked before."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_zoo.skeletons import BODY19, COCO17, LSP14
from tests.trainer import people_made
from trainer import config as configuration
from trainer.data.loader import Batch, Loader
from trainer.errors import ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 12 LSP people in a tar and 5 COCO people in a folder."""
    folder = tmp_path_factory.mktemp("data")
    people_made.make(folder, "lsp", skeleton=LSP14, count=12, tar=True)
    people_made.make(folder, "coco", skeleton=COCO17, count=5, seed=2)
    return folder


def loader(root: Path, rank: int = 0, world: int = 1, batch: int = 6, **changes: Any) -> Loader:
    """One process's loader of both sets, the COCO people three times an epoch."""
    document = people_made.run_document(
        data={"train": [{"annotations": "lsp.json"}, {"annotations": "coco.json", "repeat": 3}]},
        phases=[{"epochs": 2, "height": 64, "width": 64}, {"epochs": 1, "height": 96, "width": 64}],
        optimisation={"batch": batch},
    )
    config = configuration.parse(document | changes)
    return Loader(config, root, root / "cache", rank=rank, world=world, device=CPU)


def equal(a: Batch, b: Batch) -> bool:
    """Whether two batches hold the same pictures, labels and people."""
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.points, b.points)
        and torch.equal(a.weights, b.weights)
        and np.array_equal(a.people, b.people)
    )


@pytest.mark.parametrize("batch", [1, 4, 6, 27, 500])
def test_everybody_comes_up_as_often_as_configured(root: Path, batch: int) -> None:
    made = loader(root, batch=batch)
    assert made.counts == [12, 5]
    seen = Counter(itertools.chain.from_iterable(each.people.tolist() for each in made.epoch(0)))
    wanted = Counter({person: 1 if person < 12 else 3 for person in range(17)})
    assert not seen - wanted  # nobody more often
    dropped = sum(wanted.values()) % min(batch, 27)
    assert sum((wanted - seen).values()) == dropped
    assert len(made) == 27 // min(batch, 27)


def test_what_is_dropped_changes_from_epoch_to_epoch(root: Path) -> None:
    made = loader(root, batch=25)
    missing = set()
    for number in range(12):
        (batch,) = made.epoch(number)
        missing |= set(range(12)) - set(batch.people.tolist())
    assert len(missing) > 2


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_share_each_batch_without_overlap(root: Path, world: int) -> None:
    whole = loader(root)
    shares = [loader(root, rank, world) for rank in range(world)]
    for batch, *parts in zip(whole.epoch(1), *(each.epoch(1) for each in shares), strict=True):
        for name, value in vars(batch).items():
            joined = np.concatenate([np.asarray(getattr(part, name)) for part in parts])
            np.testing.assert_array_equal(joined, np.asarray(value), name)


def test_an_epoch_does_not_depend_on_what_was_asked_before(root: Path) -> None:
    fresh, used = loader(root), loader(root)
    list(used.epoch(0))
    next(used.epoch(1))
    for a, b in zip(fresh.epoch(1), used.epoch(1), strict=True):
        assert equal(a, b)


def test_epochs_seeds_and_steps_differ(root: Path) -> None:
    made, other = loader(root), loader(root, seed=2)
    first, second, reseeded = next(made.epoch(0)), next(made.epoch(1)), next(other.epoch(0))
    assert not equal(first, second)
    assert not equal(first, reseeded)


def test_somebody_who_comes_up_again_looks_different(root: Path, tmp_path: Path) -> None:
    people_made.make(tmp_path, "one", count=1)
    data = {"train": [{"annotations": str(tmp_path / "one.json"), "repeat": 6}]}
    pictures = [image for batch in loader(root, batch=2, data=data).epoch(0) for image in batch.images]
    assert len(pictures) == 6
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(pictures, 2))


def test_the_resolution_is_the_phase_s(root: Path) -> None:
    made = loader(root)
    sizes = [tuple(next(made.epoch(number)).images.shape[-2:]) for number in range(3)]
    assert sizes == [(64, 64), (64, 64), (96, 64)]


def test_joints_that_a_set_lacks_have_no_weight(root: Path) -> None:
    calm = {"flip": 0, "turn": 0, "scale": 0, "shift": 0}
    made = loader(root, augmentation=calm)
    head = [BODY19.index("head_top"), BODY19.index("neck")]
    face = [BODY19.index(name) for name in ("nose", "left_eye", "right_ear")]
    for batch in made.epoch(0):
        for person, weights in zip(batch.people, batch.weights.numpy(), strict=True):
            lacking = face if person < 12 else head
            assert (weights[lacking] == 0).all()
            assert weights.sum() > 5


def test_too_many_processes_for_a_batch_are_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="4 processes cannot share batches of 3"):
        loader(root, world=4, batch=3)


def test_a_set_without_usable_people_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"coco\.json has nobody with 19"):
        loader(root, data={"train": [{"annotations": "coco.json", "keypoints_at_least": 19}]})


def test_paths_start_at_the_root_and_images_can_be_named(root: Path, tmp_path: Path) -> None:
    people_made.make(tmp_path, "moved", count=4, tar=True)
    (tmp_path / "moved.tar").rename(tmp_path / "pictures.tar")
    data = {
        "train": [{"annotations": str(tmp_path / "moved.json"), "images": str(tmp_path / "pictures.tar")}]
    }
    assert loader(root, data=data).counts == [4]
