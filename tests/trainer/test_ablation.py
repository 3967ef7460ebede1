"""Ablations: plans that add up, runs that go on, a table that tells the truth."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.trainer import hands_made, people_made
from trainer import ablation, ablation_figures, ablation_report, cli, loop
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


@pytest.mark.parametrize(
    ("name", "lengths"),
    # What mixes photographs with made people is as long in steps, and in looks at photographs.
    [("survey", 1), ("hands", 1), ("pretraining", 2), ("randomisations", 1)],
)
def test_a_shipped_plan_is_valid_in_every_row(name: str, lengths: int) -> None:
    plan = ablation.load(name)
    configs = [plan.config(row.name, seed) for row in plan.rows for seed in plan.seeds]
    assert len({config.model_dump_json() for config in configs}) == len(configs)
    assert len({config.epochs for config in configs}) == lengths


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


def test_a_run_of_another_configuration_is_not_the_plans(done: Any) -> None:
    _, _, out = done
    base = people_made.run_document(phases=[{"epochs": 1, "height": 64, "width": 64}], validate_every=1)
    changed = Plan.model_validate(document(base=base | {"optimisation": {"batch": 4}}))
    assert not any(each.finished for each in ablation.trials(changed, out))
    assert not list(ablation.results(changed, out))


def test_a_run_that_was_measured_less_often_is_the_plans_all_the_same(done: Any) -> None:
    plan, _, out = done
    seldom = Plan.model_validate(document(base=document()["base"] | {"validate_every": 5}))
    assert seldom.config("first", 1) != plan.config("first", 1)
    assert all(each.finished for each in ablation.trials(seldom, out))


def test_a_run_begun_under_another_rhythm_of_measuring_goes_on(done: Any, tmp_path: Path) -> None:
    plan, root, out = done
    (trial, *_) = ablation.trials(plan, out, ["first"])
    (mine, *_) = ablation.trials(
        Plan.model_validate(document(base=document()["base"] | {"validate_every": 5})), tmp_path, ["first"]
    )
    mine.folder.start(trial.config, [1], "a made machine")
    assert (mine.begun, mine.finished) == (trial.config, False)
    ablation.run([mine], root, 1, lambda _: None)
    assert mine.finished
    assert mine.folder.config() == trial.config


def test_a_run_that_cannot_be_read_is_not_the_plans(done: Any, tmp_path: Path) -> None:
    plan, _, out = done
    shutil.copytree(out / "first", tmp_path / "first", symlinks=True)
    (trial, *_) = ablation.trials(plan, tmp_path, ["first"])
    assert trial.finished
    for broken in ("{", trial.folder.config_file.read_text("utf-8") + "old_key: 1\n"):
        trial.folder.config_file.write_text(broken, "utf-8")
        assert not trial.finished


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
    table, gains, _ = tables(text)
    assert table["row"][3:6] == ["seeds", "people PCK@0.2", "MMACs"]
    for name, pair in values.items():
        assert table[name][3:5] == ["2", f"{statistics.mean(pair):.1f} ± {statistics.stdev(pair):.1f}"]
    differences = [b - a for a, b in zip(values["first"], values["mse"], strict=True)]
    error = statistics.stdev(differences) / 2**0.5
    assert gains["mse"] == ["mse", "first", "2", f"{statistics.mean(differences):+.1f} ± {error:.1f}"]
    assert set(gains) == {"row", "mse", "both"}
    assert all(float(table[name][-1].strip(" x")) > 0 for name in values)
    for decoder in ("dark", "argmax_shift", "udp", "dsnt"):
        assert f"| {decoder} |" in text
    assert "the command" in text
    assert (tmp_path / "made-people.png").stat().st_size > 5000
    assert not (tmp_path / "made-people-curves.png").exists()  # one epoch is no curve


def tables(text: str) -> list[dict[str, list[str]]]:
    """The tables of a report, each by its first column."""
    found: list[dict[str, list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append({})
            row = [cell.strip() for cell in line.split("|")[1:-1]]
            if row[0] != "---":
                found[-1][row[0]] = row
        before = line
    return found


HANDS = [
    {"name": "soft", "title": "Heatmaps"},
    {"name": "dsnt", "after": "soft", "title": "DSNT", "set": {"net": {"head": "dsnt"}}},
    {"name": "balanced", "after": "soft", "title": "Automatic", "set": {"weighting": "automatic"}},
]


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Path]:
    """Nets with every head, two epochs: of the last row a single seed, as when it is not finished."""
    root = tmp_path_factory.mktemp("hands")
    hands_made.make(root, count=24)
    hands_made.make(root, "val", count=16, seed=2)
    alone = hands_made.make(root, "nobody", count=12, seed=3)
    document = json.loads(alone.read_text("utf-8"))
    for entry in document["annotations"]:
        for label in ("keypoints", "keypoints_3d", "gesture", "handedness"):
            entry.pop(label, None)
    alone.write_text(json.dumps(document | {"categories": [{"id": 1, "name": "hand"}]}), "utf-8")
    base = hands_made.run_document(phases=[{"epochs": 2, "height": 64, "width": 64}], validate_every=1)
    base["net"] |= {"head": "softmax", "dimensions": 2, "depth": True}
    base["data"]["validate_on"].append({"annotations": "nobody.json"})
    plan = Plan.model_validate({"base": base, "seeds": [1, 2], "rows": HANDS})
    for each in ablation.trials(plan, root / "out"):
        if (each.row.name, each.seed) != ("balanced", 2):
            loop.train(each.config, root, each.folder, cache=root / "cache", accelerator="cpu")
    return plan, root, root / "out"


def last(out: Path, row: str, seed: int, column: str) -> float:
    with (out / row / str(seed) / "metrics.csv").open(newline="") as stream:
        return float(list(csv.DictReader(stream))[-1][column])


def test_a_plan_of_several_heads_has_a_column_for_each_of_their_figures(hands: Any, tmp_path: Path) -> None:
    plan, root, out = hands
    report = tmp_path / "hands.md"
    ablation_report.write(plan, out, root, report, "the command", latency=False)
    table, gains, decoders = tables(report.read_text("utf-8"))
    names = table["row"][4:-1]
    assert names == [
        "val PCK@0.1box", "val mean error of box", "val presence AUC", "val gesture accuracy",
        "val handedness accuracy", "val depth error", "nobody presence AUC",
    ]  # fmt: skip
    assert [table[name][3] for name in ("soft", "dsnt", "balanced")] == ["2", "2", "1"]
    for title in names:
        column = title.removesuffix(" PCK@0.1box")
        soft, dsnt = ([last(out, row, seed, column) for seed in (1, 2)] for row in ("soft", "dsnt"))
        at = table["row"].index(title)
        assert table["soft"][at] == f"{statistics.mean(soft):.1f} ± {statistics.stdev(soft):.1f}"
        sign = -1 if "error" in title else 1
        moved = [sign * (b - a) for a, b in zip(soft, dsnt, strict=True)]
        at = gains["row"].index(title)
        assert gains["dsnt"][at] == f"{statistics.mean(moved):+.1f} ± {statistics.stdev(moved) / 2**0.5:.1f}"
        one = sign * (last(out, "balanced", 1, column) - last(out, "soft", 1, column))
        assert gains["balanced"][at] == f"{one:+.1f}"  # one seed has no spread
    assert decoders["row"] == ["row", "decoder", "val"]
    for path in (report.with_suffix(".png"), tmp_path / "hands-curves.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"({path.name})" in report.read_text("utf-8")


def test_rows_that_no_seed_has_finished_are_named(hands: Any, tmp_path: Path) -> None:
    plan, root, out = hands
    more = Plan.model_validate(
        plan.model_dump() | {"rows": [*HANDS, {"name": "later", "after": "soft", "title": "Later"}]}
    )
    ablation_report.write(more, out, root, tmp_path / "a.md", "the command", latency=False)
    assert "Not finished by any seed yet: later." in (tmp_path / "a.md").read_text("utf-8")


def test_a_curve_is_the_mean_of_the_seeds_where_all_have_measured(hands: Any) -> None:
    plan, _, out = hands
    done = {row.name: trials for row, trials in ablation.results(plan, out)}
    epochs, means, deviations = ablation_figures.curve(done["soft"], "val mean error of box")
    assert epochs.tolist() == [1, 2]
    both = [last(out, "soft", seed, "val mean error of box") for seed in (1, 2)]
    assert means[-1] == pytest.approx(statistics.mean(both))
    assert deviations[-1] == pytest.approx(statistics.stdev(both))
    assert not ablation_figures.curve(done["balanced"], "val mean error of box")[2].any()


def test_a_report_of_one_row_has_nothing_to_compare(done: Any, tmp_path: Path) -> None:
    plan, root, out = done
    report = tmp_path / "alone.md"
    alone = plan.model_copy(update={"rows": plan.rows[:1]})
    ablation_report.write(alone, out, root, report, "the command", latency=False)
    assert "| dark |" in report.read_text("utf-8")
    assert "![" not in report.read_text("utf-8")
    assert not report.with_suffix(".png").exists()


def test_a_report_says_by_which_command_and_is_of_all_rows(done: Any, tmp_path: Path) -> None:
    _, root, out = done
    named = tmp_path / "plan.yaml"
    named.write_text(yaml.safe_dump(document()), "utf-8")
    report = tmp_path / "new" / "report.md"
    words = [
        "ablate",
        str(named),
        "--data",
        str(root),
        "--out",
        str(out),
        "--no-latency",
        "--report",
        str(report),
    ]
    told = CliRunner().invoke(cli.app, words)
    assert told.exit_code == 0, told.output
    assert f"--data DATA --out {out} --no-latency --report {report}`" in report.read_text("utf-8")
    told = CliRunner().invoke(cli.app, [*words, "--row", "mse"])
    assert (told.exit_code, "a report is of all rows" in told.output) == (2, True)


def test_no_report_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no finished run"):
        ablation_report.write(Plan.model_validate(document()), tmp_path, tmp_path, tmp_path / "a.md", "")


def test_one_seed_has_no_spread() -> None:
    assert str(ablation_figures.Spread.of([50.0])) == "50.0"
    spread = ablation_figures.Spread.of([49.0, 51.0])
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
