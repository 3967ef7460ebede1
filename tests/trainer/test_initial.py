"""Beginning with the weights of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer import people_made
from trainer import config as configuration
from trainer import initial, loop
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.nets import build

ONE_EPOCH = {"phases": [{"epochs": 1, "height": 64, "width": 64}]}


def resolved(**changes: Any) -> RunConfig:
    """The configuration for tests, with some of it changed."""
    return configuration.parse(people_made.run_document(**changes))


def train(config: RunConfig, root: Path, name: str) -> RunFolder:
    """Run a configuration in this process."""
    folder = RunFolder(root / name)
    loop.train(config, root, folder, cache=root / "cache", accelerator="cpu")
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("initial")
    people_made.make(root, count=32)
    return train(resolved(), root, "first")


def test_a_run_without_steps_would_be_the_run_before(first: RunFolder) -> None:
    nets = [build.net(resolved(seed=seed)) for seed in (2, 3)]
    assert initial.carry_over(initial.averaged(first), *nets) == []
    expected = first.load_checkpoint()["average"]
    for net in nets:
        for name, value in net.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_the_second_run_goes_on_where_the_first_ended(first: RunFolder) -> None:
    root = first.path.parent
    fresh = train(resolved(**ONE_EPOCH, seed=2), root, "fresh")
    second = train(resolved(**ONE_EPOCH, seed=2, initial=str(first.path)), root, "second")
    losses = [folder.load_checkpoint()["history"][0]["loss"] for folder in (fresh, second)]
    assert losses[1] < 0.9 * losses[0]


def test_the_origin_is_told_whole(first: RunFolder) -> None:
    root = first.path.parent
    people_made.make(root, "others", count=8, seed=5)
    source = {"annotations": "others.json", "licence": "made"}
    data = {"train": [source], "validate_on": [source]}
    second = train(resolved(**ONE_EPOCH, initial=str(first.path), data=data), root, "told")
    third = train(resolved(**ONE_EPOCH, initial=str(second.path)), root, "told-again")
    assert [each["name"] for each in second.learnt_from()] == ["people", "others"]
    assert [each["name"] for each in third.learnt_from()] == ["people", "others"]
    assert third.commands()[:2] == second.commands()
    assert len(third.commands()) == 3


def test_another_skeleton_keeps_the_trunk_and_begins_a_head(first: RunFolder) -> None:
    net = build.net(resolved(skeleton="hand21"))
    untouched = {name: value.clone() for name, value in net.state_dict().items()}
    weights = initial.averaged(first)
    fresh = initial.carry_over(weights, net)
    assert fresh
    assert all(name.startswith("head") for name in fresh)
    for name, value in net.state_dict().items():
        assert torch.equal(value, untouched[name] if name in fresh else weights[name]), name


def test_another_trunk_is_refused_and_left_alone(first: RunFolder) -> None:
    wide = people_made.run_document()["net"] | {"widths": [16, 16, 32, 16]}
    net = build.net(resolved(net=wide))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=r"^initial: .*net\.widths"):
        initial.carry_over(initial.averaged(first), net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_folder_without_a_run_is_named(first: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        train(resolved(initial=str(tmp_path / "nowhere")), first.path.parent, "impossible")
