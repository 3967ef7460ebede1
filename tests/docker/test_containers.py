"""The images, the compose project and its replicas, for real: built, brought up, asked, drained and killed.

`make docker-test` runs these tests; it takes minutes, and a Docker daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests import tiny_model
from tests.docker import standins
from tests.docker.stack import PATIENCE_S, REPLICAS, Load, Stack

pytestmark = pytest.mark.docker

IMAGE = standins.tag("service")
SESSIONS = 40
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--env=HOME=/nonexistent")


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    """The image of the service, built from the working tree."""
    if os.environ.get("REPPOSE_DOCKER_TESTS") != "1":
        pytest.skip("REPPOSE_DOCKER_TESTS=1 asks for the tests that bring containers up")
    for tool in ("docker", "docker-compose"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if standins.run("docker", "info", check=False).returncode:
        pytest.skip("no Docker daemon answers")
    standins.base(pytest.skip)
    standins.run("docker", "build", "-f", "docker/service.Dockerfile", "-t", IMAGE, ".")


@pytest.fixture(scope="module")
def stack(image: None) -> Iterator[Stack]:
    """Everything but Grafana, up and healthy."""
    for each in (standins.prometheus, standins.redis, standins.envoy):
        each()
    standins.run("python3", "docker/make_secrets.py")
    project = Stack()
    project.down()
    try:
        project.up()
        yield project
    finally:
        project.down()


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A small JPEG."""
    noise = np.random.default_rng(1).integers(0, 255, (8, 6, 3), np.uint8)
    return tiny_model.encode(noise.repeat(32, 0).repeat(32, 1), "JPEG")


@pytest.fixture
def alone() -> Iterator[str]:
    """The service in one hardened container, ready, not reachable from outside; the container's id."""
    container = standins.run("docker", "run", "--detach", *HARDENED, IMAGE).stdout.strip()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while (health := inspect(container)["State"]["Health"]["Status"]) != "healthy":
            assert time.monotonic() < deadline, (health, logs(container))
            time.sleep(0.2)
        yield container
    finally:
        standins.run("docker", "rm", "--force", container)


def inspect(name: str) -> dict[str, dict]:
    """What the engine knows of a container or an image."""
    return json.loads(standins.run("docker", "inspect", name).stdout)[0]


def logs(container: str) -> str:
    """Everything that the service wrote."""
    done = standins.run("docker", "logs", container)
    return done.stdout + done.stderr


