# Two stages: the first has a compiler and pip, the second has neither.
# Debian names its directories by architecture; nothing here does, so amd64 and arm64 build alike.
# Plain enough for Docker's classic builder (20.10): no RUN --mount, no here-documents.

FROM debian:trixie-slim AS builder

# python-iptables is published as source only: it needs a C compiler, the rest are wheels.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

COPY requirements-build.lock requirements.lock ./
RUN python3 -m venv tools \
    && tools/bin/pip install --require-hashes -r requirements-build.lock \
    && tools/bin/pip wheel --require-hashes --no-deps --no-build-isolation \
        -r requirements.lock --wheel-dir wheels \
    && python3 -m venv --without-pip /opt/portcullis \
    && tools/bin/pip --python /opt/portcullis/bin/python install --no-index --no-deps --no-compile \
        wheels/*.whl

# python-iptables finds its libraries by running ldconfig, which costs more than everything else at
# start, unless these names lead to them. The links dangle here and are whole in the final image.
RUN libraries=/usr/lib/$(python3 -c 'import sysconfig; print(sysconfig.get_config_var("MULTIARCH"))') \
    && mkdir /opt/portcullis/iptables \
    && ln -s "$libraries/xtables" /opt/portcullis/iptables/xtables \
    && ln -s "$libraries/libxtables.so.12" /opt/portcullis/iptables/libxtables.so.12 \
    && ln -s "$libraries/libip4tc.so.2" /opt/portcullis/iptables/libip4tc.so \
    && ln -s "$libraries/libip6tc.so.2" /opt/portcullis/iptables/libip6tc.so \
    && ln -s /opt/portcullis/lib/python3*/site-packages/libxtwrapper.*.so \
        /opt/portcullis/iptables/libxtwrapper.so

# The project last, so that a change of it rebuilds nothing above. What is compiled here is never
# checked against its source again: the image is not edited in place, and start-up is what counts.
COPY pyproject.toml README.md LICENSE ./
COPY healthcheck healthcheck
COPY gateway gateway
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir project . \
    && tools/bin/pip --python /opt/portcullis/bin/python install --no-index --no-deps --no-compile \
        project/*.whl \
    && find /opt/portcullis/bin -type f ! -name gateway ! -name healthcheck -delete \
    && /opt/portcullis/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/portcullis/lib


FROM debian:trixie-slim

LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A fail-closed WireGuard gateway for containers" \
      org.opencontainers.image.documentation="docs/image.md"

# iptables brings the legacy tools that close the namespace before anything else is loaded, nftables
# serves kernels without the legacy tables, wireguard-go serves kernels without WireGuard. That one
# keeps its socket, which tells the keys, in /run/wireguard: a directory of this container alone. It
# must not lead to /dev/shm, which the containers of a pod share; a read-only one needs a tmpfs there.
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables nftables python3 wireguard-go \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
    && mkdir /config \
    && mkdir -m 0700 /run/wireguard

COPY --from=builder /opt/portcullis /opt/portcullis

ENV PATH=/opt/portcullis/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    IPTABLES_LIBDIR=/opt/portcullis/iptables \
    XTABLES_LIBDIR=/opt/portcullis/iptables/xtables \
    PYTHON_IPTABLES_XTABLES_VERSION=12

# Root, with the few capabilities that Docker leaves it: netfilter and netlink ask for NET_ADMIN, and
# Docker gives a user other than root none of the capabilities that it is told to add.
USER root

# One failure is enough for red: the gateway has made up its mind before it answers 503. Failures
# count after start-period only, the time that a slow server has for the first handshake. Each check
# costs the engine more than us: five seconds between two is what a small machine does not feel.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=1 \
    CMD ["/opt/portcullis/bin/python", "-I", "-m", "healthcheck"]

STOPSIGNAL SIGTERM

# -I: no PYTHON* variable, no module from the working directory or a home directory gets in.
ENTRYPOINT ["/opt/portcullis/bin/python", "-I", "-m", "gateway"]
