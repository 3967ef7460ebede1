"""Runs that are stopped by a signal or shared by processes: nothing is lost, and the gradient is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric import Fabric

from tests.trainer import people_made
from trainer import config as configuration
from trainer import loop
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.data.loader import Batch, Loader
from trainer.errors import Interrupted
from trainer.learner import Learner, Moment

ROOT = Path(__file__).parents[2]
PHASES = [{"epochs": 3, "height": 64, "width": 64}]
LEARNING = {
    "widths and balance": {
        "losses": {"bone": 1.0},
        "weighting": "automatic",
        "distillation": {"netaug": {"norm_batches": 1, "until": 1.0}},
    },
    "flow": {"net": {"head": "rle"}},
}
"""Runs with more state than a net and an optimiser."""
TIMING = {"seconds", "images_per_second"}


def document(changes: dict[str, Any]) -> dict[str, Any]:
    """The smallest run with some of it changed."""
    made = people_made.run_document(phases=PHASES, **(changes | {"net": {}}))
    return made | {"net": people_made.run_document()["net"] | changes.get("net", {})}


def train(config: RunConfig, root: Path, out: Path) -> RunFolder:
    """Run, or go on with, a configuration in this process."""
    folder = RunFolder(out)
    loop.train(config, root, folder, cache=root / "cache", accelerator="cpu")
    return folder


def terminate_at(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    """Let a SIGTERM come while this batch, counted from 0, is made."""
    whole = Loader._make

    def make(self: Loader, *arguments: Any) -> Batch:
        counted.append(None)
        if len(counted) == 2 * epoch + step + 1:  # two steps an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, *arguments)

    counted: list[None] = []
    monkeypatch.setattr(Loader, "_make", make)


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """A nested state as one table, without what depends on the clock."""
    if isinstance(state, dict):
        items = [(key, value) for key, value in state.items() if key not in TIMING]
    elif isinstance(state, list | tuple):
        items = list(enumerate(state))
    else:
        return {name: state}
    return {inner: leaf for key, value in items for inner, leaf in flat(value, f"{name}.{key}").items()}


@pytest.mark.parametrize("name", LEARNING)
def test_a_run_that_was_terminated_ends_bit_by_bit_like_one_that_was_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people_made.make(tmp_path, count=16)
    config = configuration.parse(document(LEARNING[name]))
    whole = flat(train(config, tmp_path, tmp_path / "whole").load_checkpoint())
    with monkeypatch.context() as patch:
        terminate_at(patch, epoch=1, step=0)
        with pytest.raises(Interrupted, match=r"in epoch [12] after step [12] of 2; .* goes on from there"):
            train(config, tmp_path, tmp_path / "run")
    stopped = RunFolder(tmp_path / "run").load_checkpoint()
    assert (stopped["epoch"], stopped["step"]) in {(0, 2), (1, 1)}
    resumed = flat(train(config, tmp_path, tmp_path / "run").load_checkpoint())
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        same = torch.equal(value, resumed[key]) if isinstance(value, torch.Tensor) else value == resumed[key]
        assert same, key


def test_the_command_says_where_a_sigterm_stopped_it(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=16)
    long = document({}) | {
        "phases": [{"epochs": 10_000, "height": 64, "width": 64}],
        "validate_every": 10_000,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(long), "utf-8")
    command = [sys.executable, "-m", "trainer", "train", "run.yaml", "--data", ".", "--out", "run"]
    command += ["--accelerator", "cpu", "--processes", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    until = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < until and started.poll() is None:
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 143, said
    assert said.startswith("stopped by SIGTERM in epoch ")
    assert len(said.splitlines()) == 1
    assert RunFolder(tmp_path / "run").load_checkpoint()["net"]


SHARE = """
import os
import sys
from pathlib import Path
import torch
from tests.trainer.test_processes import gradient
from lightning.fabric import Fabric
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
found = gradient(Path(sys.argv[1]), sys.argv[2:], fabric)
if fabric.is_global_zero:
    torch.save(found, Path(sys.argv[1]) / "shared.pt")
fabric.barrier()
torch.distributed.destroy_process_group()
os._exit(0)  # how threads of libraries end with the interpreter is not what is tested here
"""
SHARED = {
    "softmax": {"losses": {"bone": 1.0, "oks": 1.0}, "weighting": "automatic"},
    "rle": {"net": {"head": "rle", "presence": True}},
    "dsnt": {"net": {"head": "dsnt"}, "ohkm": 8},
    "netaug": {"distillation": {"netaug": {}}},
}


def gradient(root: Path, names: list[str], fabric: Fabric) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of one batch by run and parameter, with batch norm in evaluation mode."""
    torch.set_num_threads(1)
    found = {}
    for name in names:
        config = configuration.parse(document(SHARED[name]))
        fabric.seed_everything(1, verbose=False)
        rank, world = fabric.global_rank, fabric.world_size
        loader = Loader(config, root, root / "cache", rank=rank, world=world, device=fabric.device)
        learner = Learner(config, fabric)
        learner.net.eval()
        loss = learner.gradient(next(loader.epoch(0)), Moment(0, 0, 2))["loss"]
        parameters = {
            **dict(learner.net.module.named_parameters()),
            **dict(learner.objective.named_parameters()),
        }
        found[name] = {each: p.grad for each, p in parameters.items() if p.grad is not None}
        found[name]["loss"] = fabric.all_reduce(loss, reduce_op="mean")
    return found


def test_two_processes_under_torchrun_have_the_gradient_of_one_on_the_whole_batch(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=16, unlabelled=0.3)
    alone = gradient(tmp_path, list(SHARED), Fabric(accelerator="cpu", devices=1))
    (tmp_path / "share.py").write_text(SHARE, "utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "share.py", str(tmp_path), *SHARED], cwd=tmp_path, capture_output=True, text=True,
        timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = torch.load(tmp_path / "shared.pt", weights_only=True)
    for name, wanted in alone.items():
        assert together[name].keys() == wanted.keys()
        for each, value in wanted.items():
            size = value.abs().max().item()
            torch.testing.assert_close(
                together[name][each], value, rtol=1e-3, atol=1e-4 * size + 1e-7, msg=f"{name}: {each}"
            )


def test_the_same_command_under_torchrun_trains_together(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=16)
    short = document({}) | {"phases": [{"epochs": 1, "height": 64, "width": 64}]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(short), "utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "trainer", "train", "run.yaml", "--data", ".", "--out", "run", "--accelerator", "cpu"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "run").facts()["hardware"].startswith("2 ")
    assert RunFolder(tmp_path / "run").load_checkpoint()["epoch"] == 1