def test_the_image_is_small_and_says_what_it_is() -> None:
    facts = inspect(IMAGE)
    added = facts["Size"] - inspect(standins.BASE)["Size"]
    assert 100e6 < added < 450e6
    assert facts["Config"]["User"] == "65532:65532"
    assert facts["Config"]["StopSignal"] == "SIGTERM"
    assert facts["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_holds_no_trainer_and_nothing_that_installs() -> None:
    code = """
import importlib.util as u, os, sys
strangers = [n for n in ("torch", "trainer", "pip", "setuptools", "pytest", "onnx") if u.find_spec(n)
             and u.find_spec(n).origin.startswith(sys.prefix)]
compiled = u.cache_from_source(u.find_spec("service.server").origin)
print(strangers, os.path.exists(compiled), os.getuid(), sorted(os.listdir(sys.prefix + "/bin")))
"""
    said = standins.run("docker", "run", "--rm", *HARDENED, "--entrypoint=python", IMAGE, "-c", code).stdout
    assert said.startswith("[] True 65532 ")
    assert "'reppose-serve'" in said
    assert "pip" not in said
    assert "reppose-train" not in said


def test_the_image_lists_its_model_and_verifies_it() -> None:
    zoo = ("docker", "run", "--rm", *HARDENED, "--entrypoint=reppose-zoo", IMAGE)
    assert "body19-small@1" in standins.run(*zoo, "list").stdout
    standins.run(*zoo, "verify", "body19-small")


def test_a_container_stops_well_within_the_time_that_engines_give(alone: str) -> None:
    standins.run("docker", "stop", "--time=10", alone)
    assert inspect(alone)["State"]["ExitCode"] == 0, logs(alone)  # 137 where it had to be killed
    assert '"finished":true' in logs(alone)
    assert standins.run("docker", "diff", alone).stdout == ""  # not a file was written
    assert "elemetry" not in logs(alone)


def test_a_second_signal_ends_it_at_once() -> None:
    name = "--env=REPPOSE_DRAIN__NOTICE_S=600"
    container = standins.run("docker", "run", "--detach", *HARDENED, name, IMAGE).stdout.strip()
    try:
        for awaited in ('"message":"ready"', '"message":"stopping"'):
            deadline = time.monotonic() + PATIENCE_S
            while awaited not in logs(container):
                assert time.monotonic() < deadline, logs(container)
                time.sleep(0.2)
            standins.run("docker", "kill", "--signal=TERM", container)
        code = standins.run("docker", "wait", container).stdout.strip()
        assert code == str(128 + 15)
    finally:
        standins.run("docker", "rm", "--force", container)


def stream(
    stack: Stack, port: str, picture: bytes, config: pb.StreamConfig, sequences: range, session: str = ""
) -> list[pb.EstimateStreamResponse]:
    """The answers to a whole stream of frames."""
    sent = [pb.EstimateStreamRequest(config=config)] + [
        pb.EstimateStreamRequest(
            sequence=number,
            timestamp_s=number / 30,
            want_token=True,
            frame=pb.EstimateRequest(image=picture),
        )
        for number in sequences
    ]
    metadata = (("x-session-id", session),) if session else ()
    with stack.channel(port) as channel:
        return list(
            pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(iter(sent), timeout=60, metadata=metadata)
        )


def file_mode(**facts: str) -> pb.StreamConfig:
    """The config of a stream in which nothing is dropped."""
    return pb.StreamConfig(mode=pb.STREAM_MODE_FILE, **facts)


def test_the_service_of_the_default_profile_answers_both_protocols(stack: Stack, picture: bytes) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(
            f"{stack.url('HTTP_PORT')}/v1/pose", content=picture, headers={"Content-Type": "image/jpeg"}
        )
    assert answer.status_code == 200
    pose = answer.json()["poses"][0]
    answers = stream(stack, "GRPC_PORT", picture, file_mode(), range(5))
    assert [each.WhichOneof("outcome") for each in answers] == ["opened"] + ["tracked"] * 5
    first = answers[1].tracked.raw.poses[0].keypoints
    assert [(each.name, round(each.x, 1)) for each in first] == [
        (each["name"], round(each["x"], 1)) for each in pose["keypoints"]
    ]


def test_prometheus_scrapes_every_container_and_its_rules_are_well(stack: Stack) -> None:
    wanted = {"service", *REPLICAS}
    with httpx.Client(trust_env=False, timeout=60, base_url=stack.url("PROMETHEUS_PORT")) as client:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            asked = client.get("/api/v1/query", params={"query": "reppose_ready == 1"}).json()
            if {each["metric"]["instance"] for each in asked["data"]["result"]} == wanted:
                break
            assert time.monotonic() < deadline, asked
            time.sleep(0.5)
        while True:
            groups = client.get("/api/v1/rules").json()["data"]["groups"]
            health = {rule["health"] for group in groups for rule in group["rules"]}
            if "unknown" not in health:  # a group that has not had its turn
                break
            assert time.monotonic() < deadline, groups
            time.sleep(0.5)
    assert health == {"ok"}


def test_a_session_meets_the_same_replica_over_both_protocols(stack: Stack, picture: bytes) -> None:
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        stack.channel("ENVOY_GRPC_PORT") as channel,
    ):
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        for number in range(SESSIONS):
            session = f"sticky-{number}"
            headers = {"Content-Type": "image/jpeg", "x-session-id": session}
            for _ in range(2):
                assert (
                    client.post(
                        f"{stack.url('ENVOY_HTTP_PORT')}/v1/pose", content=picture, headers=headers
                    ).status_code
                    == 200
                )
                stub.Estimate(
                    pb.EstimateRequest(image=picture), timeout=60, metadata=(("x-session-id", session),)
                )
            answers = stream(stack, "ENVOY_GRPC_PORT", picture, file_mode(), range(1), session)
            assert answers[-1].WhichOneof("outcome") == "tracked"
    deadline = time.monotonic() + PATIENCE_S  # Envoy writes its log from time to time
    while len(seen := stack.replicas_seen("sticky-")) < SESSIONS or not all(
        len(each) == 2 for each in seen.values()
    ):
        assert time.monotonic() < deadline, seen
        time.sleep(1)
    assert all(each["http"] == each["grpc"] and len(each["http"]) == 1 for each in seen.values()), seen
    assert set.union(*(each["http"] for each in seen.values())) == set(REPLICAS)


