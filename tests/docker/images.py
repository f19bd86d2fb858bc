"""The images of the tests: a Debian base made on this machine, the project's own, the lab's.

No image can be pulled where the tests run. The base is what debootstrap makes of Debian's packages,
trimmed like the published `debian:trixie-slim`, under whose name it is imported, so that the
project's Dockerfile is built as it is.
"""

import hashlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.docker.engine import Engine, call
from tests.lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
BASE = "debian:trixie-slim"
PROJECT = "portcullis"
DEBUG = f"{PROJECT}:debug"
LAB = "portcullis-lab"
"""Debian with the gateway, a server's tools and a reverse proxy: all but the gateway runs it."""

TORRENTS = "portcullis-torrents"
"""Debian's torrent clients; with LAB_EVERYTHING=1 only."""

_NEEDS_PLUGIN = 23  # the version of the docker client that has no BuildKit of its own
_KEEP = 7 * 24 * 3600  # seconds; then Debian has updates
_EXCLUDED = ("doc", "groff", "info", "linda", "lintian", "locale", "man")
_PIP_SETTINGS = ("cert", "index-url", "extra-index-url", "trusted-host")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_CA_BUNDLE = "/opt/machine/ca-certificates.crt"


def build_all(engine: Engine) -> dict[str, float]:
    """Build what every test needs, on an engine with the machine's network.

    Returns the seconds that each step took.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "base file system"):
        archive = base_archive()
    with _timed(seconds, "base image"):
        import_base(engine, archive)
    with _timed(seconds, "project image"):
        build(engine, PROJECT)
    lab = f"""
        FROM {BASE}
        RUN apt-get update && apt-get install -y --no-install-recommends \\
            ca-certificates dns-root-data iproute2 iptables iputils-ping nftables nginx python3 \\
            tinyproxy-bin unbound wireguard-go wireguard-tools && mkdir /config
        COPY --from={PROJECT} /opt/portcullis /opt/portcullis
        ENV PATH=/opt/portcullis/bin:/usr/sbin:/usr/bin:/sbin:/bin
    """
    with _timed(seconds, "lab image"):
        _build_text(engine, LAB, lab)
    return seconds


def build_more(engine: Engine) -> dict[str, float]:
    """Build what only tests/docker needs, after `build_all`; returns seconds as that does."""
    seconds: dict[str, float] = {}
    with _timed(seconds, "debug image"):
        build(engine, DEBUG, "--target", "debug")
    if os.environ.get("LAB_EVERYTHING") == "1":
        torrents = f"""
            FROM {BASE}
            RUN apt-get update && apt-get install -y --no-install-recommends \\
                qbittorrent-nox transmission-daemon deluged deluge-web
            ENTRYPOINT []
        """
        with _timed(seconds, "image of torrent clients"):
            _build_text(engine, TORRENTS, torrents)
    return seconds


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long a step takes."""
    began = time.monotonic()
    yield
    seconds[step] = time.monotonic() - began


def _build_text(engine: Engine, name: str, dockerfile: str) -> None:
    """Build an image of a Dockerfile without a directory."""
    words = ("build", "--network=host", *proxies(), "-t", name, "-")
    engine.docker(*words, stdin=dockerfile, timeout=600)


def build(engine: Engine, name: str, *options: str, context: Path = ROOT) -> None:
    """Build an image of the project's Dockerfile."""
    engine.docker(
        *("build", "--network=host", *proxies(), *options, "-t", name, str(context)), timeout=600
    )


def build_with_buildkit(engine: Engine, name: str, *options: str, timeout: float = 600) -> None:
    """Build an image of the Dockerfile with the engine's BuildKit, in `timeout` seconds."""
    client = client_for_buildkit()
    if client is None:
        raise LabError("no client for BuildKit: install docker-buildx, or docker.io of Debian 12")
    words = ("build", "--network=host", *proxies(), *options, "-t", name, str(ROOT))
    environment = {**engine.environment, "DOCKER_BUILDKIT": "1"}
    call([client, *words], timeout=timeout, env=environment)


def client_for_buildkit() -> str | None:
    """Return a docker client that can use BuildKit: up to version 22, or with the plugin buildx."""
    for directory in os.get_exec_path():
        client = shutil.which("docker", path=directory)
        if client is None:
            continue
        version = re.search(r"version (\d+)", call([client, "--version"], check=False))
        if version is None:
            continue
        if int(version[1]) < _NEEDS_PLUGIN or "buildx v" in call(
            [client, "buildx", "version"], check=False
        ):
            return client
    return None


