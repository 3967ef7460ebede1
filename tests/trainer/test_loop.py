"""The training loop: its schedule, that it learns, and that an interruption leaves no trace."""

from __future__ import annotations

import csv
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.errors import SkeletonError
from tests.trainer import people_made
from trainer import config as configuration
from trainer import learner, loop
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.data.loader import Batch, Loader
from trainer.errors import CheckpointError, ConfigError, DataError, NotFinite
from trainer.losses import heatmap
from trainer.nets import served
from trainer.nets.pose import PoseNet

TIMING = {"seconds", "images_per_second"}


def resolved(**changes: Any) -> RunConfig:
    """The configuration for tests, with some of it changed."""
    return configuration.parse(people_made.run_document(**changes))


def train(config: RunConfig, root: Path, out: Path) -> RunFolder:
    """Run a configuration in this process."""
    folder = RunFolder(out)
    loop.train(config, root, folder, cache=root / "cache", accelerator="cpu")
    return folder


def rows(folder: RunFolder) -> list[dict[str, str]]:
    """What metrics.csv says."""
    with (folder.path / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Two nested states are equal to the last bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - TIMING:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}.{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


schedules = st.builds(
    lambda epochs, warmup, final, rate: resolved(
        phases=[{"epochs": epochs, "height": 64, "width": 64}],
        optimisation={"warmup_epochs": warmup, "final_rate": final, "learning_rate": rate},
    ),
    epochs=st.integers(2, 200),
    warmup=st.sampled_from([0, 0.25, 1, 1.5]),
    final=st.sampled_from([0, 0.01, 0.5, 1]),
    rate=st.floats(1e-5, 1),
)


@given(config=schedules, at=st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_the_rate_rises_in_a_line_then_only_falls(config: RunConfig, at: list[float]) -> None:
    how = config.optimisation
    warm, rest = how.warmup_epochs, config.epochs - how.warmup_epochs
    for share in at:
        if warm:
            assert learner.learning_rate(config, share * warm * 0.999) == pytest.approx(
                how.learning_rate * share * 0.999, rel=1e-6, abs=1e-15
            )
    falling = [learner.learning_rate(config, warm + share * rest) for share in sorted(at)]
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(falling))
    assert all(
        how.final_rate * how.learning_rate * (1 - 1e-9) <= each <= how.learning_rate for each in falling
    )


@given(config=schedules)
def test_the_rate_begins_peaks_and_ends_as_configured(config: RunConfig) -> None:
    how = config.optimisation
    warm = how.warmup_epochs
    if warm:
        assert learner.learning_rate(config, 0) == 0
    assert learner.learning_rate(config, warm) == pytest.approx(how.learning_rate)
    middle = (warm + config.epochs) / 2
    assert learner.learning_rate(config, middle) == pytest.approx(
        how.learning_rate * (1 + how.final_rate) / 2
    )
    for end in (config.epochs, config.epochs + 1):
        assert learner.learning_rate(config, end) == pytest.approx(
            how.learning_rate * how.final_rate, abs=1e-12
        )


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    config = resolved(optimisation={"warmup_epochs": 8, "learning_rate": 1.0})
    assert learner.learning_rate(config, 4) == 0.5


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    config = resolved(optimisation={"weight_decay": 0.3})
    net = PoseNet(config.net, 19)
    decayed, spared = learner.optimiser(net, config).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0)
    assert all(each.ndim > 1 for each in decayed["params"])
    assert all(each.ndim == 1 for each in spared["params"])
    together = {id(each) for group in (decayed, spared) for each in group["params"]}
    assert together == {id(each) for each in net.parameters()}


def test_pixels_are_normalised_exactly() -> None:
    config = resolved(normalisation={"mean": 100, "scale": 50})
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    expected = (pixels.double() - 100) / 50
    torch.testing.assert_close(served.normalised(pixels, config).double(), expected, atol=1e-7, rtol=1e-7)


def test_it_learns(trained: Any) -> None:
    history = trained.folder.load_checkpoint()["history"]
    losses = [row["loss"] for row in history]
    assert losses[-1] < 0.8 * losses[0]
    assert all(math.isfinite(each) for each in losses)


def test_a_run_folder_tells_what_happened(trained: Any) -> None:
    folder = trained.folder
    assert folder.config() == trained.config
    table = rows(folder)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4"]
    assert [bool(row["people"]) for row in table] == [False, True, False, True]  # validate_every: 2
    assert all(0 <= float(row["people"]) <= 100 for row in table if row["people"])
    facts = folder.facts()
    assert facts["people"] == [64]
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["command"].startswith("reppose-train")
    assert list((folder.path / "tensorboard").glob("events.*"))


def test_the_last_epoch_is_measured_even_out_of_turn(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=8)
    config = resolved(phases=[{"epochs": 3, "height": 64, "width": 64}], validate_every=2)
    assert [bool(row["people"]) for row in rows(train(config, tmp_path, tmp_path / "run"))] == [
        False,
        True,
        True,
    ]


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    """Let the next run be killed before this step, counted from 0."""
    whole = Loader.epoch

    def until(self: Loader, number: int, start: int = 0) -> Iterator[Batch]:
        for index, batch in enumerate(whole(self, number, start), start):
            if (number, index) == (epoch, step):
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Loader, "epoch", until)