def test_what_operators_ask_a_process_is_not_answered_through_envoy(stack: Stack) -> None:
    with httpx.Client(trust_env=False, timeout=60, base_url=stack.url("ENVOY_HTTP_PORT")) as client:
        assert client.get("/metrics").status_code == 404
        assert client.post("/v1/admin/reload").status_code == 404
        assert client.get("/healthz/ready").status_code == 200


def test_a_replica_is_drained_and_no_request_fails(stack: Stack, picture: bytes) -> None:
    with Load(stack, picture) as load:
        load.await_answers(100)
        standins.run("docker", "stop", "--time=10", stack.container("replica-1"))
        load.await_answers(100)
        assert stack.state("replica-1")["ExitCode"] == 0
        standins.run("docker", "start", stack.container("replica-1"))
        stack.await_replicas(2)
        load.await_answers(100)
    assert load.failures == []


def test_a_replica_is_killed_and_only_what_was_in_flight_fails(stack: Stack, picture: bytes) -> None:
    # A session that is at rest is in the shared store; one that is under way goes on by its token.
    rest = "rest-under-one-name"
    assert not stream(stack, "ENVOY_GRPC_PORT", picture, file_mode(session=rest), range(3), rest)[
        0
    ].opened.resumed
    under_way, kept = "under-way", []
    with Load(stack, picture) as load, stack.channel("ENVOY_GRPC_PORT") as channel:
        load.await_answers(100)
        killed = homes(stack, [rest])[rest]

        def frames() -> Iterator[pb.EstimateStreamRequest]:
            yield pb.EstimateStreamRequest(config=file_mode())
            for number in range(10_000):
                yield pb.EstimateStreamRequest(
                    sequence=number,
                    timestamp_s=number / 30,
                    want_token=True,
                    frame=pb.EstimateRequest(image=picture),
                )
                time.sleep(0.02)

        call = pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(
            frames(), timeout=60, metadata=(("x-session-id", rest),)
        )
        for answer in call:
            if answer.WhichOneof("outcome") == "tracked":
                kept.append(answer)
                if len(kept) == 5:
                    break
        standins.run("docker", "kill", "--signal=KILL", stack.container(killed))
        dead = time.monotonic()
        with pytest.raises(grpc.RpcError) as cut:
            kept.extend(call)
        # After the first answer Envoy can only reset the stream, which gRPC's clients call INTERNAL.
        assert cut.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
        load.await_answers(200)
        standins.run("docker", "start", stack.container(killed))
        resumed = stream(stack, "ENVOY_GRPC_PORT", picture, file_mode(session=rest), range(3, 5), rest)
        config = file_mode(resume_token=kept[-1].tracked.resume_token)
        last = kept[-1].sequence
        continued = stream(stack, "ENVOY_GRPC_PORT", picture, config, range(last + 1, last + 3), under_way)
        stack.await_replicas(2)
        load.await_answers(100)
    assert resumed[0].opened.resumed
    assert resumed[0].opened.last_sequence == 2
    assert (continued[0].opened.resumed, continued[0].opened.last_sequence) == (True, last)
    assert [each.WhichOneof("outcome") for each in continued[1:]] == ["tracked"] * 2
    assert [failure for failure in load.failures if failure[0] > dead] == []
    assert len(load.failures) <= 2 * load.threads  # one in flight of each thread


def homes(stack: Stack, sessions: list[str]) -> dict[str, str]:
    """Which replica each session meets."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        seen = {name: stack.replicas_seen(name) for name in sessions}
        if all(name in seen[name] for name in sessions):
            return {name: next(iter(seen[name][name]["grpc"])) for name in sessions}
        assert time.monotonic() < deadline, seen
        time.sleep(1)
