"""Ablations: plans that add up, runs that go on, a table that tells the truth."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import people_made
from trainer import ablation, ablation_report
from trainer.ablation import Plan, Trial
from trainer.checkpoint import RunFolder
from trainer.errors import CheckpointError, ConfigError

ROWS = [
    {"name": "first", "title": "As it is"},
    {"name": "mse", "after": "first", "title": "MSE", "set": {"net": {"head": "linear"}}},
    {"name": "both", "after": "mse", "title": "HardSwish too", "set": {"net": {"activation": "hard_swish"}}},
]


def document(**changes: Any) -> dict[str, Any]:
    """A plan of three rows, two seeds, one epoch each."""
    base = people_made.run_document(phases=[{"epochs": 1, "height": 64, "width": 64}], validate_every=1)
    return {"base": base, "seeds": [1, 2], "rows": ROWS} | changes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Path]:
    """A plan that was run: it, its data root and its folder."""
    root = tmp_path_factory.mktemp("ablation")
    people_made.make(root, count=16)
    plan, told = Plan.model_validate(document()), []
    ablation.run(ablation.trials(plan, root / "out"), root, 2, told.append)
    assert len(told) == 6
    return plan, root, root / "out"


documents = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), documents, max_size=3)


@given(mappings, mappings)
def test_what_is_above_wins_and_nothing_else_changes(below: dict, above: dict) -> None:
    before = repr((below, above))
    both = ablation.merged(below, above)
    assert repr((below, above)) == before
    assert both.keys() == below.keys() | above.keys()
    for key, value in both.items():
        if key not in above:
            assert value == below[key]
        elif not (isinstance(above[key], dict) and isinstance(below.get(key), dict)):
            assert value == above[key]
        else:
            assert value == ablation.merged(below[key], above[key])


def test_a_row_is_all_changes_on_its_way() -> None:
    config = Plan.model_validate(document()).config("both", 7)
    assert (config.net.head, config.net.activation, config.seed) == ("linear", "hard_swish", 7)
    assert config.net.widths == (16, 16, 16, 16)  # of the base


@pytest.mark.parametrize("name", ["survey", "hands", "pretraining", "randomisations"])
def test_a_shipped_plan_is_valid_in_every_row(name: str) -> None:
    plan = ablation.load(name)
    configs = [plan.config(row.name, seed) for row in plan.rows for seed in plan.seeds]
    assert len({config.model_dump_json() for config in configs}) == len(configs)
    assert len({config.epochs for config in configs}) == 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([ROWS[1]], "mse comes after first, which is no row above it"),
        ([ROWS[0], ROWS[0]], "first stands there twice"),
    ],
)
def test_rows_that_do_not_follow_each_other_are_refused(
    rows: list[dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(document(rows=rows)), "utf-8")
    with pytest.raises(ConfigError, match=reason):
        ablation.load(str(path))


def test_a_wrong_setting_names_its_row() -> None:
    rows = [ROWS[0], {"name": "odd", "after": "first", "title": "", "set": {"net": {"hed": "linear"}}}]
    with pytest.raises(ConfigError, match=r"^row odd: net\.hed: unknown key; did you mean 'head'"):
        Plan.model_validate(document(rows=rows)).config("odd", 1)


def test_an_unknown_row_or_plan_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has first, mse, both"):
        ablation.trials(Plan.model_validate(document()), tmp_path, ["none"])
    with pytest.raises(ConfigError, match=r"shipped ones: .*\bsurvey\b"):
        ablation.load("nothing")


def test_every_run_is_finished_and_none_is_repeated(done: Any) -> None:
    plan, root, out = done
    every = ablation.trials(plan, out)
    assert [(each.row.name, each.seed) for each in every] == [
        (row["name"], seed) for seed in (1, 2) for row in ROWS
    ]
    assert all(each.finished for each in every)
    stamps = {each.folder.checkpoint_file: each.folder.checkpoint_file.stat().st_mtime_ns for each in every}
    ablation.run(every, root, 2, pytest.fail)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_run_that_fails_is_named(done: Any, tmp_path: Path) -> None:
    plan, _, _ = done
    with pytest.raises(ConfigError, match=r"row first, seed 1 failed; see .*log\.txt"):
        ablation.run(ablation.trials(plan, tmp_path, ["first"])[:1], tmp_path / "nowhere", 1, pytest.fail)
    assert "people.json" in (tmp_path / "first" / "1" / "log.txt").read_text()


def test_the_report_holds_what_the_runs_measured(done: Any, tmp_path: Path) -> None:
    plan, root, out = done
    report = tmp_path / "made-people.md"
    ablation_report.write(plan, out, root, report, "the command", latency=True)
    text = report.read_text("utf-8")
    values = {each.name: [_people(out, each.name, seed) for seed in (1, 2)] for each in plan.rows}
    cells = {line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if "|" in line}
    for name, pair in values.items():
        assert f"{statistics.mean(pair):.1f} ± {statistics.stdev(pair):.1f}" in "|".join(cells[name])
    differences = [b - a for a, b in zip(values["first"], values["mse"], strict=True)]
    error = statistics.stdev(differences) / 2**0.5
    assert f"{statistics.mean(differences):+.1f} ± {error:.1f}" in "|".join(cells["mse"])
    assert all(float(cells[name][-2].strip(" x")) > 0 for name in values)
    for decoder in ("dark", "argmax_shift", "udp", "dsnt"):
        assert f"| {decoder} |" in text
    assert "the command" in text
    assert (tmp_path / "made-people.png").stat().st_size > 5000


def test_a_report_of_one_row_has_nothing_to_compare(done: Any, tmp_path: Path) -> None:
    plan, root, out = done
    report = tmp_path / "alone.md"
    alone = plan.model_copy(update={"rows": plan.rows[:1]})
    ablation_report.write(alone, out, root, report, "the command", latency=False)
    assert "| dark |" in report.read_text("utf-8")
    assert "![" not in report.read_text("utf-8")
    assert not report.with_suffix(".png").exists()


def test_no_report_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no finished run"):
        ablation_report.write(Plan.model_validate(document()), tmp_path, tmp_path, tmp_path / "a.md", "")


def test_one_seed_has_no_spread() -> None:
    assert str(ablation_report.Spread.of([50.0])) == "50.0"
    spread = ablation_report.Spread.of([49.0, 51.0])
    assert str(spread) == "50.0 ± 1.4"
    assert spread.error == pytest.approx(1.0)


def test_an_unfinished_run_is_none(tmp_path: Path) -> None:
    plan = Plan.model_validate(document())
    (trial, *_) = ablation.trials(plan, tmp_path)
    assert isinstance(trial, Trial)
    assert trial.folder == RunFolder(tmp_path / "first" / "1")
    assert not trial.finished
    assert list(ablation.results(plan, tmp_path)) == []


def _people(out: Path, row: str, seed: int) -> float:
    with (out / row / str(seed) / "metrics.csv").open(newline="") as stream:
        return float(list(csv.DictReader(stream))[-1]["people"])
