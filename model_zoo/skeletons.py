"""Keypoint names, mirror pairs, bones and OKS sigmas. Indices are zero-based everywhere.

Left and right are the person's own. `body19` is COCO's 17 joints in COCO's order, then head_top and
neck: the first 19 of Halpe-26.

Sources of the sigmas: COCO's keypoint evaluation (17 joints) doubled nowhere, exactly as published;
0.079 for head_top and neck, which COCO lacks; COCO-WholeBody's right-hand values for `hand21`.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_zoo.errors import SkeletonError


@dataclass(frozen=True)
class Skeleton:
    """Named keypoints and how they belong together."""

    name: str
    keypoints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    """Pairs of keypoints that change places in a mirror image; each index at most once."""
    bones: tuple[tuple[int, int], ...]
    """(parent, child) pairs to draw and to measure."""
    sigmas: tuple[float, ...]
    """Per keypoint: OKS standard deviation, relative to the square root of the person's area."""
    subject: str = "person"
    """What has the keypoints; what a net that tells of presence looks for."""

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if len(set(self.keypoints)) != count or len(self.sigmas) != count:
            raise SkeletonError(f"{self.name}: keypoint names must be unique, with one sigma each")
        mirrored = [index for pair in self.flip_pairs for index in pair]
        ends = [index for bone in self.bones for index in bone]
        if len(set(mirrored)) != len(mirrored):
            raise SkeletonError(f"{self.name}: a keypoint stands in two flip pairs")
        if any(not 0 <= index < count for index in mirrored + ends):
            raise SkeletonError(f"{self.name}: a flip pair or bone names a keypoint that does not exist")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def flip_order(self) -> tuple[int, ...]:
        """Index of each keypoint's mirror partner, else its own: points[flip_order] swaps sides."""
        order = list(range(len(self)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def index(self, keypoint: str) -> int:
        """Position of a keypoint by name; SkeletonError where the skeleton lacks it."""
        try:
            return self.keypoints.index(keypoint)
        except ValueError:
            raise SkeletonError(f"{self.name} has no keypoint {keypoint!r}") from None


def _skeleton(
    name: str,
    keypoints: str,
    bones: str,
    sigmas: tuple[float, ...],
    flip_pairs: tuple[tuple[int, int], ...] | None = None,
    subject: str = "person",
) -> Skeleton:
    """Build from space-separated names and `parent-child` bones; left_* and right_* pair up by themselves."""
    names = tuple(keypoints.split())
    if flip_pairs is None:
        flip_pairs = tuple(
            (names.index(left), names.index("right_" + left.removeprefix("left_")))
            for left in names
            if left.startswith("left_")
        )
    ends = tuple((names.index(a), names.index(b)) for a, b in (bone.split("-") for bone in bones.split()))
    return Skeleton(name, names, flip_pairs, ends, sigmas, subject)


_COCO_NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_COCO_BONES = (
    "nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear "
    "left_shoulder-right_shoulder left_shoulder-left_elbow left_elbow-left_wrist "
    "right_shoulder-right_elbow right_elbow-right_wrist left_shoulder-left_hip right_shoulder-right_hip "
    "left_hip-right_hip left_hip-left_knee left_knee-left_ankle right_hip-right_knee right_knee-right_ankle"
)
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
_NECK_SIGMA = 0.079

COCO17 = _skeleton(
    "coco17",
    _COCO_NAMES,
    _COCO_BONES + " left_ear-left_shoulder right_ear-right_shoulder",
    _COCO_SIGMAS,
)

BODY19 = _skeleton(
    "body19",
    _COCO_NAMES + " head_top neck",
    _COCO_BONES + " neck-head_top neck-nose neck-left_shoulder neck-right_shoulder",
    (*_COCO_SIGMAS, _NECK_SIGMA, _NECK_SIGMA),
)

LSP14 = _skeleton(
    "lsp14",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow "
    "right_shoulder left_shoulder left_elbow left_wrist neck head_top",
    "right_hip-right_knee right_knee-right_ankle left_hip-left_knee left_knee-left_ankle right_hip-left_hip "
    "neck-right_shoulder neck-left_shoulder right_shoulder-right_hip left_shoulder-left_hip "
    "right_shoulder-right_elbow right_elbow-right_wrist left_shoulder-left_elbow left_elbow-left_wrist "
    "neck-head_top",
    (0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062,
     _NECK_SIGMA, _NECK_SIGMA),
)  # fmt: skip

HAND21 = _skeleton(
    "hand21",
    "wrist thumb_cmc thumb_mcp thumb_ip thumb_tip index_mcp index_pip index_dip index_tip "
    "middle_mcp middle_pip middle_dip middle_tip ring_mcp ring_pip ring_dip ring_tip "
    "pinky_mcp pinky_pip pinky_dip pinky_tip",
    "wrist-thumb_cmc thumb_cmc-thumb_mcp thumb_mcp-thumb_ip thumb_ip-thumb_tip "
    "wrist-index_mcp index_mcp-index_pip index_pip-index_dip index_dip-index_tip "
    "wrist-middle_mcp middle_mcp-middle_pip middle_pip-middle_dip middle_dip-middle_tip "
    "wrist-ring_mcp ring_mcp-ring_pip ring_pip-ring_dip ring_dip-ring_tip "
    "wrist-pinky_mcp pinky_mcp-pinky_pip pinky_pip-pinky_dip pinky_dip-pinky_tip",
    (0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021,
     0.021, 0.032, 0.020, 0.019, 0.022, 0.031),
    flip_pairs=(),
    subject="hand",
)  # fmt: skip

SKELETONS: dict[str, Skeleton] = {each.name: each for each in (BODY19, COCO17, LSP14, HAND21)}


def skeleton(name: str) -> Skeleton:
    """The skeleton of this name; SkeletonError lists the known ones where there is none."""
    try:
        return SKELETONS[name]
    except KeyError:
        raise SkeletonError(f"unknown skeleton {name!r}; known: {', '.join(sorted(SKELETONS))}") from None
