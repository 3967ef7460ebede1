"""Second opinions: each rule on its own, and what they must never touch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.skeletons import BODY19, LSP14
from tests.trainer import people_made
from trainer.data import people, teacher
from trainer.data.people import Person
from trainer.errors import DataError

FACE = [BODY19.index(name) for name in teacher.FACE]
NO_FACE = {"face": [0, 0, 0] * 5, "score": [0, 0, 0, 0, 0]}
SILENT = {"limb_suspect": [], "limb_swap": False, "limb_fill": {}, **NO_FACE}


@pytest.fixture(scope="module")
def lsp_people(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """People with LSP's fourteen joints, all but the first one's left wrist labelled; no face."""
    made = people_made.make(tmp_path_factory.mktemp("lsp"), skeleton=LSP14, count=3, unlabelled=0)
    labels = made.document["annotations"][0]["keypoints"]
    at = 3 * LSP14.index("left_wrist")
    labels[at : at + 3] = [0, 0, 0]
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    return people.read(made.annotations, BODY19)


def merged(found: list[Person], folder: Path, *opinions: dict[str, Any]) -> list[Person]:
    """The people after these opinions."""
    path = folder / "teacher.json"
    path.write_text(json.dumps({"info": {}, "annotations": list(opinions)}), "utf-8")
    return teacher.apply(found, path, BODY19)


def same_labels(a: Person, b: Person, but: tuple[str, ...] = ()) -> bool:
    """Whether two people agree in all joints but some."""
    rest = [index for index, name in enumerate(BODY19.keypoints) if name not in but]
    return all(
        np.array_equal(getattr(a, each)[rest], getattr(b, each)[rest])
        for each in ("points", "visible", "weight")
    )


def test_an_opinion_that_says_nothing_changes_nothing(lsp_people: list[Person], tmp_path: Path) -> None:
    after = merged(lsp_people, tmp_path, *({"id": person.id, **SILENT} for person in lsp_people))
    assert all(same_labels(a, b) for a, b in zip(after, lsp_people, strict=True))


def test_people_without_an_opinion_stay_the_same_objects(lsp_people: list[Person], tmp_path: Path) -> None:
    opinion = {"id": 2, **SILENT, "limb_suspect": ["left_knee"]}
    after = merged(lsp_people, tmp_path, opinion, {"id": 99, **SILENT})
    assert after[0] is lsp_people[0]
    assert after[2] is lsp_people[2]
    assert after[1] is not lsp_people[1]


def test_swapped_pairs_exchange_everything_and_others_nothing(
    lsp_people: list[Person], tmp_path: Path
) -> None:
    opinion = {"id": 1, **SILENT, "limb_swap": True, "swap_pairs": ["wrist", "knee"]}
    before, after = lsp_people[0], merged(lsp_people, tmp_path, opinion)[0]
    for part in ("wrist", "knee"):
        left, right = BODY19.index(f"left_{part}"), BODY19.index(f"right_{part}")
        for each in ("points", "visible", "weight"):
            np.testing.assert_array_equal(
                getattr(after, each)[[left, right]], getattr(before, each)[[right, left]]
            )
    assert same_labels(before, after, ("left_wrist", "right_wrist", "left_knee", "right_knee"))


def test_a_suspect_joint_loses_its_weight_but_stays_for_measuring(
    lsp_people: list[Person], tmp_path: Path
) -> None:
    opinion = {"id": 2, **SILENT, "limb_suspect": ["left_knee"]}
    before, after = lsp_people[1], merged(lsp_people, tmp_path, opinion)[1]
    knee = BODY19.index("left_knee")
    assert after.weight[knee] == 0
    assert after.visible[knee] == before.visible[knee] > 0
    np.testing.assert_array_equal(after.points[knee], before.points[knee])
    assert same_labels(before, after, ("left_knee",))


def test_a_repaired_joint_is_no_longer_suspect(lsp_people: list[Person], tmp_path: Path) -> None:
    opinion = {"id": 2, **SILENT, "limb_swap": True, "swap_pairs": ["knee"]}
    opinion["limb_suspect"] = ["left_knee", "right_knee", "left_ankle"]
    after = merged(lsp_people, tmp_path, opinion)[1]
    weights = {name: after.weight[BODY19.index(name)] for name in opinion["limb_suspect"]}
    assert weights == {"left_knee": 1, "right_knee": 1, "left_ankle": 0}


def test_only_gaps_are_filled_and_count_less(lsp_people: list[Person], tmp_path: Path) -> None:
    opinion = {"id": 1, **SILENT, "limb_fill": {"left_wrist": [31, 32, 0.8], "left_knee": [33, 34, 0.9]}}
    before, after = lsp_people[0], merged(lsp_people, tmp_path, opinion)[0]
    wrist = BODY19.index("left_wrist")
    assert before.visible[wrist] == 0
    assert (*after.points[wrist], after.visible[wrist], after.weight[wrist]) == (31, 32, 1, 0.5)
    assert same_labels(before, after, ("left_wrist",))


def test_a_face_counts_in_proportion_to_its_score(lsp_people: list[Person], tmp_path: Path) -> None:
    face = [10, 11, 1, 12, 13, 1, 14, 15, 1, 0, 0, 0, 16, 17, 1]
    opinion = {"id": 3, **SILENT, "face": face, "score": [0.3, 0.6, 0.9, 0, 0.45]}
    before, after = lsp_people[2], merged(lsp_people, tmp_path, opinion)[2]
    np.testing.assert_allclose(after.weight[FACE], [0.5, 1, 1, 0, 0.75])
    assert after.visible[FACE].tolist() == [1, 1, 1, 0, 1]
    np.testing.assert_array_equal(after.points[FACE], [[10, 11], [12, 13], [14, 15], [0, 0], [16, 17]])
    assert same_labels(before, after, teacher.FACE)


_place = st.tuples(*[st.floats(-50, 200)] * 2, st.floats(0, 1))
_limbs = st.sampled_from([name for name in LSP14.keypoints if name not in ("neck", "head_top")])


@given(
    fill=st.dictionaries(_limbs, _place),
    suspect=st.lists(_limbs),
    face=st.lists(st.tuples(*[st.floats(-50, 200)] * 2, st.sampled_from([0, 1])), min_size=5, max_size=5),
    score=st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_a_human_label_is_never_moved(
    tmp_path_factory: Any,
    lsp_people: list[Person],
    fill: dict[str, Any],
    suspect: list[str],
    face: list[Any],
    score: list[float],
) -> None:
    facts = {"limb_fill": fill, "limb_suspect": suspect, "face": np.ravel(face).tolist(), "score": score}
    opinions = [{"id": person.id, **SILENT, **facts} for person in lsp_people]
    for before, after in zip(
        lsp_people, merged(lsp_people, tmp_path_factory.getbasetemp(), *opinions), strict=True
    ):
        human = before.visible > 0
        np.testing.assert_array_equal(after.points[human], before.points[human])
        np.testing.assert_array_equal(after.visible[human], before.visible[human])
        assert ((after.weight >= 0) & (after.weight <= 1)).all()
        assert (after.weight[after.visible == 0] == 0).all()


def test_the_people_before_are_left_alone(lsp_people: list[Person], tmp_path: Path) -> None:
    points, weight = lsp_people[0].points.copy(), lsp_people[0].weight.copy()
    opinion = {"id": 1, **SILENT, "limb_swap": True, "swap_pairs": ["hip"], "limb_suspect": ["left_elbow"]}
    merged(lsp_people, tmp_path, opinion)
    np.testing.assert_array_equal(lsp_people[0].points, points)
    np.testing.assert_array_equal(lsp_people[0].weight, weight)


@pytest.mark.parametrize(
    "values",
    [
        {"limb_fill": ["left_wrist"]},
        {"limb_fill": {"tail": [1, 2, 0.5]}},
        {"limb_fill": {"left_wrist": [1, 2]}},
        {"limb_fill": {"left_wrist": [float("nan"), 2, 0.5]}},
        {"limb_suspect": ["tail"]},
        {"limb_suspect": None},
        {"limb_swap": True},
        {"limb_swap": True, "swap_pairs": ["tail"]},
        {"face": [1, 2, 1]},
        {"face": [1, 2, 1] * 5, "score": [0.5] * 4},
        {"face": [1, 2, 1] * 5, "score": [-0.5] * 5},
        {"face": [1, 2, 1] * 5, "score": [float("nan")] * 5},
        {"face": None},
    ],
    ids=repr,
)
def test_a_malformed_opinion_names_the_file(
    lsp_people: list[Person], tmp_path: Path, values: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"teacher\.json"):
        merged(lsp_people, tmp_path, {"id": 1, **SILENT, **values})


@pytest.mark.parametrize(
    "document", [{}, [], {"annotations": 3}, {"annotations": ["x"]}, {"annotations": [{}]}], ids=repr
)
def test_a_file_of_another_form_is_named(lsp_people: list[Person], tmp_path: Path, document: Any) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(DataError, match=r"odd\.json"):
        teacher.apply(lsp_people, path, BODY19)
