# The service on GPUs; needs an NVIDIA runtime:
#   docker build -f docker/service-cuda.Dockerfile -t reppose-cuda:0.1.0 .
#   docker run --gpus all reppose-cuda:0.1.0
# CUDA 13 and cuDNN come with NVIDIA's base image, not as Python packages; of the host it takes the driver.
# All else is as in service.Dockerfile.

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS base
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python-is-python3 \
 && rm -rf /var/lib/apt/lists/*

FROM base AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv python3-pip \
 && rm -rf /var/lib/apt/lists/*
COPY docker/requirements.txt /build/
RUN python -m venv --without-pip /opt/venv \
 && sed '/^onnxruntime==/d' /build/requirements.txt > /build/without-runtime.txt \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-compile --only-binary=:all: --constraint /build/without-runtime.txt \
      --requirement /build/without-runtime.txt 'onnxruntime-gpu==1.31.1' \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# The project by itself, as a tree to lay over the environment: the layer that every change replaces has a few MB.
FROM dependencies AS project
RUN python -m venv /build/tools \
 && /build/tools/bin/pip install --no-cache-dir --disable-pip-version-check setuptools==84.2.1
COPY pyproject.toml README.md LICENSE /build/source/
COPY model_zoo /build/source/model_zoo
COPY service /build/source/service
RUN /build/tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /build/wheels /build/source \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-compile --prefix /build/project /build/wheels/*.whl \
 && rm /build/project/bin/reppose-train \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /build/project/lib

FROM base
LABEL org.opencontainers.image.title="RepPose for CUDA" \
      org.opencontainers.image.description="Poses of people in pictures and video, over REST and gRPC" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    REPPOSE_HTTP__HOST=0.0.0.0 \
    REPPOSE_GRPC__HOST=0.0.0.0 \
    REPPOSE_LOG__FORMAT=json \
    REPPOSE_DRAIN__TIMEOUT_S=8 \
    REPPOSE_MODELS__PROVIDER=cuda
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=project /build/project /opt/venv
USER 65532:65532
WORKDIR /
EXPOSE 8000 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["python", "-m", "service.probe"]
ENTRYPOINT ["reppose-serve"]
CMD ["serve"]
