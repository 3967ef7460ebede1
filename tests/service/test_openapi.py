"""What the documentation shows is what the service takes and gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from service.health import Readiness
from service.images import ImageLimits
from service.metrics import Metrics
from service.registry import Registry
from service.rest import admin, app, examples, schemas, sessions, stream_schemas
from service.status import STATUS
from service.streams.hub import Hub
from service.streams.store import MemoryStore
from service.streams.token import Signer


async def _nothing() -> None:
    pass


def document() -> dict[str, Any]:
    """The OpenAPI document with every route there is."""
    registry = Registry()
    metrics = Metrics(CollectorRegistry())
    hub = Hub(_nothing, registry, MemoryStore(1, 1), Signer([bytes(16)], 1), metrics.streams)
    further = [admin.build(registry, _nothing), sessions.build(hub, ImageLimits(1, 1, 1))]
    built = app.framework(registry, Readiness(None), metrics, further)
    return built.openapi()


DOCUMENT = document()


def responses() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, status, JSON content) of every answer that is JSON by a schema."""
    for path, methods in DOCUMENT["paths"].items():
        for method in methods.values():
            for http, response in method["responses"].items():
                content = response.get("content", {}).get("application/json")
                if content and "$ref" in content["schema"]:
                    yield path, http, content


def model_of(schema: dict[str, str]) -> type[BaseModel]:
    return named(schema["$ref"].rpartition("/")[2])


def named(name: str) -> type[BaseModel]:
    return getattr(schemas, name, None) or getattr(stream_schemas, name)


CASES = [
    pytest.param(model_of(content["schema"]), each["value"], id=f"{path} {http} {name}")
    for path, http, content in responses()
    for name, each in content.get("examples", {}).items()
] + [
    pytest.param(named(name), example, id=f"{name} {number}")
    for name, schema in DOCUMENT["components"]["schemas"].items()
    for number, example in enumerate(schema.get("examples", []))
]


@pytest.mark.parametrize(("model", "example"), CASES)
def test_every_example_is_what_its_schema_says(model: type[BaseModel], example: Any) -> None:
    read = model.model_validate(example)
    assert read.model_dump(mode="json", exclude_unset=True) == example
    for pose in getattr(read, "poses", []):
        if pose.heatmaps is not None:
            assert len(pose.heatmaps.data) == 4 * math.prod(pose.heatmaps.shape)


def test_every_answer_in_json_is_shown() -> None:
    shown = {
        (path, http)
        for path, http, content in responses()
        if content.get("examples")
        or DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]].get("examples")
    }
    assert shown >= {(path, http) for path, http, _ in responses() if path.startswith(("/v1", "/healthz"))}
    assert {path for path, _ in shown} >= {"/v1/pose", "/v1/models", "/v1/admin/reload", "/healthz/ready"}


OF_A_POSE = {
    "invalid_request", "invalid_boxes", "invalid_image", "image_too_large", "unsupported_media", "unknown_model",
    "unknown_decoder", "overloaded", "deadline_exceeded", "not_ready", "internal", "unauthenticated",
    "permission_denied", "rate_limited",
}  # fmt: skip
"""Codes that the guard, the reading of a body and `Predictor.predict` may end in."""


def test_every_error_of_a_pose_is_shown_with_its_code_and_field() -> None:
    shown = {
        (int(http), each["value"]["error"]["code"], each["value"]["error"].get("field"))
        for path, http, content in responses()
        if path == "/v1/pose" and http != "200"
        for each in content["examples"].values()
    }
    listed = {row for row in STATUS.values() if row.code in OF_A_POSE}
    assert {(http, code) for http, code, _ in shown} == {(row.http, row.code) for row in listed}
    assert {code for _, code, _ in shown} == OF_A_POSE
    fields = {row.code: row.field for row in listed if row.field}
    assert {code: field for _, code, field in shown if code in fields} == fields
    assert set(examples.ERRORS) == OF_A_POSE | {"reload_failed"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, field in schemas.PoseQuery.model_fields.items()
        for value in field.examples or ()
    ],
)
def test_examples_of_query_values_are_understood(name: str, value: str) -> None:
    options = schemas.PoseQuery.model_validate({name: value}).options()
    assert getattr(options, name)
