# syntax=docker/dockerfile:1
# edgead on a computer without GPU, x86-64 or aarch64. Linted with hadolint; not built yet: our tests have no Docker.
#
#     docker build -f examples/containers/cpu.Dockerfile -t edgead:cpu .
ARG EXTRAS=cpu,line,modbus,opcua,gpio,mqtt,view

FROM python:3.12-slim-bookworm AS wheels
ARG EXTRAS
WORKDIR /source
COPY . .
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels -c constraints.txt ".[$EXTRAS]"

FROM python:3.12-slim-bookworm
ARG EXTRAS
# The versions are those of the first stage: constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links /wheels "edgead[$EXTRAS]" \
    && useradd --uid 1000 --groups video --home-dir /state --create-home edgead
ENV XDG_CACHE_HOME=/state/cache XDG_STATE_HOME=/state XDG_CONFIG_HOME=/state
USER 1000
WORKDIR /state
VOLUME /state
ENTRYPOINT ["edgead"]
