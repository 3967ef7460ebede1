"""Run folders: what a run leaves behind, and how it goes on after an interruption.

RUN/config.yaml        the resolved configuration
RUN/facts.json         command, versions, hardware
RUN/metrics.csv        one row per epoch
RUN/tensorboard/       the same as curves
RUN/curves.png         the same as a picture, drawn whenever the run is measured
RUN/predictions.png    what it sees on people of the first validation set, likewise
RUN/checkpoint.pt      net, average, optimiser and history after the last finished epoch, or where SIGTERM stopped it
"""

from __future__ import annotations

import csv
import json
import pickle
import platform
import shlex
import sys
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trainer import config as configuration
from trainer import files
from trainer.config import RunConfig
from trainer.errors import CheckpointError

Row = dict[str, float]


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoint_file(self) -> Path:
        """State after the last finished epoch, or after the last step before a SIGTERM."""
        return self.path / "checkpoint.pt"

    @property
    def curves_file(self) -> Path:
        """Picture of the curves."""
        return self.path / "curves.png"

    @property
    def sheet_file(self) -> Path:
        """Pictures of predictions."""
        return self.path / "predictions.png"

    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        if not self.config_file.is_file():
            raise CheckpointError(f"{self.path} is no run folder: it has no config.yaml")
        return configuration.load(str(self.config_file))

    def start(self, config: RunConfig, counts: list[int], hardware: str) -> None:
        """Write down what the run is; refuses a folder that holds another run.

        Args:
            config: the resolved configuration.
            counts: people per training set.
            hardware: what it runs on, for the model card.
        """
        if self.config_file.is_file() and self.config() != config:
            raise CheckpointError(
                f"{self.path} holds a run with another configuration; choose another --out, or continue that run "
                "with its own configuration"
            )
        if self.config_file.is_file():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        before = None if config.initial is None else RunFolder(config.initial)
        facts = {
            "command": shlex.join(["reppose-train", *sys.argv[1:]]),
            "hardware": hardware,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "lightning", "numpy", "opencv-python-headless")},
            },
            "started": datetime.now(UTC).date().isoformat(),
            "people": counts,
            "data_before": [] if before is None else before.learnt_from(),
            "commands_before": [] if before is None else before.commands(),
        }
        (self.path / "facts.json").write_text(json.dumps(facts, indent=2), "utf-8")
        files.write_text(self.config_file, configuration.dump(config))

    def facts(self) -> dict[str, Any]:
        """What `start` wrote down."""
        try:
            return json.loads((self.path / "facts.json").read_text("utf-8"))
        except OSError as error:
            raise CheckpointError(f"{self.path} is no run folder: {error.strerror}: facts.json") from error

    def learnt_from(self) -> list[dict[str, Any]]:
        """The training sets, as `manifest.DataSet`, of this run after those of the runs that it began with."""
        facts = self.facts()
        own = zip(self.config().data.train, facts["people"], strict=True)
        sets = [
            {"name": each.annotations.stem, "people": people, "licence": each.licence} for each, people in own
        ]
        before = facts.get("data_before", [])
        return [*before, *(each for each in sets if each not in before)]

    def commands(self) -> list[str]:
        """The commands that led here, the first one first."""
        facts = self.facts()
        return [*facts.get("commands_before", []), facts["command"]]

    def write_metrics(self, history: list[Row]) -> None:
        """Write the whole history anew, so that a resumed run leaves no row twice."""
        names = list(dict.fromkeys(name for row in history for name in row))
        partial = self.path / "metrics.partial"
        with partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(history)
        partial.replace(self.path / "metrics.csv")

    def metrics(self) -> list[Row]:
        """The rows of metrics.csv; CheckpointError where no epoch is finished yet."""
        path, rows = self.path / "metrics.csv", []
        if path.is_file():
            with path.open(newline="") as stream:
                table = list(csv.DictReader(stream))
            rows = [{name: float(value) for name, value in row.items() if value} for row in table]
        if not rows:
            raise CheckpointError(f"{self.path} has no finished epoch to compare")
        return rows

    def load_checkpoint(self) -> dict[str, Any]:
        """The last checkpoint; CheckpointError where there is none, or it cannot be read."""
        if not self.checkpoint_file.is_file():
            raise CheckpointError(f"{self.path} has no checkpoint yet")
        if not zipfile.is_zipfile(self.checkpoint_file):
            raise CheckpointError(f"{self.checkpoint_file} is no checkpoint")
        try:
            return torch.load(self.checkpoint_file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{self.checkpoint_file} is no checkpoint: {error}") from error
