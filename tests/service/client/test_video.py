"""`reppose-client`: a clip goes in, the same clip with skeletons comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import tiny_model
from tests.service import serving, video

ROOT = Path(__file__).parents[3]
COUNT = 23
RATE_HZ = 20.0


def client(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.client.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of somebody who walks."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE_HZ, (320, 260))
    for data in video.clip()[:COUNT]:
        writer.write(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    return path


def read(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames, and how many there are in a second."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1].astype(int))
    return frames, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("mode", [[], ["--live"]])
def test_every_frame_comes_back_with_a_skeleton(
    mode, made: Path, tmp_path: Path, service: serving.Service
) -> None:
    out, points = tmp_path / "out.mp4", tmp_path / "points.jsonl"
    done = client(made, "-o", out, "--points", points, "--server", service.target, *mode)
    assert done.returncode == 0, done.stderr
    assert f"{COUNT} frames" in done.stderr
    before, _ = read(made)
    after, rate_hz = read(out)
    assert (len(after), rate_hz) == (COUNT, RATE_HZ)
    facts = [json.loads(line) for line in points.read_text().splitlines()]
    assert [each["frame"] for each in facts] == list(range(COUNT))
    assert "people" in facts[-1]
    for number, each in enumerate(facts):
        if "people" in each:
            joints = np.array(each["people"][0]["raw"])
            truth = tiny_model.person((30 + 3.0 * min(number, 15), 40 + number / 3, 90, 160))
            assert np.abs(joints - truth).max() < 15  # the discs tremble, and the codec blurs their colours
            assert np.abs(after[number] - before[number]).max() > 60, "there is something drawn"
            # Nothing is drawn where nobody is; the codecs alone change little.
            assert np.abs(after[number][:, 220:] - before[number][:, 220:]).max() < 40
    if not mode:
        assert all("people" in each for each in facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "points.jsonl"]


def test_less_of_a_video_may_be_asked_for(made: Path, tmp_path: Path, service: serving.Service) -> None:
    done = client(made, "--points", "-", "--seconds", "0.42", "--server", service.target)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["absent.mp4", "-o", "OUT"], 1, "there is no file"),
        ([__file__, "-o", "OUT"], 1, "no video"),
        (["CLIP", "-o", "absent/out.mp4"], 1, "cannot write"),
        (["CLIP", "-o", "OUT", "--model", "absent"], 1, "absent"),
        (["CLIP"], 2, "where"),
        (["CLIP", "--camera", "0", "-o", "OUT"], 2, "either"),
        (["--camera", "63", "-o", "OUT"], 1, "camera 63"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    arguments, code, said, made: Path, tmp_path: Path, service: serving.Service
) -> None:
    names = {"CLIP": str(made), "OUT": str(tmp_path / "out.mp4")}
    done = client(*(names.get(each, each) for each in arguments), "--server", service.target)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
