"""The manifest refuses what is wrong, names the field, and survives its own JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from model_zoo import bundle, manifest, outputs
from model_zoo.errors import ManifestError
from model_zoo.manifest import ONNX_METADATA_KEY, BundleManifest, Calibration, Codec, schema_of

HEATMAPS = {"name": "heatmaps", "kind": "heatmaps", "height": 32, "width": 24, "stride": 8}
ACCURACY = {
    "data": "lsp", "metric": "PCK@0.2", "value": 1, "people": 1, "decoder": "dark", "command": "none",
}  # fmt: skip
KEYPOINTS = {"name": "keypoints", "kind": "keypoints", "decoder": "dark"}
PRESENCE = {"name": "presence", "kind": "presence", "of": "hand"}
GESTURE = {"name": "gesture", "kind": "classes", "of": "gesture", "labels": ["0", "1", "2"]}
HANDEDNESS = {
    "name": "handedness", "kind": "classes", "of": "handedness", "labels": ["left", "right"], "mirror": [1, 0],
}  # fmt: skip
DEPTH = {"name": "depth", "kind": "depth", "root": "nose"}
CALIBRATION = {
    "of": "presence", "scale": 0.7, "shift": 0.1, "event": "somebody is there", "data": "val", "count": 100, "bins": 15,
    "error_before": 0.2, "error": 0.02, "command": "reppose-train export",
}  # fmt: skip
MANY = [HEATMAPS, KEYPOINTS, PRESENCE, GESTURE, HANDEDNESS, DEPTH]


def refused_fields(document: dict[str, Any]) -> set[str]:
    """Dotted names of the fields that a document is refused for."""
    with pytest.raises(ValidationError) as caught:
        BundleManifest.model_validate(document)
    return {".".join(map(str, fault["loc"])) for fault in caught.value.errors()}


def test_json_and_back(manifest_of):
    made = manifest_of(files={"model.onnx": {"sha256": "0" * 64, "bytes": 3}})
    assert BundleManifest.model_validate_json(made.model_dump_json()) == made
    assert made.input.size == (256, 192)
    assert made.heatmaps is made.outputs[0]
    assert made.pixel_convention == "centre-integer"


def test_outputs_are_told_apart_by_kind(manifest_of):
    both = manifest_of(outputs=[KEYPOINTS, HEATMAPS])
    assert BundleManifest.model_validate_json(both.model_dump_json()) == both
    assert both.heatmaps is both.outputs[1]
    assert both.keypoints_output is both.outputs[0]
    assert both.keypoints_output.decoder == "dark"


def test_a_net_may_answer_keypoints_alone(manifest_of):
    made = manifest_of(outputs=[{"name": "keypoints", "kind": "keypoints"}], codec=None)
    assert BundleManifest.model_validate_json(made.model_dump_json()) == made
    assert made.heatmaps is None
    assert made.keypoints_output.decoder is None


def test_presence_classes_and_depth_are_found_by_what_they_are(manifest_of):
    made = manifest_of(outputs=MANY[::-1], calibration=[CALIBRATION], schema_version=2)
    assert BundleManifest.model_validate_json(made.model_dump_json()) == made
    assert bundle.manifest_from_metadata(bundle.metadata_of(made)) == made
    assert made.presence.of == "hand"
    assert made.depth.root == "nose"
    assert [each.of for each in made.classes] == ["handedness", "gesture"]
    assert [each.mirror for each in made.classes] == [(1, 0), None]
    assert (made.heatmaps.name, made.keypoints_output.name) == ("heatmaps", "keypoints")
    assert [outputs.shape(each, 19) for each in made.outputs] == [
        (19,),
        (2,),
        (3,),
        (),
        (19, 3),
        (19, 32, 24),
    ]


def test_a_manifest_is_of_the_oldest_form_that_has_its_parts(manifest_of):
    """What says nothing new is written as before, so that a service of before reads it."""
    old, new = manifest_of(), manifest_of(outputs=MANY, schema_version=2)
    assert "calibration" not in old.model_dump(mode="json")
    assert new.model_dump(mode="json")["calibration"] == []
    assert schema_of(old.outputs) == 1
    assert schema_of(new.outputs) == schema_of(old.outputs, [Calibration(**CALIBRATION)]) == 2
    agreement = {"net": "fused", "points_px": 0.0, "probability": 1e-6}
    assert "probability" not in manifest_of(agreement=[agreement | {"probability": None}]).model_dump_json()
    assert (
        "probability" in manifest_of(agreement=[agreement], outputs=MANY, schema_version=2).model_dump_json()
    )


LATENCY = {
    "precision": "int8", "ms": 0.9, "ratio": 0.3, "reference": "toy@1 fp32", "hardware": "a processor", "command": "c",
}  # fmt: skip


@pytest.mark.parametrize("later", [{"latency": [LATENCY]}, {"documents": ["comparison.md"]}])
def test_latency_and_documents_are_of_the_second_form(document, manifest_of, later):
    made = manifest_of(**later, schema_version=2)
    assert BundleManifest.model_validate_json(made.model_dump_json()) == made
    assert schema_of(made.outputs, made.calibration, made.latency, made.documents) == 2
    assert refused_fields(document(**later)) == {""}
    assert not {"latency", "documents"} & manifest_of().model_dump(mode="json").keys()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_PARTS = st.sampled_from([HEATMAPS, KEYPOINTS, PRESENCE, GESTURE, HANDEDNESS, DEPTH])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(_PARTS, max_size=7), where=st.integers(0, 6), data=st.data())
def test_a_manifest_in_which_anything_was_changed_is_refused_or_agrees_with_itself(
    document, parts, where, data
):
    made = document(outputs=[dict(each) for each in parts], calibration=[dict(CALIBRATION)], schema_version=2)
    part = made["outputs"][where % len(parts)] if parts else made
    part[data.draw(st.sampled_from(sorted(part)), "field")] = data.draw(_JSON, "value")
    try:
        text = json.dumps(made)
        found = bundle.manifest_from_metadata({ONNX_METADATA_KEY: text})
    except ManifestError:
        return
    kinds = [(each.kind, getattr(each, "of", "") if each.kind == "classes" else "") for each in found.outputs]
    assert len(set(kinds)) == len(kinds)
    assert found.heatmaps is not None or found.keypoints_output is not None
    assert bundle.manifest_from_metadata(bundle.metadata_of(found)) == found


def test_a_manifest_from_before_int8_and_kinds_still_loads(manifest_of):
    made = manifest_of()
    assert (made.heatmaps.kind, made.keypoints_output, made.int8_file) == ("heatmaps", None, None)
    assert [each.precision for each in made.accuracy] == ["fp32"]


def test_onnx_metadata_and_back(manifest_of):
    made = manifest_of()
    hashed = manifest_of(files={"model.onnx": {"sha256": "0" * 64, "bytes": 3}})
    metadata = bundle.metadata_of(hashed)
    assert set(metadata) == {ONNX_METADATA_KEY}
    assert bundle.manifest_from_metadata(metadata | {"producer": "someone"}) == made
    assert bundle.metadata_of(made) == metadata


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "no metadata 'reppose.manifest'"),
        ({ONNX_METADATA_KEY: "{"}, "ONNX metadata: document: Invalid JSON"),
    ],
)
def test_onnx_metadata_without_a_manifest_is_refused(metadata, complaint):
    with pytest.raises(ManifestError, match=complaint):
        bundle.manifest_from_metadata(metadata)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema_version": 3}, "schema_version"),
        ({"schema_version": 0}, "schema_version"),
        ({"schema_version": "1.0"}, "schema_version"),
        ({"name": "Toy"}, "name"),
        ({"name": "../toy"}, "name"),
        ({"name": ".toy"}, "name"),
        ({"version": ""}, "version"),
        ({"version": "1\n"}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"input": {"name": "image", "height": 0, "width": 192}}, "input.height"),
        ({"input": {"name": "image", "height": 256, "width": 192, "channels": "BGR"}}, "input.channels"),
        ({"normalisation": {"scale": 0}}, "normalisation.scale"),
        ({"normalisation": {"mean": float("nan")}}, "normalisation.mean"),
        ({"outputs": []}, "outputs"),
        ({"outputs": [HEATMAPS, *[KEYPOINTS] * 16]}, "outputs"),
        ({"outputs": [KEYPOINTS, GESTURE | {"labels": ["0"]}]}, "outputs.1.classes.labels"),
        ({"outputs": [KEYPOINTS, GESTURE | {"labels": ["0", "a\nb", "1"]}]}, "outputs.1.classes.labels.1"),
        ({"outputs": [KEYPOINTS, GESTURE | {"of": ""}]}, "outputs.1.classes.of"),
        ({"outputs": [KEYPOINTS, PRESENCE | {"labels": ["no", "yes"]}]}, "outputs.1.presence.labels"),
        ({"outputs": [KEYPOINTS, DEPTH | {"scale": 0}]}, "outputs.1.depth.scale"),
        ({"outputs": [KEYPOINTS, DEPTH | {"unit": "inch"}]}, "outputs.1.depth.unit"),
        ({"calibration": [CALIBRATION | {"scale": -1}]}, "calibration.0.scale"),
        ({"calibration": [CALIBRATION | {"error": 1.5}]}, "calibration.0.error"),
        ({"outputs": [HEATMAPS, KEYPOINTS | {"stride": 8}]}, "outputs.1.keypoints.stride"),
        ({"outputs": [KEYPOINTS, HEATMAPS | {"height": 0}]}, "outputs.1.heatmaps.height"),
        ({"int8_file": "../int8.onnx"}, "int8_file"),
        ({"latency": [LATENCY | {"ms": 0}]}, "latency.0.ms"),
        ({"latency": [LATENCY | {"precision": "int4"}]}, "latency.0.precision"),
        ({"documents": ["../page.md"]}, "documents.0"),
        ({"accuracy": [ACCURACY | {"precision": "int4"}]}, "accuracy.0.precision"),
        ({"codec": {"sigma_cells": -1}}, "codec.sigma_cells"),
        ({"codec": {"sigma_cells": float("inf")}}, "codec.sigma_cells"),
        ({"codec": {"sigma_cells": 1, "dark_blur_kernel": 4}}, "codec"),
        ({"codec": {"sigma_cells": 1, "dark_blur_kernel": -1}}, "codec.dark_blur_kernel"),
        ({"model_file": "../model.onnx"}, "model_file"),
        ({"model_file": ".model.onnx"}, "model_file"),
        ({"model_file": "a\\b.onnx"}, "model_file"),
        ({"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, "files.../x.[key]"),
        ({"files": {"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}}, "files./etc/passwd.[key]"),
        ({"files": {"x": {"sha256": "0" * 63, "bytes": 1}}}, "files.x.sha256"),
        ({"files": {"x": {"sha256": "0" * 64, "bytes": 0}}}, "files.x.bytes"),
        ({"macs": 0}, "macs"),
        ({"pixel_convention": "corner"}, "pixel_convention"),
    ],
)
def test_a_wrong_field_is_named(document, changes, field):
    assert refused_fields(document(**changes)) == {field}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"skeleton": "body20"}, "unknown skeleton 'body20'"),
        ({"keypoints": ["nose"]}, "keypoints differ from those of skeleton body19"),
        ({"outputs": [{"name": "h", "height": 32, "width": 24, "stride": 4}]}, "output h covers"),
        ({"outputs": [HEATMAPS, KEYPOINTS | {"name": "heatmaps"}]}, "two outputs have the same name"),
        ({"outputs": [HEATMAPS, HEATMAPS | {"name": "more"}]}, "two outputs have the same kind"),
        ({"outputs": [*MANY, PRESENCE | {"name": "p2", "of": "arm"}]}, "two outputs have the same kind"),
        ({"outputs": [*MANY, GESTURE | {"name": "g2"}]}, "two outputs have the same kind"),
        ({"outputs": [PRESENCE, GESTURE]}, "must be an output of heatmaps or of keypoints"),
        ({"outputs": [KEYPOINTS, DEPTH | {"root": "tail"}]}, "relative to 'tail', which body19 has not"),
        ({"outputs": [KEYPOINTS, GESTURE | {"labels": ["a", "b", "a"]}]}, "two labels are the same"),
        ({"outputs": [KEYPOINTS, GESTURE | {"mirror": [1, 2, 0]}]}, "each of the 3 labels a partner"),
        ({"outputs": [KEYPOINTS, GESTURE | {"mirror": [0, 1]}]}, "each of the 3 labels a partner"),
        ({"outputs": [KEYPOINTS, GESTURE | {"mirror": [0, 1, -1]}]}, "each of the 3 labels a partner"),
        ({"outputs": [KEYPOINTS, HANDEDNESS | {"mirror": None}]}, "in a mirror image"),
        ({"outputs": [KEYPOINTS | {"name": "scores"}]}, "no output may be called 'scores'"),
        ({"outputs": MANY, "schema_version": 1}, "schema_version 1 has no such parts; 2 has"),
        ({"calibration": [CALIBRATION | {"of": "scores"}]}, "schema_version 1 has no such parts; 2 has"),
        ({"calibration": [CALIBRATION]}, "calibration of presence: known are scores"),
        ({"outputs": MANY, "calibration": [CALIBRATION, CALIBRATION]}, "calibrated twice"),
        ({"schema_version": 3}, "3 is newer than this software, which reads up to 2: update it"),
        ({"outputs": [HEATMAPS, {"kind": "vectors", "name": "x"}]}, "'vectors' found .* does not match"),
        ({"codec": None}, "codec is missing"),
        ({"int8_file": "model.onnx"}, "int8_file and model_file are the same file"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(document, changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        BundleManifest.model_validate(document(**changes))


def test_a_manifest_is_never_changed(manifest_of):
    with pytest.raises(ValidationError, match="frozen"):
        manifest_of().name = "other"


@pytest.mark.parametrize("size", [0, 1, 3, 11, 17])
def test_odd_blurs_and_none_are_accepted(size):
    assert Codec(sigma_cells=1.0, dark_blur_kernel=size).dark_blur_kernel == size


def test_every_field_says_what_it_means():
    documents = [
        each
        for each in vars(manifest).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and each.model_fields
    ]
    assert len(documents) >= 8
    silent = [
        f"{d.__name__}.{name}" for d in documents for name, f in d.model_fields.items() if not f.description
    ]
    assert silent == []
