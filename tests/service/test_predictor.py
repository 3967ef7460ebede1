"""Frames to predictions over the tiny model, without any transport."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model_zoo import codecs
from model_zoo.errors import HeatmapError, UnknownDecoder
from service import status
from service.core import Core, build_core
from service.errors import ImageTooLarge, InvalidBoxes, InvalidImage, UnknownModel
from service.predictor import Predictor
from service.settings import BatchSettings, LimitSettings, ModelSettings, Settings
from service.types import BoxSource, Frame, Options, Pose, Prediction
from tests import tiny_model
from tests.service.conftest import Scene

CELL_PX = 4.0
"""A little more than half a cell of the heatmap, in pixels of the scene: what a decoder may be off."""


def with_core(root: Path, test: Callable[[Core], Awaitable[Any]], **groups: Any) -> Any:
    """Run a test with a loaded core; one worker, so that a batch is what was queued."""
    settings = Settings(
        models=ModelSettings(roots=(root,), default="tiny@1"),
        **{"batch": BatchSettings(workers=1, pin="off")} | groups,
    )

    async def bounded() -> Any:
        core = build_core(settings)
        await core.load(settings)
        try:
            async with asyncio.timeout(60):
                return await test(core)
        finally:
            assert await core.stop(30)

    return asyncio.run(bounded())


def predicted(root: Path, data: bytes, options: Options = Options(), **groups: Any) -> Prediction:  # noqa: B008 - frozen
    return with_core(root, lambda core: core.predictor.predict(Frame(data), options), **groups)


def assert_same_pose(pose: Pose, joints: np.ndarray, atol: float = CELL_PX) -> None:
    assert np.abs(pose.points - joints).max() < atol
    assert pose.scores.min() > 0.8
    assert pose.score == pytest.approx(pose.scores.mean(), abs=1e-4)


@pytest.mark.parametrize("decoder", ["argmax_shift", "dark"])
def test_a_box_gives_the_pose_inside(decoder: str, tiny_bundle_root: Path, scene: Scene) -> None:
    prediction = predicted(tiny_bundle_root, scene.png, Options(boxes=(scene.box,), decoder=decoder))
    assert (prediction.model, prediction.version, prediction.decoder) == ("tiny", "1", decoder)
    assert prediction.size == (480, 400)
    assert prediction.keypoints == tiny_model.SKELETON.keypoints
    (pose,) = prediction.poses
    assert (pose.box, pose.box_source) == (scene.box, BoxSource.REQUEST)
    assert_same_pose(pose, scene.joints)


def test_without_boxes_a_small_person_is_found_at_a_second_look(tiny_bundle_root: Path) -> None:
    joints = tiny_model.person((300, 100, 160, 200))
    data = tiny_model.encode(tiny_model.paint((480, 640), joints, radius=12))
    (pose,) = predicted(tiny_bundle_root, data).poses
    assert pose.box_source is BoxSource.FOUND
    assert_same_pose(pose, joints)
    x, y, width, height = pose.box
    assert x < 300
    assert y < 100
    assert x + width > 460
    assert y + height > 300
    assert width < 1.5 * 160
    assert height < 1.5 * 200


def test_nobody_to_be_found_is_an_honest_answer(tiny_bundle_root: Path) -> None:
    data = tiny_model.encode(np.full((60, 80, 3), tiny_model.GREY, np.uint8))
    (pose,) = predicted(tiny_bundle_root, data).poses
    assert pose.box_source is BoxSource.IMAGE
    assert pose.box == (-0.5, -0.5, 80, 60)
    assert pose.score == 0


def test_one_pose_per_box_in_order_and_more_boxes_than_a_batch_holds(tiny_bundle_root: Path) -> None:
    boxes = [(40.0 + 200 * column, 40.0 + 260 * row, 110.0, 180.0) for row in range(2) for column in range(3)]
    people = [tiny_model.person(box) for box in boxes]
    data = tiny_model.encode(tiny_model.paint((560, 620), *people, radius=9))
    order = [4, 0, 5, 2, 1, 3, 4]
    prediction = predicted(
        tiny_bundle_root,
        data,
        Options(boxes=tuple(boxes[index] for index in order)),
        batch=BatchSettings(workers=1, size=2, pin="off"),
    )
    assert [pose.box for pose in prediction.poses] == [boxes[index] for index in order]
    for pose, index in zip(prediction.poses, order, strict=True):
        assert_same_pose(pose, people[index])


def test_coordinates_are_those_of_the_upright_image(tiny_bundle_root: Path, scene: Scene) -> None:
    """A camera that lay on its side: what it stored is turned, what it meant is the scene."""
    import PIL.Image

    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = tiny_model.encode(np.ascontiguousarray(np.rot90(scene.picture)), exif=exif)
    assert_same_prediction(
        predicted(tiny_bundle_root, data, Options(boxes=(scene.box,))),
        predicted(tiny_bundle_root, scene.png, Options(boxes=(scene.box,))),
    )


def assert_same_prediction(one: Prediction, other: Prediction) -> None:
    assert one.size == other.size
    for its, others in zip(one.poses, other.poses, strict=True):
        assert (its.box, its.box_source) == (others.box, others.box_source)
        np.testing.assert_allclose(its.points, others.points, atol=1e-3)
        np.testing.assert_allclose(its.scores, others.scores, atol=1e-4)


def test_a_frame_has_the_same_answer_alone_and_among_others(tiny_bundle_root: Path, scene: Scene) -> None:
    requests = [
        (scene.png, Options(boxes=(scene.box,))),
        (scene.png, Options()),
        (tiny_model.encode(scene.picture, "JPEG", quality=95), Options(decoder="dark")),
        (scene.png, Options(boxes=(scene.box, (0.0, 0.0, 400.0, 480.0)), decoder="dsnt")),
        (tiny_model.encode(scene.picture[:, ::-1].copy()), Options()),
    ]

    async def test(core: Core) -> tuple[list[Prediction], list[Prediction]]:
        alone = [await core.predictor.predict(Frame(data), options) for data, options in requests]
        ask = [core.predictor.predict(Frame(data), options) for data, options in requests * 3]
        return alone * 3, await asyncio.gather(*ask)

    for one, other in zip(*with_core(tiny_bundle_root, test), strict=True):
        assert_same_prediction(one, other)


def test_bad_frames_fail_alone(tiny_bundle_root: Path, scene: Scene) -> None:
    good = (scene.png, Options(boxes=(scene.box,)))
    requests = [
        good,
        (b"garbage", Options()),
        (scene.png[: len(scene.png) // 2], Options()),
        good,
        (scene.png, Options(boxes=((1000.0, 0.0, 10.0, 10.0),))),
        good,
    ]

    async def test(core: Core) -> list[Any]:
        ask = [core.predictor.predict(Frame(data), options) for data, options in requests]
        return await asyncio.gather(*ask, return_exceptions=True)

    answers = with_core(tiny_bundle_root, test)
    errors = [type(answer) if isinstance(answer, Exception) else None for answer in answers]
    assert errors == [None, InvalidImage, InvalidImage, None, InvalidBoxes, None]
    assert_same_pose(answers[5].poses[0], scene.joints)


def test_a_decoder_that_fails_harms_only_those_who_asked_for_it(
    tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(heatmaps: np.ndarray, codec: object) -> None:
        raise HeatmapError("not today")

    known = codecs.decoder
    monkeypatch.setattr(codecs, "decoder", lambda name: broken if name == "broken" else known(name))

    async def test(core: Core) -> list[Any]:
        ask = [
            core.predictor.predict(Frame(scene.png), Options(decoder=name))
            for name in ("dark", "broken", "argmax_shift", "broken")
        ]
        return await asyncio.gather(*ask, return_exceptions=True)

    first, second, third, fourth = with_core(tiny_bundle_root, test)
    assert isinstance(second, HeatmapError)
    assert isinstance(fourth, HeatmapError)
    for answer in (first, third):
        assert_same_pose(answer.poses[0], scene.joints, atol=2 * CELL_PX)


def not_finite(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    return np.full((*heatmaps.shape[:2], 2), np.nan, np.float32), np.ones(heatmaps.shape[:2], np.float32)


def infinite_scores(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((*heatmaps.shape[:2], 2), np.float32), np.full(heatmaps.shape[:2], np.inf, np.float32)


def beyond_floats(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    return np.full((*heatmaps.shape[:2], 2), 1e308), np.ones(heatmaps.shape[:2])


def one_score_per_crop(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((*heatmaps.shape[:2], 2), np.float32), np.ones(len(heatmaps), np.float32)


def flat_points(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(heatmaps.shape[:2], np.float32), np.ones(heatmaps.shape[:2], np.float32)


def one_crop_too_few(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    count, joints = heatmaps.shape[:2]
    return np.ones((count - 1, joints, 2), np.float32), np.ones((count - 1, joints), np.float32)


@pytest.mark.parametrize(
    "plug_in",
    [not_finite, infinite_scores, beyond_floats, one_score_per_crop, flat_points, one_crop_too_few],
)
def test_a_decoder_that_answers_nonsense_harms_only_those_who_asked_for_it(
    plug_in: Callable[..., Any], tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One names it, one compares all decoders; the others of the batch are answered."""
    offered = {**codecs.decoders(), "nonsense": plug_in}
    monkeypatch.setattr(codecs, "decoder", offered.__getitem__)
    monkeypatch.setattr(codecs, "decoders", lambda: offered)
    asked = [
        Options(decoder="dark"),
        Options(decoder="nonsense"),
        Options(decoder="dark"),
        Options(decoder="dark", compare=True),
        Options(decoder="argmax_shift"),
    ]

    async def test(core: Core) -> list[Any]:
        ask = [core.predictor.predict(Frame(scene.png), options) for options in asked]
        return await asyncio.gather(*ask, return_exceptions=True)

    first, second, third, fourth, fifth = with_core(tiny_bundle_root, test)
    for error in (second, fourth):
        assert isinstance(error, HeatmapError)
        assert status.status_of(error) is status.INTERNAL
        assert "nonsense" in str(error)
    for answer in (first, third, fifth):
        assert_same_pose(answer.poses[0], scene.joints, atol=2 * CELL_PX)


