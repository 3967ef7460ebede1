"""The table of `docs/security.md` names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (ROOT / "docs" / "security.md").read_text("utf-8").splitlines()
    if line.startswith("|") and ".py::" in line
]
TESTS = list((ROOT / "tests").rglob("test_*.py"))


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {each.name for each in ast.walk(tree) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_there_is_a_table() -> None:
    assert len(ROWS) > 10
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:50] for row in ROWS])
def test_every_threat_has_a_defence_and_tests_that_exist(row: list[str]) -> None:
    threat, defence, tests = row
    assert threat
    assert defence
    named = re.findall(r"`([^`]+)`", tests)
    assert named
    for each in named:
        file, _, function = each.partition("::")
        (path,) = [path for path in TESTS if path.match(f"*/{file}")]
        assert function in functions(path), each
