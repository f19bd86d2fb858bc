"""The image, built for arm64 from the same lines, and its programs there, under qemu-user."""

import io
import json
import re
import struct
import tarfile
from collections.abc import Iterator, Mapping

import pytest

from gateway import __version__
from tests.arm64.test_programs import EM_AARCH64
from tests.docker.contents import Files, files_of
from tests.docker.engine import Engine
from tests.docker.images import base_archive, build_with_buildkit, import_base

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(0)]  # each command has its own limit

PLATFORM = ("--platform", "linux/arm64")
FOREIGN, NATIVE = "portcullis-arm64", "portcullis-native"
BUILD_TIME = 2400
"""Seconds: the installation and the compilation of Python's modules are emulated."""
BILL = "opt/portcullis/sbom.spdx.json"
NAMES_OF_AMD64 = {"x86_64": "aarch64", "x86-64": "aarch64", "amd64": "arm64"}
OF_ONE_ALONE = re.compile(
    r"(usr/)?lib64(/.*)?|usr/lib/(aarch64-linux-gnu/)?ld-linux-aarch64.*"
    r"|usr/lib/aarch64-linux-gnu/engines-3/padlock\.so"
)
"""The loader of programs, which has the place that the ABI of each architecture gives it, and what
OpenSSL has for processors of VIA."""
PROGRAMS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "gateway": (("/opt/portcullis/bin/gateway", "--version"), f"portcullis {__version__}"),
    "iptables": (("/usr/sbin/iptables-legacy", "--version"), "iptables v1"),
    # It has all of its libraries when it asks for that; qemu-user has no such family of netlink.
    "nft": (("/usr/sbin/nft", "--version"), "Unable to initialize Netlink socket"),
    "ping": (("/usr/bin/ping", "-V"), "ping from iputils"),
    "python": (
        ("/opt/portcullis/bin/python", "-I", "-c", "import os, iptc; print(os.uname().machine)"),
        "aarch64",
    ),
    "setpriv": (("/usr/bin/setpriv", "--dump"), "uid: 0"),
    "sh": (("/bin/sh", "-c", "echo said"), "said"),
    "tinyproxy": (("/usr/bin/tinyproxy", "-v"), "tinyproxy 1"),
    "unbound": (("/usr/sbin/unbound", "-V"), "Version 1"),
    "wireguard-go": (("/usr/bin/wireguard-go", "--version"), "wireguard-go v0"),
}


@pytest.fixture(scope="module")
def images(engine: Engine) -> Engine:
    """Return an engine that has both images."""
    import_base(engine, base_archive())
    build_with_buildkit(engine, NATIVE)
    import_base(engine, base_archive("--arch=arm64"), "arm64")
    build_with_buildkit(engine, FOREIGN, *PLATFORM, timeout=BUILD_TIME)
    return engine


@pytest.fixture(scope="module")
def files(images: Engine) -> Files:
    """Return the files of the image for arm64."""
    return files_of(images, FOREIGN, *PLATFORM)


def machines(files: Files) -> Iterator[tuple[str, int]]:
    """Yield the path and the architecture of each program and library (elf(5), e_machine)."""
    with tarfile.open(fileobj=io.BytesIO(files.archive)) as packed:
        for path, entry in files.entries.items():
            opened = packed.extractfile(entry) if entry.isreg() else None
            begin = opened.read(20) if opened else b""
            if begin.startswith(b"\x7fELF"):
                yield path, struct.unpack_from("<H", begin, 18)[0]


def test_every_program_and_library_in_it_is_of_arm64(images: Engine, files: Files) -> None:
    """Control: there are many of them, and the extension in C is one."""
    inspected = ("image", "inspect", "--format", "{{.Architecture}}", FOREIGN)
    assert images.docker(*inspected).strip() == "arm64"
    found = dict(machines(files))
    assert len(found) > 100
    assert any("libxtwrapper" in path for path in found)
    assert {path for path, machine in found.items() if machine != EM_AARCH64} == set()


def test_its_list_of_contents_names_packages_of_arm64(files: Files) -> None:
    """And none of another architecture."""
    packages = json.loads(files.read(BILL))["packages"]
    places = [one["externalRefs"][0]["referenceLocator"] for one in packages]
    found = {arch[1] for place in places if (arch := re.search(r"\?arch=(\w+)", place))}
    assert found == {"arm64", "all", "source"}


def test_it_has_the_files_of_the_image_of_this_machine(images: Engine, files: Files) -> None:
    """By their names, in which the architectures differ."""
    here = {renamed(path) for path in files_of(images, NATIVE).entries}
    there = {renamed(path) for path in files.entries}
    assert len(there) > 1000
    assert {path for path in here ^ there if not OF_ONE_ALONE.fullmatch(path)} == set()


def renamed(path: str) -> str:
    """Return a path with the names that arm64 has."""
    for name, other in NAMES_OF_AMD64.items():
        path = path.replace(name, other)
    return path


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_it_starts(images: Engine, name: str) -> None:
    """With all of its libraries, unbound with the one that is made in place of Python's too."""
    (program, *arguments), said = PROGRAMS[name]
    container = ("run", "--rm", *PLATFORM, "--network", "none", "--entrypoint", program, FOREIGN)
    assert said in images.docker(*container, *arguments, check=name != "nft", timeout=120)


def test_a_configuration_is_checked_in_it(images: Engine) -> None:
    """By the command of the page that says how to begin."""
    given = "WIREGUARD_ENDPOINT_IP=192.0.2.1"
    words = ("run", "--rm", *PLATFORM, "--network", "none", "-e", given, FOREIGN, "check")
    assert "WIREGUARD_PRIVATE_KEY" in images.docker(*words, check=False, timeout=120)
