"""Choosing decoders by name, from this package and from plug-ins."""

from __future__ import annotations

import logging
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from model_zoo import codecs
from model_zoo.errors import UnknownDecoder
from model_zoo.manifest import Codec

PLUG_IN = """
def decode_with(heatmaps, codec):
    raise AssertionError("only looked up, never called")

no_function = 3
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a distribution with entry points into place, as pip would."""

    def install(distribution: str, **offered: str) -> None:
        (tmp_path / "reppose_test_plug_in.py").write_text(PLUG_IN)
        (tmp_path / "reppose_broken_plug_in.py").write_text("raise RuntimeError('no licence file')")
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in offered.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{codecs.ENTRY_POINT_GROUP}]", *lines, ""]))
        codecs.decoders.cache_clear()

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    codecs.decoders.cache_clear()
    yield install
    codecs.decoders.cache_clear()
    for module in ("reppose_test_plug_in", "reppose_broken_plug_in"):
        sys.modules.pop(module, None)


def test_the_decoders_of_this_package_are_there():
    assert {"argmax_shift", "dark", "dsnt", "udp"} == set(codecs.DECODERS) <= set(codecs.decoders())
    points, scores = codecs.decoder("dark")(np.ones((1, 2, 8, 8), np.float32), Codec(sigma_cells=1.0))
    assert points.shape == (1, 2, 2)
    assert scores.shape == (1, 2)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UnknownDecoder, match=r"'drak'; known: argmax_shift, dark, dsnt"):
        codecs.decoder("drak")


def test_a_plug_in_is_found_and_imported_only_when_asked_for(installed):
    installed("acme-decoders", acme="reppose_test_plug_in:decode_with")
    assert "acme" in codecs.decoders()
    assert len(codecs.decoders()) == len(list(codecs.decoders())) == len(codecs.DECODERS) + 1
    assert "reppose_test_plug_in" not in sys.modules
    assert codecs.decoder("acme").__module__ == "reppose_test_plug_in"
    assert codecs.decoders() is codecs.decoders()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("reppose_broken_plug_in:decode_with", "no licence file"),
        ("reppose_test_plug_in:absent", "absent"),
        ("reppose_no_such_module:decode_with", "reppose_no_such_module"),
        ("reppose_test_plug_in:no_function", "not a function"),
    ],
)
def test_a_broken_plug_in_harms_only_its_own_name(installed, value, complaint):
    installed("acme-decoders", broken=value, whole="reppose_test_plug_in:decode_with")
    with pytest.raises(UnknownDecoder, match=complaint) as caught:
        codecs.decoder("broken")
    assert "'broken'" in str(caught.value)
    assert callable(codecs.decoder("whole"))
    assert codecs.decoder("dark") is codecs.DECODERS["dark"]


def test_a_taken_name_stays_with_its_owner_and_is_logged(installed, caplog):
    installed(
        "acme-decoders", dark="reppose_test_plug_in:decode_with", mine="reppose_test_plug_in:decode_with"
    )
    installed("other-decoders", mine="reppose_broken_plug_in:decode_with")
    with caplog.at_level(logging.WARNING):
        known = codecs.decoders()
    assert known["dark"] is codecs.DECODERS["dark"]
    assert sorted(record.args[0] for record in caplog.records) == ["dark", "mine"]
    assert list(known).count("mine") == 1


def test_the_entry_points_of_this_distribution_are_its_decoders():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = project["entry-points"][codecs.ENTRY_POINT_GROUP]
    loaded = {
        name: EntryPoint(name, value, codecs.ENTRY_POINT_GROUP).load() for name, value in listed.items()
    }
    assert loaded == codecs.DECODERS
