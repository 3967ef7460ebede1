"""The manifest refuses what is wrong, names the field, and survives its own JSON."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from model_zoo import bundle, manifest
from model_zoo.errors import ManifestError
from model_zoo.manifest import ONNX_METADATA_KEY, BundleManifest, Codec

HEATMAPS = {"name": "heatmaps", "kind": "heatmaps", "height": 32, "width": 24, "stride": 8}
ACCURACY = {
    "data": "lsp", "metric": "PCK@0.2", "value": 1, "people": 1, "decoder": "dark", "command": "none",
}  # fmt: skip
KEYPOINTS = {"name": "keypoints", "kind": "keypoints", "decoder": "dark"}


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
        ({"schema_version": 2}, "schema_version"),
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
        ({"outputs": [HEATMAPS, KEYPOINTS, KEYPOINTS]}, "outputs"),
        ({"outputs": [HEATMAPS, KEYPOINTS | {"stride": 8}]}, "outputs.1.keypoints.stride"),
        ({"outputs": [KEYPOINTS, HEATMAPS | {"height": 0}]}, "outputs.1.heatmaps.height"),
        ({"int8_file": "../int8.onnx"}, "int8_file"),
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
