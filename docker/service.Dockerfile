# The service on CPUs. From the repository's root: docker build -f docker/service.Dockerfile -t reppose:0.1.0 .
#
# Runs with --read-only, --cap-drop=ALL, --security-opt no-new-privileges and any --user; it writes nothing.

FROM python:3.11-slim-bookworm AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils \
 && rm -rf /var/lib/apt/lists/*
COPY docker/requirements.txt /build/
# pip comes from the base and installs into the environment from outside: nothing that installs is in the image.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-compile --only-binary=:all: --requirement /build/requirements.txt
WORKDIR /opt/venv/lib/python3.11/site-packages
# What nothing here loads goes: ONNX Runtime's library for C programs (Python has its own copy) and its tools that change
# models; of scipy all but `optimize` and what that stands on; of Pillow what reads AVIF, sets type and converts colours;
# symbols for debuggers; tests; sources and stubs of compiled modules. An image that is built on this one and needs them
# installs these packages again. Bytecode is made once, here.
RUN rm -rf onnxruntime/capi/libonnxruntime.so.* onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
 && rm -rf scipy/cluster scipy/datasets scipy/fftpack scipy/integrate scipy/interpolate scipy/io scipy/ndimage \
      scipy/odr scipy/signal scipy/stats numpy/distutils cv2/data \
      PIL/_avif.* PIL/_imagingft.* PIL/_imagingcms.* PIL/_imagingtk.* \
      pillow.libs/libavif-* pillow.libs/libharfbuzz-* pillow.libs/libfreetype-* pillow.libs/liblcms2-* \
 && strip --strip-unneeded uvloop/loop.*.so cryptography/hazmat/bindings/_rust.*.so \
 && find numpy scipy -type d -name tests -prune -exec rm -rf {} + \
 && find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ach]' \) -delete \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(pygments/(lexers|styles)|numpy/f2py)/' .

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

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="RepPose" \
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
    REPPOSE_DRAIN__TIMEOUT_S=8
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=project /build/project /opt/venv
USER 65532:65532
WORKDIR /
EXPOSE 8000 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["python", "-m", "service.probe"]
ENTRYPOINT ["reppose-serve"]
CMD ["serve"]
