"""Keypoint names, mirror pairs and bones agree with each other."""

from __future__ import annotations

import pytest

from model_zoo import skeletons
from model_zoo.errors import SkeletonError
from model_zoo.skeletons import BODY19, COCO17, HAND21, LSP14, SKELETONS, Skeleton

each = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())


@pytest.mark.parametrize(("name", "count"), [("body19", 19), ("coco17", 17), ("lsp14", 14), ("hand21", 21)])
def test_the_name_tells_the_number_of_keypoints(name, count):
    assert len(skeletons.skeleton(name)) == len(skeletons.skeleton(name).sigmas) == count


@each
def test_mirroring_twice_changes_nothing(skeleton):
    order = skeleton.flip_order
    assert [order[index] for index in order] == list(range(len(skeleton)))


@each
def test_mirror_partners_differ_in_the_side_alone(skeleton):
    for index, partner in enumerate(skeleton.flip_order):
        swapped = {"left": "right", "right": "left"}
        side, _, part = skeleton.keypoints[index].partition("_")
        expected = f"{swapped[side]}_{part}" if side in swapped else skeleton.keypoints[index]
        assert skeleton.keypoints[partner] == expected


@each
def test_bones_connect_everything(skeleton):
    groups = {index: {index} for index in range(len(skeleton))}
    for parent, child in skeleton.bones:
        merged = groups[parent] | groups[child]
        groups.update(dict.fromkeys(merged, merged))
    assert groups[0] == set(range(len(skeleton)))


@each
def test_the_mirror_image_has_the_same_bones(skeleton):
    order = skeleton.flip_order
    bones = {frozenset(bone) for bone in skeleton.bones}
    assert len(bones) == len(skeleton.bones)
    assert {frozenset(order[end] for end in bone) for bone in bones} == bones


@each
def test_mirror_partners_share_their_sigma(skeleton):
    assert all(0 < sigma < 0.2 for sigma in skeleton.sigmas)
    assert [skeleton.sigmas[index] for index in skeleton.flip_order] == list(skeleton.sigmas)


def test_body19_is_coco17_with_two_more():
    assert BODY19.keypoints == (*COCO17.keypoints, "head_top", "neck")
    assert BODY19.sigmas[:17] == COCO17.sigmas
    by_ear = {
        bone for bone in COCO17.bones if COCO17.index("left_ear") in bone or COCO17.index("right_ear") in bone
    }
    assert set(COCO17.bones) - by_ear < set(BODY19.bones)  # COCO's head hangs on the ears, ours on the neck


def test_every_lsp_keypoint_is_one_of_body19_with_the_same_sigma():
    assert {BODY19.sigmas[BODY19.index(name)] for name in LSP14.keypoints} == set(LSP14.sigmas)
    for name, sigma in zip(LSP14.keypoints, LSP14.sigmas, strict=True):
        assert BODY19.sigmas[BODY19.index(name)] == sigma
    missing = set(BODY19.keypoints) - set(LSP14.keypoints)
    assert missing == {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}


def test_the_limbs_of_lsp_are_those_of_body19():
    def named(skeleton):
        return {frozenset((skeleton.keypoints[a], skeleton.keypoints[b])) for a, b in skeleton.bones}

    assert named(LSP14) <= named(BODY19)


def test_each_finger_is_a_chain_from_the_wrist():
    parents = {child: parent for parent, child in HAND21.bones}
    for tip in (HAND21.index(name) for name in HAND21.keypoints if name.endswith("_tip")):
        steps = 0
        while tip != 0:
            tip, steps = parents[tip], steps + 1
        assert steps == 4


def test_unknown_names_are_refused():
    with pytest.raises(SkeletonError, match=r"'body20'; known: body19, coco17, hand21, lsp14"):
        skeletons.skeleton("body20")
    with pytest.raises(SkeletonError, match="coco17 has no keypoint 'neck'"):
        COCO17.index("neck")


@pytest.mark.parametrize(
    ("keypoints", "pairs", "bones", "sigmas"),
    [
        (("a", "a"), (), (), (0.1, 0.1)),
        (("a", "b"), (), (), (0.1,)),
        (("a", "b", "c"), ((0, 1), (1, 2)), (), (0.1, 0.1, 0.1)),
        (("a", "b"), ((0, 2),), (), (0.1, 0.1)),
        (("a", "b"), (), ((0, -1),), (0.1, 0.1)),
    ],
    ids=["name twice", "sigma missing", "two partners", "no such pair", "no such bone"],
)
def test_a_skeleton_that_contradicts_itself_is_refused(keypoints, pairs, bones, sigmas):
    with pytest.raises(SkeletonError):
        Skeleton("odd", keypoints, pairs, bones, sigmas)
