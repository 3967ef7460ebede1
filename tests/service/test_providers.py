"""What runs a model is what was asked for, or the service does not start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from model_zoo import bundle
from model_zoo.bundle import Bundle
from service import runner
from service.errors import StartupError
from tests import tiny_model
from tests.service import serving


@pytest.fixture
def tiny(tiny_bundle_root: Path) -> Bundle:
    return bundle.find("tiny", "1", [tiny_bundle_root])


@pytest.fixture
def silent_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime as it is with the GPU's build on a machine without a driver: it takes the processor and goes on."""
    session = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(runner.PROVIDERS.values()))
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, options, **_: session(path, options, providers=["CPUExecutionProvider"]),
    )


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_provider_that_is_not_built_in(
    provider: str, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(StartupError, match=f"cannot run models by {provider}, only by CPU"):
        runner.load(tiny, provider=provider)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
@pytest.mark.usefixtures("silent_fallback")
def test_a_provider_that_does_not_start(provider: str, tiny: Bundle) -> None:
    with pytest.raises(StartupError, match=f"could not start {provider} .* took CPUExecutionProvider"):
        runner.load(tiny, provider=provider)


@pytest.mark.parametrize("provider", ["auto", "cpu"])
@pytest.mark.usefixtures("silent_fallback")
def test_auto_takes_the_processor_where_nothing_else_starts(provider: str, tiny: Bundle) -> None:
    loaded = runner.load(tiny, provider=provider)
    assert loaded.provider == "cpu"
    assert loaded.run(np.zeros((1, tiny_model.HEIGHT, tiny_model.WIDTH, 3), np.uint8)).shape[0] == 1


def test_the_list_of_models_tells(service: serving.Service) -> None:
    assert {each["provider"] for each in serving.get(service, "/v1/models").json()["models"]} == {"cpu"}


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="cuda might start here")
def test_the_service_says_why_it_does_not_start(tiny_bundle_root: Path) -> None:
    refused = serving.Service(tiny_bundle_root, REPPOSE_MODELS__PROVIDER="cuda")
    assert refused.ended() == 1
    assert "cannot run models by cuda" in refused.text
    assert "Traceback" not in refused.text
