"""What the end-to-end tests share: annotated people to learn from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.trainer import people_made
from tests.trainer.people_made import MadeSet


@pytest.fixture(scope="session")
def write_people() -> Callable[..., MadeSet]:
    """`write_people(folder, count=80)` writes `people.json` and its pictures; see `people_made.make`."""
    return people_made.make
