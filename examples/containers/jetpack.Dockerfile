# syntax=docker/dockerfile:1
# edgead on a Jetson with JetPack 6.1. Linted with hadolint; not built yet: our tests have no Docker, and no Jetson.
# Other releases: --build-arg BASE=nvcr.io/nvidia/l4t-jetpack:r36.3.0 for JetPack 6.0.
#
#     docker build -f examples/containers/jetpack.Dockerfile -t edgead:jetpack .
#     docker run --runtime nvidia …
#
# TensorRT, CUDA and OpenCV are those of the image; pip leaves them alone, see docs/jetson.md.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
# hadolint ignore=DL3006
FROM ${BASE}
ARG EXTRAS=jpeg,line,modbus,opcua,gpio,mqtt,view
# The versions of the packages are those of the image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-libnvinfer python3-opencv python3-venv \
    && rm -rf /var/lib/apt/lists/*
# From a bind, so that neither source nor build stays in the image. constraints.txt is for PCs.
RUN --mount=type=bind,source=.,target=/source,rw \
    python3 -m venv --system-site-packages /opt/edgead \
    && /opt/edgead/bin/pip install --no-cache-dir "/source[$EXTRAS]" \
    && useradd --uid 1000 --groups video --home-dir /state --create-home edgead
ENV PATH=/opt/edgead/bin:$PATH XDG_CACHE_HOME=/state/cache XDG_STATE_HOME=/state XDG_CONFIG_HOME=/state
USER 1000
WORKDIR /state
VOLUME /state
ENTRYPOINT ["edgead"]
