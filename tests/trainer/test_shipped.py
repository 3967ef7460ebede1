"""What is shipped beside the code works: configurations, the lines of the documentation, and the commands on runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from model_zoo.skeletons import BODY19, HAND21
from tests.trainer import people_made
from trainer import benchmark, cli, loop
from trainer import config as configuration
from trainer.checkpoint import RunFolder
from trainer.nets import build
from trainer.nets.pose import multiply_adds
from trainer.nets.repvgg import deployed

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
MMACS = {
    "body19-nano": (40, 50),
    "body19-small": (120, 132),
    "body19-base": (480, 540),
    "hand21-nano": (20, 30),
    "hand21-small": (55, 70),
}


@pytest.mark.parametrize("name", configuration.shipped())
def test_a_shipped_configuration_runs(name: str, tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=4)
    if configuration.load(name).skeleton == "hand21":
        _as_hands(made)
    sets = "[{annotations: people.json}]"
    overrides = [f"data.train={sets}", f"data.validate_on={sets}", "optimisation.batch=4"]
    config = configuration.load(name, [*overrides, "phases=[{epochs: 1, height: 64, width: 64}]"])
    folder = RunFolder(tmp_path / "run")
    loop.train(config, tmp_path, folder, cache=tmp_path / "cache", accelerator="cpu")
    assert folder.load_checkpoint()["epoch"] == 1
    figures = {name.removeprefix("people ") for name in folder.metrics()[-1] if name.startswith("people ")}
    further = {"mean error of box", "presence AUC", "gesture accuracy", "handedness accuracy", "depth error"}
    assert figures == (further if config.skeleton == "hand21" else set())
    for made in (folder.curves_file, folder.sheet_file):
        assert made.read_bytes().startswith(b"\x89PNG")


def _as_hands(made: people_made.MadeSet) -> None:
    """As if each of them were a hand, but for the last one, who is none."""
    made.document["categories"][0]["keypoints"] = list(HAND21.keypoints[: len(BODY19)])
    for number, entry in enumerate(made.document["annotations"]):
        entry |= {"presence": 1, "gesture": number, "handedness": ("left", "right")[number % 2]}
        entry["keypoints_3d"] = [float(at) for at in range(3 * len(BODY19))]
    nobody = made.document["annotations"][-1]
    nobody |= {"presence": 0}
    del nobody["gesture"], nobody["handedness"], nobody["keypoints"], nobody["keypoints_3d"]
    made.annotations.write_text(json.dumps(made.document), "utf-8")


@pytest.mark.parametrize("name", MMACS)
def test_the_family_has_the_sizes_it_says(name: str) -> None:
    config = configuration.load(name)
    found = multiply_adds(deployed(build.plain(config).eval()), config.phases[-1].size) / 1e6
    low, high = MMACS[name]
    assert low < found < high
    assert f"{round(found)} MMACs" in config.description


@pytest.mark.parametrize("block", BLOCKS)
def test_a_line_of_the_documentation_is_a_configuration(block: str) -> None:
    changes: dict[str, Any] = yaml.safe_load(block)
    document = people_made.run_document(**changes)
    document["net"] = people_made.run_document()["net"] | changes.get("net", {})
    config = configuration.parse(document)
    again = configuration.parse(yaml.safe_load(configuration.dump(config)))
    assert again == config


def test_the_documentation_has_a_line_for_every_section() -> None:
    named = {key for block in BLOCKS for key in yaml.safe_load(block)}
    assert {"net", "losses", "weighting", "ohkm", "augmentation", "distillation", "optimisation"} <= named
    losses = {name for block in BLOCKS for name in yaml.safe_load(block).get("losses", {})}
    assert {"dsnt", "simcc", "rle", "coordinates", "bone", "oks", "presence", "class"} <= losses


def test_compare_prints_a_table_and_draws_the_curves(trained: Any, tmp_path: Path) -> None:
    picture = tmp_path / "both.png"
    runs = [str(trained.folder.path)] * 2
    done = CliRunner().invoke(cli.app, ["compare", *runs, "--out", str(picture)])
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    for row in ("head", "epochs", "loss", "people"):
        assert row in done.stdout
    assert "4 of 4" in done.stdout


def test_compare_says_which_run_has_nothing_to_compare(trained: Any, tmp_path: Path) -> None:
    empty = RunFolder(tmp_path / "empty")
    empty.start(trained.config, [1], "nothing")
    done = CliRunner().invoke(cli.app, ["compare", str(empty.path), "--out", str(tmp_path / "x.png")])
    assert "empty has no finished epoch" in str(done.exception)


def test_bench_says_what_the_loop_costs(tmp_path: Path) -> None:
    people_made.make(tmp_path, count=16)
    config = configuration.parse(people_made.run_document())
    found = benchmark.run(config, tmp_path, tmp_path / "cache", accelerator="cpu", rounds=2, steps=2)
    assert found.loop > 0
    assert found.bare > 0
    assert re.fullmatch(r"loop [\d.]+ images/s, bare [\d.]+ images/s, share [\d.]+", str(found))
