"""The bench: its arithmetic on known numbers, its pictures, and whole runs on real servers. No timing is judged."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from typer.testing import CliRunner

from model_zoo import bundle, geometry
from service import runner
from service.bench import load, loop, peers, pictures, report, rows
from service.bench.load import Load, Outcome
from service.bench.rows import Row
from service.cli import cli
from service.core import build_core
from service.runner import Runner
from service.settings import Settings
from service.streams import tracking
from service.types import BoxSource, Frame, Options
from tests.service import serving

RAW, JPEG, _, PERSON = pictures.standard()
ROW = Row(
    server="reppose", precision="int8", picture="JPEG 192x256", route="rest", concurrency=32, images_per_s=900.0,
    p50_ms=30.0, p95_ms=40.0, p99_ms=50.0, cpu_ms=2.0, loop_cpu_ms=1.6, ratio=1.25, loop_latency_ms=2.0, batch=7.5,
    client_cores=0.2, other_cores=0.0, failed=0,
)  # fmt: skip


def test_pictures_have_their_sizes_in_pixels_and_bytes() -> None:
    bare, crop, frame, person = pictures.standard()
    assert len(bare.data) == 256 * 192 * 3
    assert abs(len(crop.data) - 14_000) < 1_000
    assert abs(len(frame.data) - 40_000) < 3_000
    assert abs(len(person.data) - 14_000) < 1_000
    for each in (crop, frame, person):
        assert simplejpeg.decode_jpeg(each.data).shape == (*each.size, 3)
    assert pictures.standard() == (bare, crop, frame, person)
    assert np.std(np.frombuffer(bare.data, np.uint8)) > 10


def test_a_row_is_per_image_and_its_ratio_is_to_the_loop() -> None:
    outcome = Outcome(
        2.0, [float(each) for each in range(1, 101)], server_cpu_s=0.5, client_cpu_s=0.2, others_cpu_s=1
    )
    known = {
        name: getattr(ROW, name)
        for name in ("server", "precision", "picture", "route", "concurrency", "batch")
    }
    row = rows.row_of(outcome, loop_cpu_ms=4.0, loop_latency_ms=4.5, **known)
    assert (row.images_per_s, row.cpu_ms, row.ratio) == (50.0, 5.0, 1.25)
    assert (row.client_cores, row.other_cores) == (0.1, 0.5)
    assert (row.p50_ms, row.p99_ms) == pytest.approx((50.5, 99.01))


def test_medians_over_rounds() -> None:
    rounds = [replace(ROW, ratio=ratio, failed=1) for ratio in (1.1, 3.0, 1.2)]
    assert rows.medians(rounds) == replace(ROW, ratio=1.2, failed=3)


@pytest.mark.parametrize(
    ("row", "what", "measured", "reached"),
    [
        (ROW, "CPU over", 1.25, False),
        (replace(ROW, ratio=1.12), "CPU over", 1.12, True),
        (replace(ROW, route="stream", ratio=1.11), "CPU over", 1.11, False),
        (replace(ROW, route="unary", ratio=1.11), "CPU over", 1.11, True),
        (ROW, "share of the free", 1.0, True),
        (replace(ROW, images_per_s=450.0), "share of the free", 0.5, False),
        (replace(ROW, images_per_s=825.0, other_cores=0.15), "share of the free", 1.0, True),
        (replace(ROW, images_per_s=450.0, other_cores=0.9), "share of the free", 1.0, None),
        (replace(ROW, other_cores=0.9), "CPU over", 1.25, False),
        (replace(ROW, concurrency=1, p50_ms=1.0, other_cores=0.9), "ms added", -1.0, None),
        (replace(ROW, concurrency=1, p50_ms=2.9), "ms added", 0.9, True),
        (replace(ROW, concurrency=1, p50_ms=3.1), "ms added", 1.1, False),
        (replace(ROW, concurrency=0, p99_ms=8.0), "p99 over", 4.0, True),
        (replace(ROW, concurrency=0, p99_ms=9.0), "p99 over", 4.5, False),
    ],
)
def test_targets(row: Row, what: str, measured: float, reached: bool | None) -> None:
    (found,) = [
        each for each in rows.targets([row, replace(row, server="other")], cores=2) if what in each.what
    ]
    assert found.measured == pytest.approx(measured)
    assert found.reached is reached


def test_a_row_that_no_target_is_about() -> None:
    assert (
        rows.targets([replace(ROW, concurrency=8), replace(ROW, picture="mine", concurrency=24)], cores=2)
        == []
    )


def test_the_report_in_all_its_forms(tmp_path: Path) -> None:
    measured = [ROW, replace(ROW, server="mosec", ratio=1.5, failed=3), replace(ROW, concurrency=0)]
    judged = rows.targets(measured, cores=2)
    text = report.table(measured)
    assert len(text.splitlines()) == 1 + len(measured)
    assert "3 failed" in text
    assert "NOT reached" in report.verdicts(judged)
    report.write(tmp_path / "new", measured, judged)
    with (tmp_path / "new" / "bench.csv").open() as file:
        assert [row["server"] for row in csv.DictReader(file)] == ["reppose", "mosec", "reppose"]
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["rows"][1]["ratio"] == 1.5
    assert {each["reached"] for each in written["targets"]} == {True, False}
    drawn = xml.etree.ElementTree.parse(tmp_path / "new" / "bench.svg")
    shapes = drawn.iter("{http://www.w3.org/2000/svg}rect")
    bars = [float(each.get("width")) for each in shapes if each.get("width") != "100%"]
    assert len(bars) == len(measured)
    assert bars[1] / bars[0] == pytest.approx(1.5 / 1.25, rel=0.01)


def test_processor_time_counts_descendants() -> None:
    """Of a process that only waits for its busy child."""
    busy = "import time\nwhile time.process_time() < 0.4: pass\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        before = load.cpu_seconds(process.pid)
        until = time.monotonic() + 60
        while load.cpu_seconds(process.pid) < before + 0.1 and time.monotonic() < until:
            time.sleep(0.02)
        assert load.cpu_seconds(process.pid) >= before + 0.1
        process.communicate(b"\n")
    assert load.cpu_seconds(process.pid) == 0.0


def test_the_model_that_comes_with_the_package_follows_the_drawn_person() -> None:
    """Or the routes of videos would measure nothing of it."""

    async def scores() -> list[float]:
        settings = Settings()
        core = build_core(settings)
        await core.load(settings)
        small = pictures.figure((480, 640), at=(0.3, 0.6), height=0.7, seed=3)
        data = [PERSON.data, pictures.jpeg_of(small, 40_000)]
        found = [await core.predictor.predict(Frame(each), Options()) for each in data]
        await core.stop(5)
        assert [each.poses[0].box_source for each in found] == [BoxSource.FOUND] * 2
        return [tracking.confidence(each.poses[0].scores) for each in found]

    assert min(asyncio.run(scores())) > tracking.Rules().acquire + 0.15


@pytest.mark.parametrize("rate", [0.0, 60.0])
@pytest.mark.parametrize(
    ("picture", "route"),
    [(RAW, "rest"), (RAW, "unary"), (RAW, "stream"), *((JPEG, route) for route in load.ROUTES)],
    ids=lambda each: getattr(each, "name", each),
)
def test_every_route_is_answered(
    picture: pictures.Picture, route: load.Route, rate: float, service: serving.Service, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(picture.data)
    port = service.wait_for("listening")["http_port" if route in ("rest", "multipart") else "grpc_port"]
    asked = Load(
        route, port, str(path), picture.media, picture.size, concurrency=9, seconds=0.3,
        pid=service.process.pid, rate=rate,
    )  # fmt: skip
    outcome = asyncio.run(load.drive(asked))
    assert (outcome.failed, outcome.fault) == (0, "")
    assert len(outcome.latencies_ms) > 3
    assert min(outcome.latencies_ms) > 0
    assert outcome.server_cpu_s > 0
    assert outcome.seconds >= 0.25


def test_what_is_refused_is_no_answer(service: serving.Service, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"no picture")
    for route in load.ROUTES:
        port = service.wait_for("listening")["http_port" if route in ("rest", "multipart") else "grpc_port"]
        asked = Load(route, port, str(path), "image/jpeg", (9, 9), 2, 0.2, service.process.pid)
        outcome = asyncio.run(load.drive(asked, first_answer_s=0.0))
        assert outcome.failed > 0
        assert "none of JPEG" in outcome.fault
        assert outcome.latencies_ms == []


def test_the_loop_does_the_service_s_work(tiny_bundle_root: Path, tmp_path: Path) -> None:
    """Its net sees just the crop that the service cuts."""
    loaded = runner.load(bundle.find("tiny", None, [tiny_bundle_root]))
    seen = []

    class Spy(Runner):
        def __init__(self) -> None:
            self.manifest = loaded.manifest

        def run(self, crops: np.ndarray) -> np.ndarray:
            seen.append(crops.copy())
            return loaded.run(crops)

    for picture in pictures.standard()[:2]:
        path = tmp_path / "picture"
        path.write_bytes(picture.data)
        wanted = loop.Pass(str(path), picture.size, picture.encoded, batch=3, threads=1, seconds=0.0)
        measured = loop.measure(Spy(), wanted, [])
        assert measured.cpu_ms > 0
    spec = loaded.manifest.input
    matrix = geometry.crop_affine((0, 0, 192, 256), spec.size, padding=spec.padding)
    for crops, image in zip(
        seen,
        (np.frombuffer(pictures.standard()[0].data, np.uint8).reshape(256, 192, 3),
         simplejpeg.decode_jpeg(pictures.standard()[1].data)),
        strict=True,
    ):  # fmt: skip
        assert crops.shape == (3, *spec.size, 3)
        for crop in crops:
            np.testing.assert_array_equal(crop, geometry.warp(image, matrix, spec.size))


def bench(root: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REPPOSE_")}
    settings = {
        "REPPOSE_MODELS__ROOTS": str(root),
        "REPPOSE_MODELS__DEFAULT": "tiny",
        "REPPOSE_BATCH__PIN": "off",
    }
    return subprocess.run(
        [sys.executable, "-m", "service", "bench", *map(str, arguments)],
        env=clean | settings | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def test_a_whole_run(tiny_bundle_root: Path, tmp_path: Path) -> None:
    done = bench(
        tiny_bundle_root, "--seconds", 0.3, "--rounds", 1, "--concurrency", "1,24", "--routes", "rest,stream",
        "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench.json").read_text())["rows"]
    expected = {
        ("fp32", picture.name, route, concurrency)
        for picture in pictures.standard()
        for route in {"rest", "stream"} & {*picture.routes}
        for concurrency in (1, 24)
    } | {("fp32", "JPEG 192x256", "rest", 0)}
    assert {
        (row["precision"], row["picture"], row["route"], row["concurrency"]) for row in written
    } == expected
    assert len(written) == len(expected)
    for row in written:
        assert row["failed"] == 0
        assert row["images_per_s"] > 0
        assert row["cpu_ms"] > 0
        assert 1 <= row["batch"] <= 8
        assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["ratio"] > 0
        assert row["batch"] == 1 or row["concurrency"] != 1
    assert "over the loop's" in done.stdout


def test_a_picture_of_ones_own(tiny_bundle_root: Path, tmp_path: Path) -> None:
    photo = tmp_path / "beach.jpg"
    photo.write_bytes(pictures.standard()[1].data)
    arguments = ("--quick", "--seconds", 0.3, "--concurrency", 2, "--routes", "unary", "--image", photo)
    done = bench(tiny_bundle_root, *arguments)
    assert done.returncode == 0, done.stderr
    assert "beach 192x256" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--routes", "pigeon"), "knows rest, multipart, unary, stream, live, file"),
        (("--against", "pigeon"), "litserve"),
        (("--precision", "int4"), "fp32"),
        (("--concurrency", "0"), "1 or more"),
        (("--concurrency", "x"), "wrong number"),
        (("--image", "/no/such.jpg"), "No such file"),
        (("--image", __file__), "wrong number or picture"),
    ],
)
def test_wrong_options_are_refused_in_words(arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 1
    assert words in done.output


def test_a_model_that_is_not_there(tiny_bundle_root: Path) -> None:
    done = bench(tiny_bundle_root, "--quick", REPPOSE_MODELS__DEFAULT="absent")
    assert done.returncode == 1
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", peers.PEERS)
def test_another_server_beside_ours(name: str, tiny_bundle_root: Path, tmp_path: Path) -> None:
    arguments = ("--quick", "--seconds", 0.5, "--concurrency", 4, "--routes", "rest", "--against", name)
    done = bench(tiny_bundle_root, *arguments, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    servers = {row["server"] for row in json.loads((tmp_path / "bench.json").read_text())["rows"]}
    if peers.PEERS[name].installed:
        assert servers == {"reppose", name}
    else:
        assert f"{name} is left out: it is not installed" in done.stdout
        assert servers == {"reppose"}
