"""`reppose-serve jitter` on clips that were made to order: read as they were written, measured against their truth."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import cli
from service.errors import InvalidRequest
from service.jitter import made
from tests import tiny_model

RATE_HZ, FRAMES, DEPTH_M, FOCAL = 20, 50, 4.0, 300.0
NAMES = tiny_model.SKELETON.keypoints
BOX = (60.0, 40.0, 100.0, 220.0)


def joints(number: int) -> np.ndarray:
    """(K, 2) pixels: at rest for a second, then aside and back by 30 pixels."""
    since = max(number / RATE_HZ - 1.0, 0.0)
    return tiny_model.person(BOX) + np.array([30 * np.sin(np.pi * since / 1.5) ** 2, 0.0])


def clip_set(folder: Path, people: int = 1, **changed: Any) -> Path:
    """A set of one clip, as `reppose-train synth` writes it."""
    images, persons, at = [], [], 0
    with (folder / "video.tar").open("wb") as archive:
        for number in range(FRAMES):
            points = joints(number)
            picture = tiny_model.paint((300, 260), points, radius=16)
            data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            header = tarfile.TarInfo(f"video/{number:05}.jpg")
            header.size = len(data)
            block = header.tobuf() + data + bytes(-len(data) % 512)
            images.append(
                {
                    "id": number + 1, "width": 260, "height": 300, "tar_offset": at + 512, "tar_size": len(data),
                    "camera": {"fx": FOCAL, "fy": FOCAL, "cx": 130.0, "cy": 150.0},
                    "timestamp_s": number / RATE_HZ, "video_id": 1, "frame_index": number,
                }
            )  # fmt: skip
            space = np.c_[(points - [130, 150]) * DEPTH_M / FOCAL, np.full(len(points), DEPTH_M)]
            for person in range(people):
                persons.append(
                    {
                        "id": len(persons) + 1, "image_id": number + 1, "person_id": person + 1,
                        "num_keypoints": len(points), "keypoints": [0] * 3 * len(points),
                        "keypoints_3d": space.ravel().tolist(),
                    }
                    | changed
                )  # fmt: skip
            archive.write(block)
            at += len(block)
    document = {"categories": [{"keypoints": list(NAMES)}], "images": images[::-1], "annotations": persons}
    (folder / "video.json").write_text(json.dumps(document))
    return folder / "video.json"


def test_a_clip_is_read_as_it_was_written(tmp_path: Path) -> None:
    [clip] = made.clips(clip_set(tmp_path), 5, 0)
    assert (clip.rate_hz, clip.names) == (RATE_HZ, NAMES)
    np.testing.assert_allclose(clip.times, np.arange(FRAMES) / RATE_HZ)
    np.testing.assert_allclose(
        clip.truth(clip.times), [joints(number) for number in range(FRAMES)], atol=1e-6
    )
    between = clip.truth(np.array([1.525]))[0]
    np.testing.assert_allclose(between, (joints(30) + joints(31)) / 2, atol=1e-6)
    late = clip.truth(np.array([-1.0, 99.0]))
    np.testing.assert_allclose(late, [joints(0), joints(FRAMES - 1)], atol=1e-6)
    rest = clip.is_rest(clip.times)
    assert rest[:19].all()
    assert not rest[24:31].any()
    pictures = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in clip.frames()]
    assert len(pictures) == FRAMES
    assert pictures[0].shape == (300, 260, 3)
    moved = np.abs(pictures[35].astype(int) - pictures[0]).mean()
    assert (
        moved > 10 * np.abs(pictures[1].astype(int) - pictures[0]).mean()
    )  # in order, however they were listed


@pytest.mark.parametrize(
    "changed", [{"people": 2}, {"num_keypoints": 3}, {"keypoints_3d": [0.0, 0.0, -1.0] * len(NAMES)}]
)
def test_clips_that_say_nothing_are_left_out(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert made.clips(clip_set(tmp_path, **changed), 5, 0) == []


def test_pictures_are_no_clips(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_text(json.dumps({"images": [{"id": 1, "tar_offset": 512}], "annotations": []}))
    assert made.clips(path, 5, 0) is None


@pytest.mark.parametrize("broken", ["{", "[]", '{"images": [{"id": 1, "video_id": 1, "frame_index": 0}]}'])
def test_a_broken_set_is_refused_in_words(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "video.json"
    path.write_text(broken)
    with pytest.raises(InvalidRequest, match="cannot read photographs or clips"):
        made.clips(path, 5, 0)


@pytest.fixture
def _tiny(tiny_bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPPOSE_MODELS__ROOTS", str(tiny_bundle_root))
    monkeypatch.setenv("REPPOSE_MODELS__DEFAULT", "tiny@1")
    monkeypatch.setenv("REPPOSE_BATCH__PIN", "off")


@pytest.mark.usefixtures("_tiny")
def test_the_command_measures_a_made_clip_at_its_own_rate(tmp_path: Path) -> None:
    clip_set(tmp_path)
    done = CliRunner().invoke(
        cli, ["jitter", "--data", str(tmp_path), "--annotations", "video.json", "--no-videos"]
    )
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith("20 fps")]
    assert len(rows) == 3
    assert (
        float(rows[0][-1]) < 30
    )  # the tiny model finds the discs, so its error is a small share of a person
