# Debian's packages and the project are put together in stages; only the files that run get into the
# image, which begins from scratch. docs/image.md says what is inside and how a build is repeated.
# No line names an architecture, as Debian's directories do, so amd64 and arm64 build alike.
# Docker's classic builder (20.10) can build it: no RUN --mount, no here-documents.

ARG BASE=debian:trixie-slim

# hadolint ignore=DL3006
FROM $BASE AS debian
# A day of snapshot.debian.org, such as 20261130T000000Z; without one, today's packages.
ARG DEBIAN_SNAPSHOT=""
ARG DEBIAN_ARCHIVE=http://snapshot.debian.org/archive
RUN [ -z "$DEBIAN_SNAPSHOT" ] || { \
        rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* \
        && for suite in debian/trixie debian/trixie-updates debian-security/trixie-security; do \
            echo "deb [check-valid-until=no] $DEBIAN_ARCHIVE/${suite%/*}/$DEBIAN_SNAPSHOT" \
                "${suite#*/} main" >> /etc/apt/sources.list || exit 1; \
        done; }
# No file in the image is newer, whenever it was built. A release takes the time of its commit.
ARG SOURCE_DATE_EPOCH=1767225600
ENV SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH PYTHONHASHSEED=0


FROM debian AS compiler

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build


FROM compiler AS builder

# python-iptables is published as source only, so it needs a C compiler; the rest are wheels. What
# the compiler would note of its directory differs from build to build.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 CFLAGS="-O2 -g0"

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
# direct_url.json has the hash of a wheel, which says when it was made. YAML is read by the half of
# PyYAML that is in Python; the other one is a library of 2.6 MB.
COPY pyproject.toml README.md LICENSE ./
COPY healthcheck healthcheck
COPY gateway gateway
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir project . \
    && tools/bin/pip --python /opt/portcullis/bin/python install --no-index --no-deps --no-compile \
        project/*.whl \
    && find /opt/portcullis/bin -type f ! -name gateway ! -name healthcheck -delete \
    && find /opt/portcullis -name direct_url.json -delete \
    && find /opt/portcullis -name "_yaml.*.so" -delete \
    && find /opt/portcullis -name RECORD -exec sed -i "/direct_url.json/d; /_yaml\\..*\\.so/d" {} + \
    && /opt/portcullis/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/portcullis/lib \
    && cp /opt/portcullis/lib/python3*/site-packages/healthcheck/__pycache__/__main__.*.pyc \
        /opt/portcullis/healthcheck.pyc


FROM debian AS packages

# The packages of the image; what they depend on comes along. iptables has the legacy tools that close
# the namespace before anything else is loaded. nftables is for kernels without the legacy tables,
# wireguard-go for kernels without WireGuard. ca-certificates is for lists of providers and resolvers
# over TLS, openssl has its configuration, unbound is the resolver, dns-root-data has the keys that it
# checks signatures with, tinyproxy is the HTTP proxy. util-linux has setpriv, which starts programs.
# dash and ping are for the commands and health checks that people bring along.
ARG PACKAGES="base-files ca-certificates dash dns-root-data iptables iputils-ping nftables openssl \
python3 tinyproxy-bin unbound util-linux wireguard-go"
# What the target `debug` has in addition.
ARG DEBUG_PACKAGES="busybox wireguard-tools"
# hadolint ignore=SC2086
RUN apt-get update \
    && apt-get install -y --no-install-recommends $PACKAGES $DEBUG_PACKAGES \
    && rm -rf /var/lib/apt/lists/*

# wireguard-go keeps its socket, through which the keys can be read, in /run/wireguard. That must not
# be a link to /dev/shm, which the containers of a pod share; a read-only container needs a tmpfs there.
COPY scripts/image /scripts
# hadolint ignore=SC2086
RUN python3 -I -S /scripts/collect.py /image $PACKAGES \
    && python3 -m compileall -q -s /image -p / --invalidation-mode unchecked-hash /image/usr/lib/python3* \
    && mkdir /image/config \
    && mkdir -m 0700 /image/run/wireguard \
    && python3 -I -S /scripts/collect.py --on /image /debug $DEBUG_PACKAGES \
    && for applet in $(busybox --list); do \
        [ -e "/image/usr/bin/$applet" ] || [ -e "/image/usr/sbin/$applet" ] \
        || [ -e "/debug/usr/bin/$applet" ] || ln -s busybox "/debug/usr/bin/$applet" || exit 1; \
    done


# Debian's unbound can run modules in Python. So it loads a second interpreter of 7.5 MB, which nothing
# here uses: no configuration of the gateway names such a module. This is a library with the same
# names, so that unbound starts; a call of one of them would end it.
FROM compiler AS stand-in

COPY --from=packages /usr/sbin/unbound ./
RUN objdump -p unbound > headers \
    && nm --dynamic --undefined-only unbound > names \
    && sed -n "s/^ *U \\(_\\?Py[A-Za-z0-9_]*\\)\$/void \\1(void) { __builtin_trap(); }/p" names > python.c \
    && library=$(sed -n "s/^ *NEEDED *\\(libpython.*\\)/\\1/p" headers) \
    && [ -s python.c ] && [ -n "$library" ] && mkdir made \
    && gcc -shared -fPIC -s "-Wl,-soname,$library" -o "made/$library" python.c


# Lists the contents, and makes two builds alike: no file is newer than the time given above, none has
# the rights of another user, and none is a trace of the installation.
FROM packages AS contents

COPY --from=builder /opt/portcullis /project/opt/portcullis
COPY --from=stand-in /build/made /stand-in
# hadolint ignore=SC2086
RUN cp /stand-in/* "$(dirname /image/usr/lib/*/libc.so.6)" \
    && ldconfig -X -r /image \
    && rm -r /image/var/cache/ldconfig \
    && mkdir -p /debug/opt/portcullis \
    && for roots in "/project /image" "/debug /image /debug"; do \
        python3 -I -S /scripts/contents.py /project/opt/portcullis ${roots#* } \
            > "${roots%% *}/opt/portcullis/sbom.spdx.json" || exit 1; \
    done \
    && find /image /project /debug -perm /6000 ! -type l -exec chmod ug-s {} + \
    && find /image /project /debug -newermt "@$SOURCE_DATE_EPOCH" \
        -exec touch --no-dereference "--date=@$SOURCE_DATE_EPOCH" {} +


FROM scratch AS gateway

LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A fail-closed WireGuard gateway for containers" \
      org.opencontainers.image.documentation="docs/image.md" \
      org.opencontainers.image.licenses="MIT"

COPY --from=contents /image /
COPY --from=contents /project /

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


# The same with the tools of busybox, for people's commands and for a look inside.
FROM gateway AS debug

COPY --from=contents /debug /


FROM gateway
