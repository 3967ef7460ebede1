"""Ablations: the same short run with one thing changed at a time, several seeds each, as a table.

A plan is a YAML file: `base`, a whole configuration without its seed; `seeds`; and `rows`, each of which changes the
row named by `after`, or the base, and is compared with it. With `make`, arguments of `reppose-train synth`, rows are
trained on sets that are made for them in OUT/made. Every row of a seed is a run folder of its own, OUT/ROW/SEED. They
are trained side by side, one process each, so that nothing of a core is lost to talking; a run that is finished is not
repeated, one that was interrupted goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_zoo.manifest import Name
from trainer import config as configuration
from trainer.ablation_sets import PLACEHOLDER, Made, filled_in
from trainer.checkpoint import RunFolder
from trainer.config import CONFIGS, RunConfig
from trainer.errors import CheckpointError, ConfigError, Interrupted

Document = dict[str, Any]
PLANS = CONFIGS / "ablations"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Row(_Section):
    """One change."""

    name: Name
    """Of the row and its folder."""
    title: str
    """What is changed, for people."""
    after: str | None = None
    """Name of an earlier row that is changed, and compared with; the base where it is not given."""
    set: Document = {}
    """Settings that differ from it."""
    make: Document = {}
    """Arguments of the made set that differ from those of its."""


class Plan(_Section):
    """All rows of an ablation."""

    base: Document
    """A configuration without its seed."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    """Each row is run with each of them."""
    make: Document | None = None
    """Arguments of a made set, see `ablation_sets.Made`, for whatever has `annotations: made` in `data.train`."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    """In the order of the table."""

    @model_validator(mode="after")
    def _rows_follow_each_other(self) -> Self:
        known: set[str] = set()
        for row in self.rows:
            if row.name == PLACEHOLDER:
                raise ValueError(f"rows: {row.name} is the folder of the sets")
            if row.name in known:
                raise ValueError(f"rows: {row.name} stands there twice")
            if row.after is not None and row.after not in known:
                raise ValueError(f"rows: {row.name} comes after {row.after}, which is no row above it")
            if row.make and self.make is None:
                raise ValueError(f"rows: {row.name} has `make`, and the plan has none")
            known.add(row.name)
        return self

    def row(self, name: str) -> Row:
        """The row of this name; ConfigError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ConfigError(f"the plan has no row {name!r}; it has {', '.join(row.name for row in self.rows)}")

    def document(self, name: str) -> Document:
        """The configuration of a row, without its seed."""
        row = self.row(name)
        return merged(self.base if row.after is None else self.document(row.after), row.set)

    def made(self, name: str) -> Made | None:
        """The set that is made for a row, where the plan makes any; ConfigError names the row."""
        if self.make is None:
            return None
        try:
            return Made.model_validate(self._make(name))
        except (ConfigError, ValidationError) as error:
            raise ConfigError(f"row {name}, make: {error}") from error

    def _make(self, name: str) -> Document:
        row = self.row(name)
        return {**((self.make or {}) if row.after is None else self._make(row.after)), **row.make}

    def config(self, name: str, seed: int, out: Path = Path()) -> RunConfig:
        """The configuration of a run below a folder; ConfigError names the row."""
        document, made = self.document(name) | {"seed": seed}, self.made(name)
        try:
            return configuration.parse(document if made is None else filled_in(document, made, out))
        except ConfigError as error:
            raise ConfigError(f"row {name}: {error}") from error


def load(source: str) -> Plan:
    """Read a plan: a YAML file, or the name of one that comes with the package. ConfigError."""
    path = Path(source) if source.endswith((".yaml", ".yml")) else PLANS / f"{source}.yaml"
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        known = ", ".join(sorted(each.stem for each in PLANS.glob("*.yaml")))
        raise ConfigError(f"cannot read plan {source!r} ({error.strerror}); shipped ones: {known}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} is no plan: {error}") from error


def merged(below: Document, above: Document) -> Document:
    """Nested mappings, the upper one's values where both have one."""
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        both[key] = merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return both


@dataclass(frozen=True)
class Trial:
    """One row with one seed."""

    row: Row
    seed: int
    folder: RunFolder
    config: RunConfig
    made: Made | None = None
    """What it is trained on, where that is made for it."""

    @property
    def begun(self) -> RunConfig | None:
        """The configuration that it was begun with; None where the run in its place, if any, is none of the plan's.

        It is the plan's but for how often it is measured, which changes nothing of what is learnt.
        """
        try:
            found = self.folder.config()
        except (CheckpointError, ConfigError):
            return None
        often = {"validate_every": self.config.validate_every}
        return found if found.model_copy(update=often) == self.config else None

    @property
    def finished(self) -> bool:
        """Whether its last epoch is measured."""
        try:
            return self.begun is not None and self.folder.metrics()[-1]["epoch"] == self.config.epochs
        except CheckpointError:
            return False


