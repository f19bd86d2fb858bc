# Two stages: the first has a compiler and pip, the second has neither.
# No line names an architecture, as Debian's directories do, so amd64 and arm64 build alike.
# Docker's classic builder (20.10) can build it: no RUN --mount, no here-documents.

FROM debian:trixie-slim AS builder

# python-iptables is published as source only, so it needs a C compiler; the rest are wheels.
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

# Without these links, python-iptables finds its libraries by running ldconfig, which takes longer
# than the rest of the start. The links dangle here; their targets are in the final image.
RUN libraries=/usr/lib/$(python3 -c 'import sysconfig; print(sysconfig.get_config_var("MULTIARCH"))') \
    && mkdir /opt/portcullis/iptables \
    && ln -s "$libraries/xtables" /opt/portcullis/iptables/xtables \
    && ln -s "$libraries/libxtables.so.12" /opt/portcullis/iptables/libxtables.so.12 \
    && ln -s "$libraries/libip4tc.so.2" /opt/portcullis/iptables/libip4tc.so \
    && ln -s "$libraries/libip6tc.so.2" /opt/portcullis/iptables/libip6tc.so \
    && ln -s /opt/portcullis/lib/python3*/site-packages/libxtwrapper.*.so \
        /opt/portcullis/iptables/libxtwrapper.so

# The project comes last, so that a change of it rebuilds nothing above. Python never compares the
# compiled files with their source: nothing edits the image in place, and this starts faster.
COPY pyproject.toml README.md LICENSE ./
COPY healthcheck healthcheck
COPY gateway gateway
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir project . \
    && tools/bin/pip --python /opt/portcullis/bin/python install --no-index --no-deps --no-compile \
        project/*.whl \
    && find /opt/portcullis/bin -type f ! -name gateway ! -name healthcheck -delete \
    && /opt/portcullis/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/portcullis/lib \
    && cp /opt/portcullis/lib/python3*/site-packages/healthcheck/__pycache__/__main__.*.pyc \
        /opt/portcullis/healthcheck.pyc


FROM debian:trixie-slim

LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A fail-closed WireGuard gateway for containers" \
      org.opencontainers.image.documentation="docs/image.md" \
      org.opencontainers.image.licenses="MIT"

# iptables has the legacy tools that close the namespace before anything else is loaded. nftables is
# for kernels without the legacy tables, wireguard-go for kernels without WireGuard. ca-certificates is
# for lists of providers and resolvers over TLS, unbound is the resolver, tinyproxy is the HTTP proxy, dns-root-data has the keys
# that it checks signatures with, ping is for the health checks that people bring along. wireguard-go keeps its
# socket, through which the keys can be read, in /run/wireguard. That must not be a link to /dev/shm,
# which the containers of a pod share; a read-only container needs a tmpfs there.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates dns-root-data iptables iputils-ping nftables python3 tinyproxy-bin unbound wireguard-go \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
    && mkdir /config \
    && mkdir -m 0700 /run/wireguard

COPY --from=builder /opt/portcullis /opt/portcullis

# The version of gateway/__init__.py (tests/unit/test_version.py); the commit only if it is given.
ARG VERSION=0.1.0
ARG COMMIT=""
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT
ENV PORTCULLIS_COMMIT=$COMMIT \
    PATH=/opt/portcullis/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    IPTABLES_LIBDIR=/opt/portcullis/iptables \
    XTABLES_LIBDIR=/opt/portcullis/iptables/xtables \
    PYTHON_IPTABLES_XTABLES_VERSION=12

# Root, with the few capabilities that Docker leaves it: netfilter and netlink require NET_ADMIN, and
# Docker gives added capabilities to no user except root.
# hadolint ignore=DL3002,DL3066
USER root

# One failure is enough: the gateway is sure before it answers 503. Failures count only after
# start-period, which is the time that a slow server has for the first handshake. A check costs the
# engine more than the gateway; every five seconds is light enough for a small machine. The compiled
# file and -S, without which Python looks for packages, take a third of the time of `-m healthcheck`.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=1 \
    CMD ["/usr/bin/python3", "-I", "-S", "/opt/portcullis/healthcheck.pyc"]

STOPSIGNAL SIGTERM

# -I: Python ignores PYTHON* variables and modules in the working directory or a home directory.
ENTRYPOINT ["/opt/portcullis/bin/python", "-I", "-m", "gateway"]
