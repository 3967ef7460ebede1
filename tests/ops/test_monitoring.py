"""Rules, alerts and dashboard speak of series that exist, and Prometheus itself finds nothing to complain about."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service import status
from service.metrics import Metrics
from tests import tiny_model
from tests.ops.tools import ROOT, passes, tool
from tests.service import serving
from tests.service.certificates import Authority
from tests.service.collector import collecting

DOCKER = ROOT / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus/rules.yml").read_text())
DASHBOARD = json.loads((DOCKER / "grafana/dashboards/reppose.json").read_text())
PROMETHEUS = "Debian: prometheus"
OURS = re.compile(r"[a-z:]*\breppose_[a-z0-9_:]+|\bprocess_[a-z_]+")


def rules() -> list[dict]:
    """All rules of all groups."""
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def series() -> dict[str, set[str]]:
    """Labels by name of every series that the service or a recording rule makes, `le` included."""
    known: dict[str, set[str]] = {}
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    registry = CollectorRegistry()
    Metrics(registry)
    # The labels of a series that has no value yet can be had from its collector only.
    for collector in list(registry._collector_to_names):
        for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
            labels = set(getattr(collector, "_labelnames", getattr(collector, "label_names", ())))
            for suffix in suffixes.get(metric.type, []):
                known[metric.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
        for metric in collector.collect():
            if metric.type in ("counter", "gauge"):
                for sample in metric.samples:
                    known.setdefault(sample.name, set(sample.labels))
    return known | {rule["record"]: set() for rule in rules() if "record" in rule}


KNOWN = series()


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of every query that is shipped."""
    for rule in rules():
        yield rule.get("alert", rule.get("record")), rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]
    for path in (DOCKER / "k8s").glob("autoscaling.yaml"):
        for trigger in yaml.safe_load(path.read_text())["spec"]["triggers"]:
            yield path.name, trigger["metadata"]["query"]


def test_the_known_series_are_those_of_the_service() -> None:
    assert {"reppose_requests_total", "reppose_request_seconds_bucket", "reppose_ready"} < set(KNOWN)
    assert KNOWN["reppose_requests_total"] == {"transport", "method", "outcome"}
    assert KNOWN["reppose_stream_frames_dropped_total"] == {"reason"}


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_a_query_asks_for_series_and_labels_that_exist(where: str, expression: str) -> None:
    names = set(OURS.findall(expression)) or {"up"}
    assert names - {"up"} <= set(KNOWN), where
    for name, matchers in re.findall(r"(reppose_\w+)\{([^}]*)\}", expression):
        asked = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", matchers))
        labels = KNOWN.get(name)
        if labels is not None:  # of a recording rule only its expression knows
            assert asked <= labels | {"instance", "job"}, where


def test_outcomes_that_count_as_failed_are_codes_of_the_service() -> None:
    failed = next(
        rule for rule in rules() if rule.get("record") == "transport:reppose_requests_failed:rate1m"
    )
    codes = re.search(r'outcome=~"([^"]+)"', failed["expr"])[1].split("|")
    assert set(codes) <= {row.code for row in status.STATUS.values()}
    own_fault = {row.code for row in status.STATUS.values() if row.http >= 500} | {"overloaded"}
    assert "rate_limited" not in codes  # a client beyond its budget is none of the service's faults
    assert own_fault <= set(codes)


