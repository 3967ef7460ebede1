"""Makes pose models: data, nets, losses, the training loop, evaluation and export to bundles."""

import model_zoo  # noqa: F401 - first of all, because it silences ONNX Runtime
