# syntax=docker/dockerfile:1
# edgead on a PC with NVIDIA GPU, x86-64. Linted with hadolint; not built yet: our tests have no Docker, and no GPU.
#
#     docker build -f examples/containers/cuda.Dockerfile -t edgead:cuda .
#     docker build -f examples/containers/cuda.Dockerfile -t edgead:tensorrt --build-arg ENGINE=tensorrt .
#
# The extras gpu (ONNX Runtime CUDA) and tensorrt bring CUDA's libraries. The driver comes from the host, through the
# NVIDIA Container Toolkit:  docker run --gpus all …
ARG ENGINE=gpu
ARG EXTRAS=line,modbus,opcua,gpio,mqtt,view

FROM python:3.12-slim-bookworm AS wheels
ARG ENGINE
ARG EXTRAS
WORKDIR /source
COPY . .
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels -c constraints.txt ".[$ENGINE,$EXTRAS]"

FROM python:3.12-slim-bookworm
ARG ENGINE
ARG EXTRAS
# The versions are those of the first stage: constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links /wheels "edgead[$ENGINE,$EXTRAS]" \
    && useradd --uid 1000 --groups video --home-dir /state --create-home edgead
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV XDG_CACHE_HOME=/state/cache XDG_STATE_HOME=/state XDG_CONFIG_HOME=/state
USER 1000
WORKDIR /state
VOLUME /state
ENTRYPOINT ["edgead"]
