"""`reppose-serve jitter`: the measures find what was put in, and the command measures a model whose truth is known."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from model_zoo import filters
from service.cli import cli
from service.errors import InvalidRequest
from service.jitter import measure, motion, plot, recording
from service.streams import smoothers
from service.streams.smoothing import length_of
from tests import tiny_model

DATA = os.environ.get("POSE_TEST_DATA")
TIMES = np.arange(90) / 30


def moving(time_s):
    """(T, 2, 2) joints on curves."""
    time_s = np.asarray(time_s)
    first = np.stack([100 * np.sin(2 * time_s), 40 * time_s], axis=-1)
    return np.stack([first, 50 + 0.5 * first], axis=-2)


@given(late=st.floats(-1.5, 4.5))
def test_the_lag_is_the_delay_that_was_put_in(late):
    track = moving(TIMES - late / 30) + np.array(
        [[3.0, -2.0], [0.0, 9.0]]
    )  # and joints that are found beside
    found = measure.lag_frames(track, lambda frames: moving(TIMES - frames / 30), TIMES > 0.3)
    assert found == pytest.approx(late, abs=0.02)


def test_the_lag_of_an_average_behind_the_raw_points_is_the_known_one():
    average, raw = filters.Ema(0.5), moving(TIMES)
    track = np.stack([average(each) for each in raw])
    assert measure.lag_frames(track, measure.interpolated(raw), TIMES > 0.5) == pytest.approx(1.0, abs=0.05)


def test_a_delay_beyond_those_that_are_tried_is_the_last_one():
    track = moving(TIMES - 20 / 30)
    late = measure.lag_frames(track, lambda frames: moving(TIMES - frames / 30), TIMES > 1)
    assert late in (measure.SHIFTS[0], measure.SHIFTS[-1])


def test_jitter_is_of_the_noise_and_not_of_steady_motion():
    assert measure.jitter(TIMES[:, None, None] * np.full((1, 4, 2), 70.0), 100.0) == pytest.approx(
        0, abs=1e-12
    )
    noise = np.random.default_rng(0).normal(0, 2, (5000, 4, 2))
    expected = 2 * np.sqrt(6) * np.sqrt(np.pi / 2) / 100  # mean length of second differences of such noise
    assert measure.jitter(noise, 100.0) == pytest.approx(expected, rel=0.02)
    still = np.where(TIMES[:, None, None] < 1, 0.0, noise[:90])
    assert measure.jitter(still, 100.0, TIMES < 1) == 0.0
    assert measure.jitter(noise[:2], 100.0) == 0.0


def still():
    """A picture in which the tiny model finds every joint."""
    joints = tiny_model.person((60.0, 40.0, 100.0, 220.0))
    picture = tiny_model.paint((300, 220), joints, radius=16)
    return motion.Still("still.png", picture, joints, tiny_model.SKELETON.keypoints)


@pytest.mark.parametrize("kind", motion.KINDS)
def test_what_is_on_the_frames_is_where_the_truth_says(kind):
    """The disc of a joint is looked for by its colour."""
    clip = motion.Clip(still(), kind, 5, 0)
    frames = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in clip.frames()]
    assert len(frames) == len(clip.times) == 25
    assert {frame.shape[:2] for frame in frames} == {motion.SIZE}
    assert length_of(clip.truth(np.zeros(1))[0]) == pytest.approx(
        {"zoom": motion.ZOOM**-0.5}.get(kind, 1) * motion.PERSON_PX, rel=1e-6
    )
    truth = clip.truth(clip.times)
    for joints, frame in zip(truth, frames, strict=True):
        for joint in (0, 5, 18):
            x, y = np.rint(joints[joint]).astype(int)
            colour = frame[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(axis=0) - tiny_model.GREY
            alike = tiny_model.DIRECTIONS @ colour / np.linalg.norm(colour)
            assert alike.argmax() == joint
    moved = np.linalg.norm(np.diff(truth, axis=0), axis=-1).max(axis=-1)
    rest = motion.is_rest(clip.times)
    assert moved[rest[1:] & rest[:-1]].max() < 1e-9
    assert moved.max() > 1


def test_the_camera_makes_the_same_noise_for_the_same_seed():
    one, same, other = (list(motion.Clip(still(), "pan", 2, seed).frames()) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one photograph and one short video of it."""
    one, folder = still(), tmp_path_factory.mktemp("jitter") / "pose-data"
    (folder / "video").mkdir(parents=True)
    cv2.imwrite(str(folder / "still.png"), one.image[..., ::-1])
    keypoints = np.column_stack([one.joints, np.full(len(one.joints), 2)]).ravel().tolist()
    people = {
        "images": [{"id": 1, "file_name": "still.png"}],
        "annotations": [{"image_id": 1, "num_keypoints": 19, "keypoints": keypoints}],
        "categories": [{"keypoints": list(one.names)}],
    }
    (folder / "people.json").write_text(json.dumps(people))
    film = cv2.VideoWriter(
        str(folder / "video" / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, motion.SIZE[::-1]
    )
    for frame in motion.Clip(one, "pan", 10, 0).frames():
        film.write(cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR))
    film.release()
    return folder