def test_every_rule_has_a_unit_test() -> None:
    tests = (DOCKER / "prometheus/rules_test.yml").read_text()
    for rule in rules():
        if "alert" in rule:
            assert re.search(rf"alertname: {rule['alert']}\n\s+exp_alerts:\n", tests), rule["alert"]
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_dashboard_is_what_grafana_is_told_to_load() -> None:
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len(panels) >= 15
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {uid}
    provider = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/reppose.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    folder = provider["providers"][0]["options"]["path"]
    assert f"./docker/grafana/dashboards:{folder}:ro" in compose["grafana"]["volumes"]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    places = [
        (each["gridPos"]["x"] + x, each["gridPos"]["y"] + y)
        for each in DASHBOARD["panels"]
        for x in range(each["gridPos"]["w"])
        for y in range(each["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))  # no panel lies on another


def test_promtool_has_no_complaint_about_configuration_and_rules() -> None:
    promtool = tool("promtool", PROMETHEUS)
    said = passes(promtool, "check", "config", "docker/prometheus.yml")
    assert "SUCCESS" in said
    passes(promtool, "test", "rules", "docker/prometheus/rules_test.yml")


def test_promtool_and_a_real_prometheus_read_the_metrics(tiny_bundle_root: Path, tmp_path: Path) -> None:
    promtool = tool("promtool", PROMETHEUS)
    painted = tiny_model.paint((260, 460), tiny_model.person((60.0, 40.0, 120.0, 160.0)), radius=7)
    traced = {"REPPOSE_METRICS__PORT": "0", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with (
        collecting() as collector,
        serving.running(tiny_bundle_root, REPPOSE_TRACING__ENDPOINT=collector.url, **traced) as service,
    ):
        answer = serving.post(service, tiny_model.encode(painted))
        assert answer.status_code == 200
        target = f"127.0.0.1:{service.wait_for('listening')['metrics_port']}"
        text = httpx.get(f"http://{target}/metrics", trust_env=False).content
        complaints = passes(promtool, "check", "metrics", stdin=text)
        assert complaints == ""
        with scraping(tmp_path, {"job_name": "reppose", "static_configs": [{"targets": [target]}]}) as url:
            assert ask(url, "reppose_ready") == [({}, "1")]
            asked = ask(url, 'reppose_requests_total{outcome="ok"}', "transport", "outcome")
            assert ({"transport": "http", "outcome": "ok"}, "1") in asked
            trace = answer.headers["traceresponse"].split("-")[1]
            assert exemplars(url, "reppose_request_seconds_bucket") == {trace}
            collector.wait(lambda spans: trace in {span.trace_id.hex() for span in spans})
            assert ask(url, "model:reppose_queue:fill", "model")[0][1] == "0"


def test_a_real_prometheus_has_its_key_and_knows_the_certificate(
    tiny_bundle_root: Path, tmp_path: Path
) -> None:
    """As in the secure variant of compose, but for names and paths."""
    shipped = yaml.safe_load((DOCKER / "prometheus.secure.yml").read_text())["scrape_configs"][0]
    (tmp_path / "key").write_text(
        passes(sys.executable, "-m", "service", "key", "it", "--role=metrics", "--file", tmp_path / "keys")
    )
    certificate, key = Authority().issue().write(tmp_path, "service")
    given = {
        "REPPOSE_AUTH__KEY_FILE": str(tmp_path / "keys"),
        "REPPOSE_TLS__CERTIFICATE": str(certificate),
        "REPPOSE_TLS__KEY": str(key),
    }
    with serving.running(tiny_bundle_root, **given) as service:
        target = service.url.removeprefix("http://")
        job = shipped | {"static_configs": [{"targets": [target]}]}
        del job["dns_sd_configs"], job["relabel_configs"]
        job["authorization"]["credentials_file"] = str(tmp_path / "key")
        job["tls_config"] |= {"ca_file": str(certificate), "server_name": "localhost"}
        with scraping(tmp_path, job) as url:
            assert ask(url, 'up{job="reppose"} == 1', "instance") == [({"instance": target}, "1")]
            assert ask(url, "reppose_ready") == [({}, "1")]


@contextmanager
def scraping(folder: Path, job: dict[str, Any]) -> Iterator[str]:
    """A real Prometheus with the rules that are shipped; where it listens."""
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DOCKER / "prometheus/rules.yml")],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            tool("prometheus", PROMETHEUS),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
            "--enable-feature=exemplar-storage",
        ]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def exemplars(url: str, query: str) -> set[str]:
    """Ids of the traces that Prometheus has kept for these series."""
    span = {"query": query, "start": time.time() - 600, "end": time.time() + 60}
    answer = httpx.get(f"{url}/api/v1/query_exemplars", params=span, trust_env=False, timeout=10)
    return {each["labels"]["trace_id"] for series in answer.json()["data"] for each in series["exemplars"]}


def ask(url: str, query: str, *labels: str) -> list[tuple[dict[str, str], str]]:
    """(these labels, value) of each series, as soon as there is one."""
    deadline = time.monotonic() + 60
    with httpx.Client(trust_env=False, timeout=10) as client:
        while time.monotonic() < deadline:
            try:
                answer = client.get(f"{url}/api/v1/query", params={"query": query})
                found = answer.json()["data"]["result"] if answer.status_code == 200 else []
            except httpx.TransportError:
                found = []
            if found:
                return [({name: each["metric"][name] for name in labels}, each["value"][1]) for each in found]
            time.sleep(0.2)
    raise AssertionError(f"Prometheus has nothing for {query}")