def trials(plan: Plan, out: Path, rows: Sequence[str] = ()) -> list[Trial]:
    """Every run of a plan, all rows of a seed before those of the next: the table fills up evenly.

    Where sets are made, all seeds of a row come before the next row, so that few decoded sets lie about at a time.

    Args:
        plan: of the runs.
        out: folder of their folders.
        rows: names of those wanted; all where there are none.
    """
    wanted = [plan.row(name) for name in rows] or list(plan.rows)
    both = [(row, seed) for seed in plan.seeds for row in wanted]
    if plan.make is not None:
        both = [(row, seed) for row in wanted for seed in plan.seeds]
    return [
        Trial(row, seed, _folder(out, row, seed), plan.config(row.name, seed, out), plan.made(row.name))
        for row, seed in both
    ]


def _folder(out: Path, row: Row, seed: int) -> RunFolder:
    return RunFolder(out / row.name / str(seed))


def run(todo: Sequence[Trial], data: Path, jobs: int, tell: Callable[[str], None]) -> None:
    """Train what is not finished, `jobs` at a time; SIGTERM and SIGINT leave checkpoints to go on from.

    Args:
        todo: the runs.
        data: data root.
        jobs: processes side by side, one thread each.
        tell: hears of every run that ends, in a line.

    Raises:
        Interrupted: a signal came.
        ConfigError: a run failed; its folder's log.txt says why.
    """
    left = [each for each in todo if not each.finished]
    cache = data_cache(todo)
    cache.mkdir(parents=True, exist_ok=True)
    making = {each.made: threading.Lock() for each in left if each.made is not None}
    children: set[subprocess.Popen[bytes]] = set()
    stopping: list[int] = []

    def finished(start: Callable[[], subprocess.Popen[bytes]]) -> bool:
        if stopping:
            return False
        with start() as child:
            children.add(child)
            if stopping:  # it came in between
                child.terminate()
            status = child.wait()
            children.discard(child)
        return status == 0

    def one(trial: Trial) -> None:
        made = trial.made
        if made is not None:
            with making[made]:
                there = finished(lambda: _making(trial, made))
            if not there and not stopping:
                raise ConfigError(
                    f"row {trial.row.name}: its set could not be made; see {_made_log(trial, made)}"
                )
        if finished(lambda: _started(trial, data, cache)):
            tell(f"{trial.row.name} seed {trial.seed}: {_headline(trial)}")
        elif not stopping:
            raise ConfigError(
                f"row {trial.row.name}, seed {trial.seed} failed; see {trial.folder.path / 'log.txt'}"
            )
        if made is not None and all(each.finished for each in todo if each.made == made):
            shutil.rmtree(_cache_of(trial, cache), ignore_errors=True)

    def stop(number: int, _: object) -> None:
        stopping.append(number)
        for child in tuple(children):
            child.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with ThreadPoolExecutor(jobs) as pool:
            failures = [each.exception() for each in [pool.submit(one, trial) for trial in left]]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopping:
        raise Interrupted("stopped; the same command goes on from there")
    for failure in failures:
        if failure is not None:
            raise failure


def data_cache(todo: Sequence[Trial]) -> Path:
    """Where all runs of a plan share their decoded crops."""
    return _out(todo[0]) / "cache"


def _cache_of(trial: Trial, cache: Path) -> Path:
    """Made sets have one each, which goes when their last run is finished: a decoded picture takes 196 kB."""
    return cache if trial.made is None else cache / trial.made.name


def _out(trial: Trial) -> Path:
    return trial.folder.path.parents[1]


def _made_log(trial: Trial, made: Made) -> Path:
    return _out(trial) / PLACEHOLDER / f"{made.name}.txt"


def _making(trial: Trial, made: Made) -> subprocess.Popen[bytes]:
    log = _made_log(trial, made)
    log.parent.mkdir(parents=True, exist_ok=True)
    return _child(made.words(_out(trial)), log)


def _started(trial: Trial, data: Path, cache: Path) -> subprocess.Popen[bytes]:
    folder = trial.folder.path
    folder.mkdir(parents=True, exist_ok=True)
    shared = folder.parent / "cache"
    kept = _cache_of(trial, cache)
    kept.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another seed of the row was here first
        shared.symlink_to(os.path.relpath(kept, folder.parent))
    wanted = folder / "wanted.yaml"
    wanted.write_text(configuration.dump(trial.begun or trial.config), "utf-8")
    words = [sys.executable, "-m", "trainer", "train", str(wanted), "--data", str(data), "--out", str(folder)]
    return _child([*words, "--processes", "1"], folder / "log.txt")


def _child(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as told:
        return subprocess.Popen(
            words,
            stdout=told,
            stderr=told,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def _headline(trial: Trial) -> str:
    last = trial.folder.metrics()[-1]
    names = [each.name for each in trial.config.data.validate_on]
    return "  ".join(f"{name} {last[name]:.1f}" for name in names)


def results(plan: Plan, out: Path) -> Iterator[tuple[Row, list[Trial]]]:
    """Rows with their finished runs; those without any are left out."""
    every = trials(plan, out)
    for row in plan.rows:
        done = [each for each in every if each.row == row and each.finished]
        if done:
            yield row, done
