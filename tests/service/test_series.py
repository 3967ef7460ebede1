"""The table of the metrics, and what a real service answers."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.metrics import REFUSED, STAGES
from service.series import document, series
from tests.service import serving, video

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_registry() -> None:
    kept = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert kept == document(), "docs/metrics.md is older than the metrics: make metrics"
    assert len(list(series())) > 30


def test_names_are_as_prometheus_wants_them() -> None:
    """Base units, and `_total` for what only grows; promtool looks at the rest."""
    for name, kind, _, meaning in series():
        assert name.endswith("_total") is (kind == "counter"), name
        assert not name.endswith(("_ms", "_milliseconds", "_kb", "_mb", "_count", "_sum")), name
        assert len(meaning) > 10
        assert meaning.endswith("."), name
        assert "|" not in meaning


def test_a_service_answers_no_series_that_is_not_in_the_table(tiny_bundle_root: Path) -> None:
    known = {name: set(labels) for name, _, labels, _ in series()}
    with serving.running(tiny_bundle_root) as service:
        for query in ({}, {"compare": "true"}, {"render": "true"}):
            assert serving.post(service, video.clip()[0], **query).status_code == 200
        assert serving.post(service, b"garbage").status_code == 422
        text = serving.get(service, "/metrics").text
    families = {each.name: each for each in text_string_to_metric_families(text)}
    for name, family in families.items():
        if name.startswith("reppose_") and not name.endswith("_created"):
            suffix = "_total" if family.type == "counter" else ""
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels <= known[name + suffix], name
    samples = {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["reppose_images_total", "tiny@2"] == 3
    assert samples["reppose_people_total", "tiny@2"] == 3
    assert samples["reppose_pose_score_count", "tiny@2"] == 3
    assert samples["reppose_pose_score_bucket", "1.0", "tiny@2"] == 3
    assert samples["reppose_decoder_disagreement_pixels_count", "tiny@2"] == 1
    assert samples["reppose_decoder_disagreement_pixels_sum", "tiny@2"] >= 0
    counts = {stage: samples["reppose_stage_seconds_count", "tiny@2", stage] for stage in STAGES}
    assert (counts["queue"], counts["decode"], counts["total"]) == (4, 4, 3)
    assert (counts["render"], counts["encode"], counts["smooth"]) == (1, 2, 0)
    assert counts["warp"] == counts["infer"] == counts["decode_keypoints"] > 0
    sums = {stage: samples["reppose_stage_seconds_sum", "tiny@2", stage] for stage in STAGES}
    assert 0 < sums["infer"] < sums["total"]
    refused = {reason: samples["reppose_queue_refused_total", "tiny@2", reason] for reason in REFUSED}
    assert refused == dict.fromkeys(REFUSED, 0)
