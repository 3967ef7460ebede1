"""PCK, PCKh and OKS-AP against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.skeletons import BODY19, COCO17
from tests.trainer import people_made
from trainer import metrics
from trainer.data import people
from trainer.data.people import Person, Picture
from trainer.errors import DataError

# A person of round numbers: torso diagonals 50 long, head 10 long.
STANDING = {
    "nose": (5, -17), "left_eye": (7, -19), "right_eye": (3, -19), "left_ear": (9, -18), "right_ear": (1, -18),
    "left_shoulder": (30, 0), "right_shoulder": (0, 0), "left_elbow": (40, 20), "right_elbow": (-10, 20),
    "left_wrist": (40, 40), "right_wrist": (-10, 40), "left_hip": (30, 40), "right_hip": (0, 40),
    "left_knee": (30, 70), "right_knee": (0, 70), "left_ankle": (30, 100), "right_ankle": (0, 100),
    "head_top": (15, -20), "neck": (15, -10),
}  # fmt: skip
TORSO, HEAD = 50.0, 10.0


def standing(*unlabelled: str, area: float = 10_000.0) -> Person:
    """The person of round numbers, without some labels."""
    visible = np.array([0 if name in unlabelled else 2 for name in BODY19.keypoints])
    points = np.array([STANDING[name] for name in BODY19.keypoints], float) * (visible > 0)[:, None]
    box = np.array([-20, -30, 70, 140], float)
    return Person(1, 1, Picture(Path("none")), box, area, points, visible, (visible > 0).astype(float))


def moved(**by: float) -> np.ndarray:
    """(19, 2) the true points, some of them so many pixels to the right."""
    points = np.array([STANDING[name] for name in BODY19.keypoints], float)
    for name, distance in by.items():
        points[BODY19.index(name), 0] += distance
    return points


def pck(*pairs: tuple[Person, np.ndarray]) -> metrics.Score:
    """PCK@0.2 of people and their answers."""
    return metrics.pck([each for each, _ in pairs], np.stack([points for _, points in pairs]), BODY19)


def pckh(*pairs: tuple[Person, np.ndarray]) -> metrics.Score:
    """PCKh@0.5 of people and their answers."""
    return metrics.pckh([each for each, _ in pairs], np.stack([points for _, points in pairs]), BODY19)


def average_precision(*pairs: tuple[Person, np.ndarray], scores: list[float] | None = None) -> metrics.Score:
    """OKS-AP of people and their answers."""
    points = np.stack([points for _, points in pairs])
    sure = np.repeat(np.array(scores or [0.5] * len(pairs))[:, None], len(BODY19), axis=1)
    return metrics.oks_ap([each for each, _ in pairs], points, sure, BODY19)


def test_perfect_answers_are_worth_a_hundred(tmp_path: Path) -> None:
    found = people.read(people_made.make(tmp_path, count=8, unlabelled=0.2).annotations, BODY19)
    points = np.stack([person.points for person in found])
    assert metrics.pck(found, points, BODY19).value == 100
    assert metrics.pckh(found, points, BODY19).value == 100
    assert metrics.oks_ap(found, points, np.ones(points.shape[:2]), BODY19).value == pytest.approx(100)


def test_pck_counts_what_is_within_a_fifth_of_the_torso() -> None:
    score = pck((standing(), moved(left_ankle=0.2 * TORSO, right_wrist=0.2 * TORSO + 0.01)))
    assert score.metric == "PCK@0.2"
    assert score.value == pytest.approx(100 * 11 / 12)
    assert score.per_keypoint["left_ankle"] == 100
    assert score.per_keypoint["right_wrist"] == 0


def test_pck_is_a_mean_over_joints_not_over_labels() -> None:
    # Two people; the second has but one label outside the torso. Wrists: 1 of 2 right, knees: 0 of 1.
    rest = [name for name in metrics.LIMBS if "shoulder" not in name and "hip" not in name]
    second = standing(*(name for name in rest if name != "left_wrist"))
    score = pck((standing(), moved(left_wrist=99, left_knee=99)), (second, moved()))
    assert score.per_keypoint["left_wrist"] == 50
    assert score.per_keypoint["left_knee"] == 0
    assert score.value == pytest.approx((10 * 100 + 50 + 0) / 12)
    assert score.people == 2


def test_an_unlabelled_joint_cannot_be_wrong() -> None:
    score = pck((standing("left_wrist"), moved(left_wrist=500)))
    assert score.value == 100
    assert "left_wrist" not in score.per_keypoint


def test_the_face_does_not_count_for_pck() -> None:
    assert pck((standing(), moved(nose=500, head_top=500, neck=500))).value == 100


def test_the_torso_is_the_mean_of_two_diagonals_or_the_one_there_is() -> None:
    wide = standing()
    wide.points[BODY19.index("left_hip")] = (75, 100)  # its diagonal is 125 long
    crooked = [wide, standing("left_hip"), standing("right_shoulder"), standing("left_hip", "right_hip")]
    lengths = metrics.lengths(crooked, BODY19, metrics.DIAGONALS)
    np.testing.assert_allclose(lengths, [(125 + 50) / 2, 50, 50, np.nan])


def test_people_without_a_torso_are_left_out() -> None:
    lost = (standing("left_hip", "right_hip"), moved(left_knee=500))
    assert pck((standing(), moved()), lost) == pck((standing(), moved()))
    with pytest.raises(DataError, match=r"PCK@0\.2: nobody"):
        pck(lost)


def test_a_torso_of_no_length_is_no_measure() -> None:
    flat = standing("left_hip", "left_shoulder")
    flat.points[:] = 0
    assert pck((flat, moved()), (standing(), moved())).people == 1


def test_pckh_counts_what_is_within_half_the_head() -> None:
    score = pckh((standing(), moved(left_ankle=0.5 * HEAD, neck=0.5 * HEAD + 0.01, nose=99)))
    assert score.metric == "PCKh@0.5"
    assert score.value == pytest.approx(100 * 13 / 14)
    assert score.per_keypoint["neck"] == 0
    assert "nose" not in score.per_keypoint


def test_people_without_a_head_are_left_out_of_pckh() -> None:
    headless = (standing("head_top"), moved(left_knee=500))
    assert pckh((standing(), moved()), headless).people == 1
    with pytest.raises(DataError, match=r"PCKh@0\.5: nobody"):
        pckh(headless)


@given(scale=st.floats(0.1, 50), dx=st.floats(-1e4, 1e4), dy=st.floats(-1e4, 1e4), seed=st.integers(0, 1000))
def test_pck_does_not_depend_on_place_and_scale(scale: float, dx: float, dy: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shift = np.array([dx, dy])
    answers = moved() + rng.choice([0, 5, 9, 11, 30], (19, 1)) * np.array([1.0, 0.0])
    person = standing()
    away = person.with_labels(person.points * scale + shift, person.visible, person.weight)
    assert pck((away, answers * scale + shift)).value == pytest.approx(pck((person, answers)).value)


def oks_by_hand(person: Person, answer: np.ndarray) -> float:
    """COCO's object keypoint similarity over the 17 joints, from its definition."""
    terms = [
        np.exp(
            -np.sum((answer[index] - person.points[index]) ** 2)
            / (2 * person.area * (2 * COCO17.sigmas[COCO17.index(name)]) ** 2)
        )
        for index, name in enumerate(BODY19.keypoints)
        if name in COCO17.keypoints and person.visible[index]
    ]
    return float(np.mean(terms))