@pytest.fixture
def _tiny(tiny_bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPPOSE_MODELS__ROOTS", str(tiny_bundle_root))
    monkeypatch.setenv("REPPOSE_MODELS__DEFAULT", "tiny@1")
    monkeypatch.setenv("REPPOSE_BATCH__PIN", "off")


@pytest.mark.usefixtures("_tiny")
def test_the_command_prints_a_table_and_draws(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "jitter.svg"
    command = ["jitter", "--data", data, "--annotations", "people.json", "--rates", "10", "--out", out]
    done = CliRunner().invoke(cli, [str(each) for each in command])
    assert done.exit_code == 0, done.output
    rows = {tuple(line[:35].split()): line[35:].split() for line in done.stdout.splitlines()}
    for smoother in ("none", "ema", "one_euro"):
        assert ("10", "fps", smoother) in rows
        assert ("film", smoother) in rows
    raw, calm = rows["10", "fps", "none"], rows["10", "fps", "one_euro"]
    assert raw[0] == calm[0] == "3"
    assert 0 < float(calm[1]) < float(raw[1])
    assert float(raw[-1]) < 20  # the model finds the discs: two hundredths of the person's length
    assert (raw[2], raw[4]) == ("0.0%", "0.00")
    assert "identities, followed in 50" in done.stderr
    lines = ET.parse(out).findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 7
    assert {len(line.get("points").split()) for line in lines} == {50}


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rates", "fast"], "--rates takes numbers"),
        (["--rates", "0"], "--rates takes numbers"),
        (["--annotations", "nothing.json"], "cannot read photographs"),
        (["--stills", "0", "--no-videos"], "nothing to measure"),
    ],
)
def test_what_cannot_be_measured_is_said(data: Path, arguments: list[str], said: str) -> None:
    command = ["jitter", "--data", str(data), "--annotations", "people.json", *arguments]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1
    assert said in done.stderr


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(InvalidRequest, match="cannot read a video"):
        recording.video_frames(tmp_path / "no.mp4")


def test_a_recording_is_smoothed_as_a_stream_is() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (30, 19, 2))
    joints = tiny_model.person((10, 10, 80, 200)) + noise
    made = recording.Recording(
        np.arange(30) / 30, joints, np.full((30, 19), 0.9), tiny_model.SKELETON.keypoints
    )
    track = recording.smooth(made, smoothers.make("none", {}))
    np.testing.assert_array_equal(track.points, joints)
    assert track.resets == 0
    assert measure.jitter(recording.smooth(made, smoothers.make("ema", {})).points, 200) < measure.jitter(
        joints, 200
    )


def test_a_plot_of_nothing_that_moves_is_still_a_picture() -> None:
    flat = np.zeros(5)
    assert ET.fromstring(plot.svg("<still>", np.arange(5.0), flat, {"none": flat})).tag.endswith("svg")


@pytest.mark.skipif(not DATA, reason="POSE_TEST_DATA does not name the folder of annotated photographs")
def test_the_default_smoother_reaches_its_goal_with_the_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 30 frames a second, on photographs that the net reads well; and a signer keeps one identity."""
    monkeypatch.setenv("REPPOSE_BATCH__PIN", "off")
    common = ["--data", DATA, "--rates", "30"]
    goal = ["--annotations", "body/lsp_val.json", "--stills", "3", "--seed", "3", "--no-videos", "--check"]
    done = CliRunner().invoke(cli, ["jitter", *common, *goal])
    assert done.exit_code == 0, done.output
    assert "30 fps" in done.stdout
    done = CliRunner().invoke(cli, ["jitter", *common, "--stills", "0"])
    assert done.exit_code == 0, done.output
    assert "sign_again.mp4: 77 frames, 1 identities, followed in 77" in done.stderr