def test_a_decoder_that_cannot_be_loaded_is_the_fault_of_those_who_name_it_alone(
    tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = EntryPoint("gone", "no_such_package:decode", codecs.ENTRY_POINT_GROUP)
    monkeypatch.setattr(codecs, "decoders", lambda: codecs.InstalledDecoders({"gone": gone}))
    asked = [Options(decoder="gone"), Options(compare=True), Options()]

    async def test(core: Core) -> list[Any]:
        ask = [core.predictor.predict(Frame(scene.png), options) for options in asked]
        return await asyncio.gather(*ask, return_exceptions=True)

    named, compared, answer = with_core(tiny_bundle_root, test)
    assert status.status_of(named) is status.status_of(UnknownDecoder())
    assert status.status_of(compared) is status.INTERNAL
    assert "'gone' cannot be loaded" in str(named)
    assert "'gone' cannot be loaded" in str(compared)
    assert_same_pose(answer.poses[0], scene.joints, atol=2 * CELL_PX)


def far_away(heatmaps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
    """Every joint, and quite surely, where no crop can be cut."""
    points = np.zeros((*heatmaps.shape[:2], 2))
    points[:, ::2] = 1e8
    return points, np.ones(heatmaps.shape[:2])


@pytest.mark.parametrize("nonsense", [not_finite, infinite_scores, far_away])
def test_what_cannot_be_read_in_one_frame_harms_no_other_of_the_same_decoder(
    nonsense: Callable[..., Any], tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = codecs.decoder("dark")

    def mostly(heatmaps: np.ndarray, codec: Any) -> tuple[np.ndarray, np.ndarray]:
        points, scores = known(heatmaps, codec)
        empty = heatmaps.max(axis=(1, 2, 3)) < 0.5
        if empty.any():
            points[empty], scores[empty] = nonsense(heatmaps[empty], codec)
        return points, scores

    monkeypatch.setattr(codecs, "decoder", lambda name: mostly)
    black = cv2.imencode(".png", np.zeros((120, 160, 3), np.uint8))[1].tobytes()

    async def test(core: Core) -> list[Any]:
        ask = [core.predictor.predict(Frame(data), Options()) for data in (scene.png, black, scene.png)]
        return await asyncio.gather(*ask, return_exceptions=True)

    first, second, third = with_core(tiny_bundle_root, test)
    assert isinstance(second, HeatmapError)
    for answer in (first, third):
        assert_same_pose(answer.poses[0], scene.joints, atol=2 * CELL_PX)


def test_a_model_that_fails_is_the_answer_to_its_frames(
    tiny_bundle_root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.runner import Runner

    async def test(core: Core) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Runner, "run", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
            with pytest.raises(RuntimeError, match="out of memory"):
                await core.predictor.predict(Frame(scene.png), Options())
        assert_same_pose(
            (await core.predictor.predict(Frame(scene.png), Options())).poses[0], scene.joints, 8
        )

    with_core(tiny_bundle_root, test)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "boxes",
    [
        (),
        ((0.0, 0.0, 0.0, 10.0),),
        ((0.0, 0.0, 10.0, -10.0),),
        ((NAN, 0.0, 10.0, 10.0),),
        ((0.0, INFINITE, 10.0, 10.0),),
        ((0.0, 0.0, INFINITE, 10.0),),
        ((0.0, 0.0, 1e-9, 1e-9),),
        ((0.0, 0.0, 1e30, 1e30),),
        ((-60.0, 0.0, 50.0, 10.0),),
        ((0.0, -60.0, 10.0, 59.5),),
        ((399.5, 0.0, 10.0, 10.0),),
        ((0.0, 1e12, 10.0, 10.0),),
        ((10.0, 10.0, 20.0, 20.0), (0.0, 500.0, 10.0, 10.0)),
        ((10.0, 10.0, 20.0, 20.0),) * 5,
    ],
)
def test_boxes_that_hold_nobody(boxes: tuple, tiny_bundle_root: Path, scene: Scene) -> None:
    with pytest.raises(InvalidBoxes):
        predicted(tiny_bundle_root, scene.png, Options(boxes=boxes), limits=LimitSettings(boxes=4))


@pytest.mark.parametrize(
    "box",
    [
        (-50.0, -50.0, 51.0, 51.0),
        (399.0, 479.0, 1000.0, 1000.0),
        (0.0, 0.0, 1.0, 1.0),
        (-5e4, -5e4, 1e5, 1e5),
    ],
)
def test_boxes_at_the_edge_of_what_is_allowed(box: tuple, tiny_bundle_root: Path, scene: Scene) -> None:
    (pose,) = predicted(tiny_bundle_root, scene.png, Options(boxes=(box,))).poses
    assert np.isfinite(pose.points).all()


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (b"", Options(model="absent"), UnknownModel),
        (b"", Options(model="tiny@3"), UnknownModel),
        (b"", Options(decoder="absent"), UnknownDecoder),
        (b"", Options(), InvalidImage),
        (bytes(2000), Options(), ImageTooLarge),
    ],
)
def test_what_is_wrong_is_said(
    data: bytes, options: Options, error: type[Exception], tiny_bundle_root: Path
) -> None:
    with pytest.raises(error):
        predicted(tiny_bundle_root, data, options, limits=LimitSettings(image_bytes=1000))


def test_a_model_by_version(tiny_bundle_root: Path, scene: Scene) -> None:
    assert predicted(tiny_bundle_root, scene.png, Options(model="tiny")).version == "2"
    assert predicted(tiny_bundle_root, scene.png, Options(model="tiny@1")).version == "1"


def test_images_that_together_are_too_large_for_memory_go_in_parts(
    tiny_bundle_root: Path, scene: Scene
) -> None:
    """Each frame is as large as an image may be, so every one is a group of its own within its batch."""

    async def test(core: Core) -> list[Prediction]:
        ask = [core.predictor.predict(Frame(scene.png), Options(boxes=(scene.box,))) for _ in range(6)]
        return await asyncio.gather(*ask)

    for answer in with_core(tiny_bundle_root, test, limits=LimitSettings(image_pixels=400 * 480)):
        assert_same_pose(answer.poses[0], scene.joints)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", Options()),
        ("PNG", Options(render=True)),
        ("PNG", Options(compare=True)),
        ("PNG", Options(boxes=((0.0, 0.0, 400.0, 480.0),) * 3)),
        ("PNG", Options(boxes=((9000.0, 9000.0, 4.0, 4.0),))),
        ("broken", Options()),
        ("broken", Options(boxes=((0.0, 0.0, 400.0, 480.0),))),
    ],
)
def test_an_image_is_free_as_soon_as_it_is_answered(
    form: str, options: Options, tiny_bundle_root: Path, scene: Scene
) -> None:
    data = scene.png if form == "PNG" else scene.png[: len(scene.png) // 2]

    async def test(core: Core) -> None:
        frames = [Frame(bytes(bytearray(data))) for _ in range(6)]
        holders = [sys.getrefcount(frame.data) for frame in frames]
        gc.collect()
        gc.disable()
        try:
            asked = (core.predictor.predict(frame, options) for frame in frames)
            answers = await asyncio.gather(*asked, return_exceptions=True)
            expected = InvalidImage if form == "broken" else Prediction
            assert all(isinstance(answer, (expected, InvalidBoxes)) for answer in answers)
            del answers, asked
            for _ in range(100):
                if [sys.getrefcount(frame.data) for frame in frames] == holders:
                    return
                await asyncio.sleep(0.02)  # the worker lets go of its batch a moment later
            assert [sys.getrefcount(frame.data) for frame in frames] == holders
        finally:
            gc.enable()

    with_core(tiny_bundle_root, test)


def test_a_client_that_leaves_takes_its_frame_along(tiny_bundle_root: Path, scene: Scene) -> None:
    async def test(core: Core) -> None:
        predictor: Predictor = core.predictor
        asked = [asyncio.create_task(predictor.predict(Frame(scene.png), Options())) for _ in range(20)]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        assert all(isinstance(answer, Prediction) for answer in answers[1::2])

    with_core(tiny_bundle_root, test)