@pytest.mark.parametrize("shift", [0, 2, 4, 6, 8, 10, 12, 16, 30])
@pytest.mark.parametrize("missing", [(), ("nose", "left_eye", "left_knee")], ids=["all", "some"])
def test_oks_ap_of_one_person_counts_the_thresholds_it_passes(shift: float, missing: tuple[str, ...]) -> None:
    person, answer = standing(*missing), moved() + np.array([shift, 0.0])
    passed = sum(oks_by_hand(person, answer) >= each for each in np.linspace(0.5, 0.95, 10))
    assert average_precision((person, answer)).value == pytest.approx(100 * passed / 10)


def test_the_shifts_above_pass_between_none_and_all_thresholds() -> None:
    values = [oks_by_hand(standing(), moved() + np.array([shift, 0.0])) for shift in (2, 6, 10, 30)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95
    assert values[-1] < 0.5


def test_a_sure_mistake_costs_more_precision_than_a_doubtful_one() -> None:
    right, wrong = (standing(), moved()), (standing(), moved() + 300)
    doubtful = average_precision(right, wrong, scores=[0.9, 0.1]).value
    sure = average_precision(right, wrong, scores=[0.1, 0.9]).value
    # One of two people found: precision 1 up to recall 0.5 in the first case, one half in the second; COCO samples
    # the recall at 0, 0.01, ..., 1, of which 51 are at most 0.5.
    assert doubtful == pytest.approx(100 * 51 / 101)
    assert sure == pytest.approx(100 * 51 / 101 / 2)


def test_head_top_and_neck_do_not_count_for_oks() -> None:
    assert average_precision((standing(), moved(head_top=500, neck=500))).value == pytest.approx(100)


def test_people_without_coco_s_joints_are_not_counted() -> None:
    bare = standing(*COCO17.keypoints)
    score = average_precision((standing(), moved()), (bare, moved()))
    assert (score.people, score.value) == (1, pytest.approx(100))


def test_what_is_no_number_is_wrong_whoever_is_there() -> None:
    there = [replace(standing(), presence=float(number < 3), gesture="0") for number in range(6)]
    said = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    assert metrics.presence_auc(there, said).value == 100.0
    for wrong in ([0, 1, 2], [3, 4, 5], range(6)):
        broken = said.copy()
        broken[list(wrong)] = np.nan
        assert metrics.presence_auc(there, broken).value == 0.0
    sure = np.tile([0.9, 0.1], (6, 1))
    assert metrics.class_accuracy(there, sure, "gesture", ("0", "1")).value == 100.0
    sure[1] = np.nan  # of the three that are there
    assert metrics.class_accuracy(there, sure, "gesture", ("0", "1")).value == pytest.approx(200 / 3)
