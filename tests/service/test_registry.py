"""Bundles on disk become models by name; what is wrong with one is said at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_zoo.bundle import Bundle
from service.errors import NotReady, StartupError, UnknownModel
from service.registry import Registry, ServedModel
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
