"""Answer photographs with poses, over HTTP and gRPC. Never imports torch or the trainer."""

import model_zoo  # noqa: F401 - first of all, because it silences ONNX Runtime
