"""A start that fails tells everything that is wrong, not the first of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from model_zoo.errors import ModelZooError
from service.errors import StartupError

T = TypeVar("T")


class Attempts:
    """Tries one thing after the other, and keeps what was wrong with each."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def of(self, make: Callable[[], T]) -> T | None:
        """What `make` gives; None where it could not."""
        try:
            return make()
        except (StartupError, ModelZooError) as error:
            self.problems.append(str(error))
            return None

    def check(self) -> None:
        """Raise StartupError where something was wrong."""
        if self.problems:
            raise StartupError(together(self.problems))


def together(problems: list[str]) -> str:
    """One text of all."""
    if len(problems) == 1:
        return problems[0]
    return "\n".join((f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems)))