def test_an_interrupted_run_ends_bit_by_bit_like_one_that_was_not(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=2, step=1)
        with pytest.raises(KeyboardInterrupt):
            train(trained.config, trained.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert folder.load_checkpoint()["epoch"] == 2
    assert len(rows(folder)) == 2

    train(trained.config, trained.root, folder.path)
    assert_equal(folder.load_checkpoint(), trained.folder.load_checkpoint())
    mine, theirs = (
        [{key: value for key, value in row.items() if key not in TIMING} for row in rows(each)]
        for each in (folder, trained.folder)
    )
    assert mine == theirs
    assert [row["epoch"] for row in mine] == ["1", "2", "3", "4"]


def test_a_finished_run_is_left_as_it_is(trained: Any) -> None:
    before = trained.folder.checkpoint_file.read_bytes()
    train(trained.config, trained.root, trained.folder.path)
    assert trained.folder.checkpoint_file.read_bytes() == before


def test_a_folder_of_another_run_is_refused(trained: Any) -> None:
    before = {path: path.read_bytes() for path in trained.folder.path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="another configuration"):
        train(resolved(seed=2), trained.root, trained.folder.path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("why", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(
    tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    people_made.make(tmp_path, count=16)
    if why == "loss":
        optimisation = {"batch": 8, "learning_rate": 1e30, "warmup_epochs": 0}
        config = resolved(optimisation=optimisation)
    else:
        config = resolved(optimisation={"batch": 8})

        def steep(logits: torch.Tensor, *_: Any) -> torch.Tensor:
            return logits.mean() * 0 + (logits.flatten()[:1] * 0).sqrt().sum()  # value 0, gradient 0 / 0

        monkeypatch.setitem(heatmap.LOSSES, "softmax", steep)
    with pytest.raises(NotFinite, match=r"epoch 1, step \d; people \[\d+(, \d+){7}\]"):
        train(config, tmp_path, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").checkpoint_file.exists()


@pytest.mark.parametrize("head", ["linear", "softmax"])
@pytest.mark.parametrize("form", ["branches", "merged"])
def test_every_head_and_form_can_be_trained(tmp_path: Path, head: str, form: str) -> None:
    people_made.make(tmp_path, count=16)
    net = people_made.run_document()["net"] | {"head": head, "form": form}
    phases = [{"epochs": 1, "height": 64, "width": 64}, {"epochs": 1, "height": 96, "width": 64}]
    folder = train(resolved(net=net, phases=phases, precision="bf16-mixed"), tmp_path, tmp_path / "run")
    state = folder.load_checkpoint()
    assert state["epoch"] == 2
    assert [row["height"] for row in state["history"]] == [64, 96]
    assert all(each.isfinite().all() for each in state["average"].values())


def test_labels_that_allow_no_pck_are_noticed_at_the_start(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=8)
    config = resolved(skeleton="hand21")
    with pytest.raises((DataError, SkeletonError)):
        train(config, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_an_accelerator_that_is_not_there_is_refused(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=8)
    for accelerator, text in (("tpu", "unknown accelerator 'tpu'"), ("cuda", "cannot train on 99 x cuda")):
        with pytest.raises(ConfigError, match=text):
            loop.train(
                resolved(), tmp_path, RunFolder(tmp_path / "run"), cache=tmp_path, accelerator=accelerator,
                processes=99,
            )  # fmt: skip


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        RunFolder(tmp_path).config()
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        RunFolder(tmp_path).load_checkpoint()
    (tmp_path / "checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is no checkpoint"):
        RunFolder(tmp_path).load_checkpoint()


def by_command(root: Path) -> subprocess.CompletedProcess[str]:
    """Train `run.yaml` by the command line, with two processes."""
    command = [sys.executable, "-m", "trainer", "train", str(root / "run.yaml"), "--data", str(root)]
    command += ["--out", str(root / "run"), "--accelerator", "cpu", "--processes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=environment, cwd=root, check=False
    )


def test_two_processes_finish_a_run_together(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=16)
    document = people_made.run_document(phases=[{"epochs": 2, "height": 64, "width": 64}])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document), "utf-8")
    done = by_command(tmp_path)
    assert done.returncode == 0, done.stderr
    folder = RunFolder(tmp_path / "run")
    state = folder.load_checkpoint()
    assert state["epoch"] == 2
    assert not any(key.startswith("module.") for key in state["net"])
    assert [row["epoch"] for row in rows(folder)] == ["1", "2"]
    assert folder.facts()["hardware"].startswith("2 ")
    steps = {int(each["step"]) for each in state["optimiser"]["state"].values()}
    assert steps == {2 * 2}  # 16 people in batches of 8, twice


def test_two_processes_end_when_one_cannot_go_on(tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=16)
    (tmp_path / made.document["images"][3]["file_name"]).unlink()
    document = people_made.run_document(phases=[{"epochs": 1, "height": 64, "width": 64}])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document), "utf-8")
    done = by_command(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: cannot read a picture" in done.stderr
