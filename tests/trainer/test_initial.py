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
from trainer.nets import build, reparam

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


BLOCKS = {"stem": 8, "widths": [8, 12, 16, 16], "blocks": [2, 1, 2, 2], "decoder": [12, 8], "presence": True}
WIDER = {"stem": 10, "widths": [12, 20, 16, 24], "decoder": [16, 12]}


@pytest.mark.parametrize("form", reparam.FORMS)
def test_a_wider_net_answers_what_the_narrow_one_did_and_learns_with_all_of_it(form: str) -> None:
    narrow = build.net(resolved(net=BLOCKS | {"form": form}))
    narrow.train()
    for seed in range(3):  # norms that have seen something
        narrow(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    wide = build.net(resolved(net=BLOCKS | WIDER | {"form": form}))
    assert initial.carry_over(narrow.state_dict(), wide) == []
    crops = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected, found = narrow.eval()(crops), wide.eval()(crops)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    wide.train()
    sum(answer.square().sum() for answer in wide(crops).values()).backward()
    assert wide.head.weight.grad[:, -4:].abs().min() > 0, "zeros would stay for ever without a gradient"


def test_a_wider_net_grows_in_training(first: RunFolder) -> None:
    net = people_made.run_document()["net"] | {"widths": [16, 24, 16, 24], "decoder": [24, 24]}
    grown = train(resolved(**ONE_EPOCH, seed=2, net=net, initial=str(first.path)), first.path.parent, "grown")
    fresh = train(resolved(**ONE_EPOCH, seed=2, net=net), first.path.parent, "not grown")
    losses = [folder.load_checkpoint()["history"][0]["loss"] for folder in (fresh, grown)]
    assert losses[1] < 0.9 * losses[0]


def test_another_trunk_is_refused_and_left_alone(first: RunFolder) -> None:
    narrow = people_made.run_document()["net"] | {"widths": [16, 16, 8, 16]}
    net = build.net(resolved(net=narrow))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=r"^initial: .*net\.widths"):
        initial.carry_over(initial.averaged(first), net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_folder_without_a_run_is_named(first: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        train(resolved(initial=str(tmp_path / "nowhere")), first.path.parent, "impossible")
