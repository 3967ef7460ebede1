"""Fixtures for every package's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny_model


@pytest.fixture(scope="session")
def tiny_bundle_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles that holds `tiny` in versions 1 and 2; see `tests/tiny_model.py`."""
    root = tmp_path_factory.mktemp("bundles")
    tiny_model.write(root)
    tiny_model.write(root, version="2")
    return root
