"""What the tests of every package share: golden numbers, a tiny model, and hypothesis set for slow machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests import tiny_model

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("steady")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Read the golden numbers of one technique; computed with the original implementations."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as archive:
            return dict(archive)

    return load


@pytest.fixture(scope="session")
def tiny_bundle_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles that holds `tiny` in versions 1 and 2; see `tests/tiny_model.py`."""
    root = tmp_path_factory.mktemp("bundles")
    tiny_model.write(root)
    tiny_model.write(root, version="2")
    return root
