"""What the tests of model_zoo share: a manifest to vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from model_zoo import skeletons
from model_zoo.manifest import BundleManifest


@pytest.fixture(scope="session")
def document() -> Callable[..., dict[str, Any]]:
    """Make the parts of a valid manifest, with some of them changed."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "name": "toy",
            "version": "1",
            "description": "A toy model",
            "licence": "Apache-2.0",
            "skeleton": "body19",
            "keypoints": skeletons.BODY19.keypoints,
            "input": {"name": "image", "height": 256, "width": 192},
            "outputs": [{"name": "heatmaps", "height": 32, "width": 24, "stride": 8}],
            "codec": {"sigma_cells": 1.0},
            "macs": 126_000_000,
            "parameters": 580_000,
            "opset": 17,
            "training": {
                "command": "reppose-train train toy.yaml",
                "config": {"steps": [1, 2], "rate": 0.5, "name": None},
                "seed": 7,
                "epochs": 3,
                "hours": 0.25,
                "hardware": "2 cores",
                "started": "2025-01-01",
                "versions": {"python": "3.11"},
                "data": [{"name": "lsp", "people": 10, "licence": "see the data's own terms"}],
            },
            "accuracy": [
                {"data": "lsp_test", "metric": "PCK@0.2", "value": 61.5, "people": 459, "decoder": "dark",
                 "command": "reppose-train evaluate"}
            ],
        } | changes  # fmt: skip

    return make


@pytest.fixture(scope="session")
def manifest_of(document: Callable[..., dict[str, Any]]) -> Callable[..., BundleManifest]:
    """Make a valid manifest, with some fields changed."""
    return lambda **changes: BundleManifest.model_validate(document(**changes))