def base_archive(*options: str) -> Path:
    """Return the tar archive of the base's file system, made now unless there is a recent one.

    `options` are debootstrap's. It is kept by what it was made of: this recipe, these options,
    debootstrap's version, the architecture.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portcullis"
    cache.mkdir(parents=True, exist_ok=True)
    recipe = [*(inspect.getsource(it) for it in (base_archive, _trim)), *_EXCLUDED, *options]
    made_of = [*recipe, call(["debootstrap", "--version"]), os.uname().machine]
    key = hashlib.sha256("".join(made_of).encode()).hexdigest()[:16]
    archive = cache / f"debian-trixie-{key}.tar"
    for former in cache.glob("debian-trixie-*.tar"):
        with suppress(FileNotFoundError):  # another run removes them as well
            if time.time() - former.stat().st_mtime > _KEEP:
                former.unlink()
    if archive.exists():
        return archive
    with tempfile.TemporaryDirectory(prefix="portcullis-base-", dir="/var/tmp") as directory:
        root = Path(directory) / "root"
        words = ("debootstrap", "--variant=minbase", *options, "trixie", str(root))
        call(words, timeout=600)
        _trim(root)
        partial = archive.with_suffix(f".{os.getpid()}")
        call(["tar", "-C", str(root), "--numeric-owner", "-cf", str(partial), "."], timeout=120)
        partial.rename(archive)
    return archive


def _trim(root: Path) -> None:
    """Leave out what the published slim image leaves out, now and when packages are installed."""
    rules = [f"path-exclude /usr/share/{name}/*" for name in _EXCLUDED]
    rules.append("path-include /usr/share/doc/*/copyright")
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text("\n".join(rules) + "\n", encoding="ascii")
    for name in _EXCLUDED:
        for path in (root / "usr/share" / name).rglob("*"):
            if not path.is_dir() and path.name != "copyright":
                path.unlink()
    for name in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        for path in (root / name).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def import_base(engine: Engine, archive: Path, architecture: str = "") -> None:
    """Import the base, with this machine's way to the package index in it if it has one.

    The architecture is the engine's unless it is named. `docker import` could name no other one
    (Docker 20.10), so this makes what `docker save` does, and loads it.
    """
    arch = architecture or engine.docker("version", "--format", "{{.Server.Arch}}").strip()
    with tempfile.TemporaryDirectory(dir=engine.directory) as directory:
        settings = Path(directory) / "settings.tar"
        _write_settings(settings)
        layers = [archive, settings]
        config = {
            "architecture": arch,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(it)}" for it in layers]},
        }
        names = [it.name for it in layers]
        manifest = [{"Config": "config.json", "RepoTags": [BASE], "Layers": names}]
        packed = Path(directory) / "image.tar"
        with tarfile.open(packed, "w") as image:
            for layer in layers:
                image.add(layer, layer.name)
            for name, content in {"config.json": config, "manifest.json": manifest}.items():
                _add(image, name, json.dumps(content).encode())
        engine.docker("load", "-i", str(packed), timeout=120)


def _write_settings(path: Path) -> None:
    """Write a layer with this machine's settings of pip."""
    settings = _pip_settings()
    with tarfile.open(path, "w") as layer:
        if "cert" in settings:
            # At a path of its own: the usual one is rewritten when ca-certificates is installed.
            _add(layer, _CA_BUNDLE.lstrip("/"), Path(settings["cert"]).read_bytes())
            settings["cert"] = _CA_BUNDLE
        if settings:
            lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
            _add(layer, "etc/pip.conf", ("\n".join(lines) + "\n").encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file that all may read, whose time is always the same."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_settings() -> dict[str, str]:
    """Return this machine's settings of pip that a build elsewhere on it needs too."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    settings = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        short = name.rpartition(".")[2]
        if short in _PIP_SETTINGS:
            settings[short] = value.strip("'\"")
    return settings


def proxies() -> list[str]:
    """Return the options of a build that pass on this machine's proxies."""
    return [f"--build-arg={name}={os.environ[name]}" for name in _PROXIES if os.environ.get(name)]
