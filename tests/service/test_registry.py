"""Bundles on disk become models by name; what is wrong with one is said at the start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.manifest import BundleManifest
from service.core import build_core
from service.errors import NotReady, StartupError, UnknownModel
from service.registry import Registry, ServedModel
from service.settings import Settings
from tests import tiny_model


def opened(bundle: Bundle) -> ServedModel:
    return ServedModel(bundle, batcher=None)  # nobody asks it anything here


def loaded(*roots: Path, default: str = "tiny") -> Registry:
    registry = Registry()
    registry.load(roots, default, opened)
    return registry


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for version in ("2", "9", "10"):
        tiny_model.write(root, version=version)
    tiny_model.write(root, name="other")
    return root


def test_a_name_means_its_newest_version(many: Path) -> None:
    registry = loaded(many)
    assert registry.default.reference == "tiny@10"
    assert registry.get(None) is registry.get("tiny") is registry.get("tiny@10")
    assert registry.get("tiny@9").bundle.version == "9"
    assert registry.get("other").reference == "other@1"
    assert len(list(registry)) == 4


def test_the_default_may_name_its_version(many: Path) -> None:
    assert loaded(many, default="tiny@2").get(None).reference == "tiny@2"


def test_the_newest_is_newest_over_all_roots_and_the_first_root_wins(many: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path, version="10", description="another")
    tiny_model.write(tmp_path, version="11")
    assert loaded(many, tmp_path).get("tiny").reference == "tiny@11"
    assert loaded(tmp_path, many).get("tiny@10").manifest.description == "another"


@pytest.mark.parametrize(
    "reference", ["", "@", "tiny@", "@1", "tiny@1", "Tiny", "tiny@10@10", "x" * 100_000, "\0"]
)
def test_models_that_are_not_served(reference: str, many: Path) -> None:
    registry = loaded(many)
    with pytest.raises(UnknownModel, match=r"known: other@1, tiny@10, tiny@2, tiny@9") as error:
        registry.get(reference)
    assert len(str(error.value)) < 400


def test_nothing_is_served_before_it_is_loaded() -> None:
    registry = Registry()
    with pytest.raises(NotReady):
        registry.get("tiny")
    with pytest.raises(NotReady):
        registry.get(None)


def test_starting_without_models(tmp_path: Path, many: Path) -> None:
    with pytest.raises(StartupError, match="no bundle"):
        loaded(tmp_path)
    with pytest.raises(StartupError, match="no folder"):
        loaded(tmp_path / "missing")
    with pytest.raises(StartupError, match=r"default model is missing: .*'absent'"):
        loaded(many, default="absent")


def test_a_corrupt_bundle_is_named(tmp_path: Path) -> None:
    written = tiny_model.write(tmp_path)
    written.model_path.write_bytes(written.model_path.read_bytes()[:-1] + b"!")
    with pytest.raises(StartupError, match="sha256") as error:
        loaded(tmp_path)
    assert str(written.model_path) in str(error.value)


TABLE_BYTES = 64 << 20


def with_a_table(facts: BundleManifest) -> bytes:
    """The tiny graph, with a table of so many bytes that changes nothing but has to be held in memory."""
    model = onnx.load_from_string(tiny_model.graph(facts))
    nodes, constants = model.graph.node, model.graph.initializer
    nodes[-1].output[0] = "plain"
    for name, value in (
        ("table", np.zeros(TABLE_BYTES // 4, np.float32)),
        ("limit", np.array(99, np.int64)),
    ):
        constants.append(onnx.numpy_helper.from_array(value, name))
    nodes.extend(
        [
            onnx.helper.make_node("ReduceMax", ["plain"], ["highest"], keepdims=0),
            onnx.helper.make_node("Cast", ["highest"], ["whole"], to=onnx.TensorProto.INT64),
            onnx.helper.make_node("Min", ["whole", "limit"], ["index"]),
            onnx.helper.make_node("Gather", ["table", "index"], ["nothing"]),
            onnx.helper.make_node("Add", ["plain", "nothing"], ["heatmaps"]),
        ]
    )
    return model.SerializeToString()


def test_what_a_model_took_to_load_is_measured(tmp_path: Path) -> None:
    facts = tiny_model.manifest(version="2")
    bundle.write(tmp_path, facts, {facts.model_file: with_a_table(facts)})
    tiny_model.write(tmp_path)
    models = {"roots": (tmp_path,), "default": "tiny"}
    settings = Settings(models=models, batch={"workers": 1, "pin": "off"})

    def value(name: str, version: str) -> float | None:
        return core.metrics.registry.get_sample_value(f"reppose_model_{name}", {"model": f"tiny@{version}"})

    async def load_and_stop() -> None:
        await core.load(settings)
        await core.stop(20)

    core = build_core(settings)
    asyncio.run(load_and_stop())
    assert TABLE_BYTES <= value("memory_bytes", "2") < 4 * TABLE_BYTES
    assert 0 <= value("memory_bytes", "1") < TABLE_BYTES
    assert 0 < value("load_seconds", "2") < 60
