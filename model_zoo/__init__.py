"""What a pose model is: skeletons, the pixel convention, codecs, manifests and bundles on disk."""

import os

# ONNX Runtime from 1.29 on writes an identifier under HOME and reports to its makers, unless this is set before it is
# imported. Here, because whoever runs a model imports this package first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
