"""What the tests of the trainer share: a run that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.trainer import people_made

if TYPE_CHECKING:
    from trainer.checkpoint import RunFolder
    from trainer.config import RunConfig


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread: repeatable to the last bit, and no slower on nets this small."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class TrainedRun:
    """A run of a few epochs on made people, finished."""

    config: RunConfig
    root: Path
    """Data root: `people.json` was learnt from and measured on."""
    folder: RunFolder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Train the smallest net for four epochs, once for all tests."""
    from trainer import config, loop
    from trainer.checkpoint import RunFolder

    root = tmp_path_factory.mktemp("trained")
    people_made.make(root, count=64)
    resolved = config.parse(people_made.run_document())
    folder = RunFolder(root / "runs" / "mini")
    loop.train(resolved, root, folder, cache=root / "cache", accelerator="cpu")
    return TrainedRun(resolved, root, folder)


@pytest.fixture(scope="session")
def trained_hand(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Train a net with every further head on made hands, once for all tests; measured on `val.json`."""
    from tests.trainer import hands_made
    from trainer import config, loop
    from trainer.checkpoint import RunFolder

    root = tmp_path_factory.mktemp("hand")
    hands_made.make(root)
    hands_made.make(root, "val", count=64, seed=2)
    resolved = config.parse(hands_made.run_document())
    folder = RunFolder(root / "runs" / "hand")
    loop.train(resolved, root, folder, cache=root / "cache", accelerator="cpu")
    return TrainedRun(resolved, root, folder)
