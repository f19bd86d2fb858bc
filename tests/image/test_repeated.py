"""Two builds of one commit are the same, and a build can take Debian's packages of a given day."""

import hashlib
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docker.engine import Engine
from tests.docker.images import ROOT, build, build_with_buildkit

pytestmark = pytest.mark.image

CONTEXT = (
    *(".dockerignore", "Dockerfile", "LICENSE", "README.md", "gateway", "healthcheck"),
    *("pyproject.toml", "requirements.lock", "requirements-build.lock", "scripts/image"),
)
DAY = "20261130T000000Z"
DEBIAN = "http://deb.debian.org"


def layers(engine: Engine, image: str) -> list[str]:
    """Return the digests of an image's layers, before compression."""
    words = ("image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
    return list(json.loads(engine.docker(*words)))


def entries(engine: Engine, image: str, directory: Path) -> set[str]:
    """Return a line for each file of each layer, with all that a layer's digest depends on."""
    path = directory / "image.tar"
    engine.docker("save", "-o", str(path), image, timeout=120)
    found: set[str] = set()
    with tarfile.open(path) as outer:
        manifest = outer.extractfile("manifest.json")
        assert manifest is not None
        for number, name in enumerate(json.load(manifest)[0]["Layers"]):
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                for one in layer:
                    opened = layer.extractfile(one) if one.isreg() else None
                    digest = hashlib.sha256(opened.read()).hexdigest() if opened else one.linkname
                    owner = (one.mode, one.uid, one.gid, one.mtime, one.pax_headers)
                    found.add(f"layer {number}: {one.name} {owner} {digest}")
    path.unlink()
    return found


@pytest.fixture(scope="module")
def built(engine: Engine) -> str:
    """Build the image once, and return its name."""
    build(engine, "once")
    return "once"


def test_two_builds_have_the_same_layers(engine: Engine, built: str, tmp_path: Path) -> None:
    """Nothing of the first is used for the second; the target for debugging is compared as well."""
    build(engine, "once:debug", "--target", "debug")
    build(engine, "again", "--no-cache")
    build(engine, "again:debug", "--target", "debug")
    for tag in ("latest", "debug"):
        first, second = f"{built}:{tag}", f"again:{tag}"
        if layers(engine, first) != layers(engine, second):
            differing = entries(engine, first, tmp_path) ^ entries(engine, second, tmp_path)
            pytest.fail("they differ in\n" + "\n".join(sorted(differing)))


def test_buildkit_makes_the_same_layers(engine: Engine, built: str, tmp_path: Path) -> None:
    """As the classic builder of the same engine does, of which nothing is used."""
    build_with_buildkit(engine, "kit")
    if layers(engine, built) != layers(engine, "kit"):
        differing = entries(engine, built, tmp_path) ^ entries(engine, "kit", tmp_path)
        pytest.fail("they differ in\n" + "\n".join(sorted(differing)))


def test_a_change_of_the_project_leaves_the_layer_of_debian_as_it_is(
    engine: Engine, built: str, tmp_path: Path
) -> None:
    """So an update is a small download. Control for the digests: the other layer differs."""
    for name in CONTEXT:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    with (tmp_path / "gateway/cli.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    build(engine, "changed", context=tmp_path)
    before, after = layers(engine, built), layers(engine, "changed")
    assert len(before) == len(after) == 2
    assert before[0] == after[0]
    assert before[1] != after[1]


class Archive(BaseHTTPRequestHandler):
    """An archive of Debian as it was on DAY; today's packages are what it has of that day."""

    def do_GET(self) -> None:
        """Send the client to today's archive."""
        _, name, day, rest = self.path.split("/", 3)
        self.send_response(HTTPStatus.FOUND if day == DAY else HTTPStatus.NOT_FOUND)
        self.send_header("Location", f"{DEBIAN}/{name}/{rest}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.asked.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def archive() -> Iterator[ThreadingHTTPServer]:
    """Serve the archive on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Archive) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_packages_of_a_given_day_are_taken_from_the_archive(engine: Engine) -> None:
    """All of them, updates and fixes of security included."""
    with archive() as server:
        build(
            *(engine, "then", "--build-arg", f"DEBIAN_SNAPSHOT={DAY}"),
            *("--build-arg", f"DEBIAN_ARCHIVE=http://127.0.0.1:{server.server_port}"),
        )
        asked: list[str] = server.asked  # type: ignore[attr-defined]
    places = {
        f"/{name}/{DAY}/dists/{suite}/InRelease"
        for name, suite in (
            ("debian", "trixie"),
            ("debian", "trixie-updates"),
            ("debian-security", "trixie-security"),
        )
    }
    assert places <= {*asked}
    assert any("/pool/main/w/wireguard-go/" in one for one in asked)
