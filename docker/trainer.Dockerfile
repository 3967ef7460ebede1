# The trainer. From the repository's root: docker build -f docker/trainer.Dockerfile -t reppose-trainer:0.1.0 .
#
# torch is its CPU build, and no other is installed: where no index has it, the build fails before it downloads anything
# large. Name PyTorch's CPU wheel index as its installation page gives it: --build-arg PIP_EXTRA_INDEX_URL=...
# Data is mounted at /data, read-only; runs and bundles are written under /work, which must be writable by the user.

FROM python:3.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL
COPY constraints.txt pyproject.toml README.md LICENSE /build/
COPY model_zoo /build/model_zoo
COPY service /build/service
COPY trainer /build/trainer
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
      --constraint /build/constraints.txt 'torch==2.13.0+cpu' '/build[trainer]' \
 && test -z "$(find /opt/venv/lib/python3.11/site-packages -maxdepth 1 -iname 'nvidia*' -o -iname 'triton*' \
      -o -iname 'torchvision*' -o -iname 'torchaudio*' -o -iname 'timm*')"

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="RepPose trainer" \
      org.opencontainers.image.description="Trains RepVGG pose nets and exports them as bundles" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1
COPY --from=build /opt/venv /opt/venv
USER 65532:65532
WORKDIR /work
STOPSIGNAL SIGTERM
ENTRYPOINT ["reppose-train"]
CMD ["--help"]
