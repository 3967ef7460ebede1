"""How fast pictures are made: by stage in one process, and in all by several at once."""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.errors import DataError
from trainer.synth import stages
from trainer.synth.recipe import Recipe
from trainer.synth.write import Kind, frames, one_core_each

WARM = 24
"""Pictures that a process makes before it is timed: shaders are compiled in the meantime."""
_PATIENCE_S = 600


@dataclass(frozen=True)
class Speed:
    """Of so many processes at once."""

    jobs: int
    per_second: float
    """Pictures, of all processes together."""
    stages_ms: dict[str, float]
    """Mean per picture by stage, of one process among them."""


def measure(recipe: Recipe, kind: Kind, jobs: int) -> Speed:
    """Make `recipe.n` indices in each of several processes that begin together, and keep nothing.

    Raises:
        DataError: a process could not make its pictures.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(jobs), context.Queue()
    workers = [
        context.Process(target=_work, args=(recipe, kind, number, barrier, results), daemon=True)
        for number in range(jobs)
    ]
    with one_core_each():
        for worker in workers:
            worker.start()
    told = [results.get(timeout=_PATIENCE_S) for _ in workers]
    for worker in workers:
        worker.join()
    errors = [each for each in told if isinstance(each, str)]
    if errors:
        raise DataError(next(filter(None, errors), "a process was broken off"))
    pictures, _, spent = told[0]
    rate = sum(count / took for count, took, _ in told)
    return Speed(jobs, rate, {name: 1000 * each / pictures for name, each in spent.items()})


def show(recipe: Recipe, kind: Kind, jobs: int) -> None:
    """Print a table: one process alone, and `jobs` of them. DataError: a process could not make its pictures."""
    speeds = [measure(recipe, kind, count) for count in sorted({1, jobs})]
    table = Table("", *(f"{each.jobs} process{'es' if each.jobs > 1 else ''}" for each in speeds))
    for stage in speeds[0].stages_ms:
        table.add_row(f"{stage}, ms", *(f"{each.stages_ms[stage]:.1f}" for each in speeds))
    table.add_row("a picture, ms", *(f"{sum(each.stages_ms.values()):.1f}" for each in speeds))
    table.add_row("pictures/s", *(f"{each.per_second:.1f}" for each in speeds))
    Console().print(table)


def _work(recipe: Recipe, kind: Kind, number: int, barrier: Any, results: Any) -> None:
    try:
        maker = kind.maker(recipe)
        warm = 0
        while warm < WARM:
            warm += len(frames(recipe, kind, maker, recipe.n * (number + 1) + warm))
        barrier.wait(_PATIENCE_S)
        stages.begin()
        start, pictures = time.perf_counter(), 0
        for index in range(recipe.n):
            pictures += len(frames(recipe, kind, maker, number * recipe.n + index))
            stages.lap("files")
        results.put((pictures, time.perf_counter() - start, dict(stages.spent)))
    except threading.BrokenBarrierError:  # another one tells why
        results.put("")
    except Exception as error:  # the edge of a process: told to the parent, in words
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")
