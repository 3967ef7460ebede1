"""Poses: limits hold, mirrors mirror, cycles close, joints bend the way that people bend."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from trainer.errors import DataError
from trainer.synth import anatomy, collide, hand_pose, keyposes, motion, pose
from trainer.synth.bones import BONES, INDEX, MIRROR, forward


def _at(made, bone):
    return forward(made.rotations, made.root)[0][INDEX[bone]]


@pytest.mark.parametrize("seed", range(40))
def test_a_sampled_pose_is_finite_within_limits_and_free_of_collisions(seed):
    made = pose.sample_body_pose(np.random.default_rng(seed))
    assert made.rotations.shape == (len(BONES), 3)
    assert made.rotations.dtype == np.float32
    assert np.isfinite(made.rotations).all()
    assert (made.angles >= anatomy.LOW - 1e-9).all()
    assert (made.angles <= anatomy.HIGH + 1e-9).all()
    assert not collide.collides(made.rotations)
    again = pose.sample_body_pose(np.random.default_rng(seed))
    assert np.array_equal(made.rotations, again.rotations)
    assert np.array_equal(made.root, again.root)


def test_nothing_of_a_key_pose_lies_inside_anything_else():
    for name, angles in zip(keyposes.KEYS, keyposes.ANGLES, strict=True):
        assert not collide.collides(pose.of_angles(angles).rotations), name


def test_key_poses_and_cycles_stay_within_limits():
    cycles = [cycle(phase) for cycle in motion.CYCLES.values() for phase in np.linspace(0, 1, 33)]
    for angles in (*keyposes.ANGLES, *cycles):
        np.testing.assert_allclose(anatomy.within(angles), angles, atol=5)  # a swing may be cut a little
        assert (angles >= anatomy.LOW).all()
        assert (angles <= anatomy.HIGH).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_pose_has_mirrored_joints_and_angles(seed):
    made = pose.sample_body_pose(np.random.default_rng(seed))
    other = made.mirrored()
    there, here = forward(made.rotations, made.root)[0], forward(other.rotations, other.root)[0]
    np.testing.assert_allclose(here, there[MIRROR] * (-1, 1, 1), atol=1e-5)
    body = pose.of_angles(made.angles)
    np.testing.assert_allclose(pose.of_angles(other.angles).rotations, body.mirrored().rotations, atol=1e-5)


def test_joints_bend_as_people_do():
    rest = pose.anatomical({})
    assert _at(rest, "wrist.L")[2] < _at(rest, "lowerarm01.L")[2] < _at(rest, "upperarm01.L")[2]
    for angles, bone, axis, sign in (
        ({"l_shoulder_flex": 90}, "wrist.L", 1, -1),
        ({"l_shoulder_abduct": 90}, "wrist.L", 0, 1),
        ({"r_shoulder_abduct": 90}, "wrist.R", 0, -1),
        ({"elbow": 90}, "wrist.R", 1, -1),
        ({"knee": 90}, "foot.L", 1, 1),
        ({"hip_flex": 90}, "lowerleg01.R", 1, -1),
        ({"spine_flex": 60}, "head", 1, -1),
        ({"spine_bend": 30}, "head", 0, 1),
    ):
        moved = _at(pose.anatomical(angles), bone) - _at(rest, bone)
        assert sign * moved[axis] > 0.15, angles
    overhead = {"flex": {"shoulder_flex": 170}, "abduct": {"shoulder_abduct": 170}}
    for angles in overhead.values():  # either way the hands are above the head
        assert _at(pose.anatomical(angles), "wrist.L")[2] > _at(rest, "head")[2]


def test_a_right_angle_at_the_elbow_and_knee_is_one():
    made = pose.anatomical({"elbow": 90, "knee": 90})
    for a, b, c in (("upperarm01.L", "lowerarm01.L", "wrist.L"), ("upperleg01.R", "lowerleg01.R", "foot.R")):
        upper, lower = _at(made, b) - _at(made, a), _at(made, c) - _at(made, b)
        assert abs(upper @ lower) / (np.linalg.norm(upper) * np.linalg.norm(lower)) < 0.03


@pytest.mark.parametrize("name", motion.CYCLES)
def test_cycles_are_periodic_and_continuous(name):
    cycle = motion.CYCLES[name]
    np.testing.assert_allclose(cycle(0.3), cycle(1.3), atol=1e-9)
    phases = np.linspace(0, 1, 401)
    steps = np.abs(np.diff([cycle(phase) for phase in phases], axis=0))
    assert steps.max() < 4.0  # degrees in a 400th of the cycle
    assert steps.sum(0).max() > 30  # and something moves


@pytest.mark.parametrize("name", ["walk", "run"])
def test_half_a_gait_later_the_sides_have_changed(name):
    cycle = motion.CYCLES[name]
    np.testing.assert_allclose(anatomy.mirrored(cycle(0.2)), cycle(0.7), atol=1e-9)


def test_between_two_poses_runs_from_one_to_the_other():
    a, b = (pose.sample_body_pose(np.random.default_rng(s)).rotations for s in (1, 2))
    np.testing.assert_allclose(motion.between(a, b, 0), a, atol=1e-5)
    there = forward(motion.between(a, b, 1), np.zeros(3))[0]
    np.testing.assert_allclose(there, forward(b, np.zeros(3))[0], atol=1e-5)


def test_known_collisions_are_seen_and_rest_is_free():
    assert not collide.collides(np.zeros((len(BONES), 3)))
    assert not collide.collides(pose.anatomical({}).rotations)
    assert not collide.collides(pose.anatomical({"shoulder_abduct": 90}).rotations)
    assert collide.collides(pose.anatomical({"hip_flex": 128, "knee": 0, "spine_flex": 80}).rotations)
    assert collide.collides(
        pose.anatomical({"elbow": 90, "shoulder_twist": -85, "shoulder_flex": -5}).rotations
    )


def test_a_library_is_used():
    fitted = np.tile(anatomy.vector({"l_shoulder_abduct": 90, "r_knee": 60}), (2, 1))
    library = pose.Library(fitted, np.zeros((2, 3)))
    rng = np.random.default_rng(0)
    near = [np.abs(pose.sample_body_pose(rng, library).angles - fitted[0]).max() < 15 for _ in range(40)]
    assert 3 < sum(near) < 30  # half are drawn from it, and half of those are mirrored


def test_an_unknown_angle_is_refused():
    with pytest.raises(DataError, match="tail"):
        anatomy.vector({"tail": 3})


@pytest.mark.parametrize("side", ["L", "R"])
def test_hands_obey_limits_and_digits_differ(side):
    rng = np.random.default_rng(0)
    for gesture in (None, *range(10)) * 5:
        values = hand_pose.sample_hand_angles(rng, gesture)
        assert (values >= hand_pose.LOW).all()
        assert (values <= hand_pose.HIGH).all()
    made = hand_pose.sample_hand_pose(rng, 3, side)
    assert len(made) == 19
    assert all(bone.endswith(f".{side}") for bone in made)


def test_a_finger_curls_towards_the_palm():
    straight = pose.anatomical({})
    angles = np.zeros(len(hand_pose.NAMES))
    angles[hand_pose.NAMES.index("middle_mcp")] = 80
    curled = pose.with_hands(straight, angles, angles)
    for side, inward in (("L", -1), ("R", 1)):  # arms hang and palms face the thighs
        moved = _at(curled, f"finger3-3.{side}") - _at(straight, f"finger3-3.{side}")
        assert inward * moved[0] > 0.02


@pytest.mark.parametrize("fitted", [False, True])
def test_people_face_the_camera_more_often_than_not(fitted):
    """The camera looks along y; the left of somebody who faces it is at +x, whichever way a fitted body faced."""
    turns = Rotation.from_euler("xz", [(10, degrees) for degrees in range(0, 360, 30)], degrees=True)
    library = pose.Library(np.zeros((12, len(anatomy.NAMES))), turns.as_rotvec())
    found = []
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        root = pose.draw(rng, library).root if fitted else pose.global_rotation(rng)
        found.append(Rotation.from_rotvec(root).apply([1.0, 0.0, 0.0])[0])
    front, back = np.mean(np.array(found) > 0.3), np.mean(np.array(found) < -0.3)
    assert 0.55 < front < 0.7
    assert 0.2 < back < 0.33


@pytest.mark.parametrize("degrees", [-170.0, -60.0, 0.0, 45.0, 120.0])
def test_who_leans_forward_faces_as_before(degrees):
    turned = Rotation.from_euler("xz", (70.0, degrees), degrees=True)
    assert pose.faced(turned.as_rotvec()) == pytest.approx(np.radians(degrees))
