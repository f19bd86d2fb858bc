"""A root file system of arm64: Debian's packages, the locked Python packages, and the project.

Debian's are fetched and unpacked, but not configured, and Python's wheels are unpacked, all by
this machine's own programs: emulated ones would take ten times as long. What is compiled for arm64
is compiled there: python-iptables, which is published as source only.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.docker.engine import call
from tests.kernel.image import SUITE, TEST_TOOLS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    # What there would be without being named, if packages were configured.
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "hostname"),
    *("libc-bin", "mawk", "sed", "tar", "util-linux"),
    # What the gateway and its tests call.
    *("ca-certificates", "curl", "dns-root-data", "git", "iproute2", "iptables", "mount"),
    *("nftables", "openssl", "procps", "python3", "tinyproxy-bin", "unbound", "wireguard-tools"),
    # The compiler.
    *("gcc", "libc6-dev", "python3-dev"),
)
TOOLS = (
    *(*TEST_TOOLS, "execnet", "pytest-xdist", "hypothesis", "sortedcontainers"),
    # Of spdx-tools.
    *("spdx-tools", "beartype", "boolean-py", "click", "license-expression", "ply", "pyparsing"),
    *("rdflib", "semantic-version", "uritools", "xmltodict"),
)
"""Packages of requirements-dev.lock that the unit tests need."""
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
MIRROR = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
FROM_SOURCE = "python-iptables"
LIBRARIES = "usr/local/lib"
"""Where Python looks for packages, also with -I."""
PROJECT = "/srv/project"

_TAGS = ("manylinux_2_17", "manylinux2014", "manylinux_2_28", "linux")
_BUILD = "from setuptools import build_meta; build_meta.build_wheel('..')"
_ENTER = """
ip link set lo up
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
mount --rbind /dev "$1/dev"
root=$1
shift
# Not with exec: the program would be process 1, which the gateway treats as one of its own.
chroot "$root" env -i "$@"
"""


def make(directory: Path) -> Path:
    """Make the root in `directory` and return where it is. Takes root, and `emulated`."""
    root = directory / "root"
    root.mkdir()
    _unpack_debian(root, directory / "apt")
    _unpack_python(root, directory / "python")
    _copy_project(root / PROJECT.lstrip("/"))
    return root


def command(root: Path, *argv: str, **environment: str) -> list[str]:
    """Return the command that runs a program of the root, in namespaces of its own."""
    variables = {
        "HOME": "/root",
        "PATH": "/usr/sbin:/usr/bin",
        **environment,
    }
    return [
        *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"),
        *("--propagation=private", "sh", "-ec", _ENTER, "sh", str(root)),
        *(f"{name}={value}" for name, value in variables.items()),
        *argv,
    ]


def _unpack_debian(root: Path, directory: Path) -> None:
    """Fetch Debian's packages with what they depend on, signed by Debian, and unpack them."""
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    (directory / "sources").write_text(f"deb [signed-by={KEYS}] {MIRROR} {SUITE} main\n", "ascii")
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::Cache::archives": directory / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::sourcelist": directory / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": directory / "status",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    call([*apt, "update"], timeout=300)
    fetch = ("install", "--yes", "--no-install-recommends", "--download-only")
    call([*apt, *fetch, *PACKAGES], timeout=600)
    archives = sorted((directory / "archives").glob("*.deb"))
    # The first one has the links from /bin and /lib to /usr.
    for archive in sorted(archives, key=lambda one: not one.name.startswith("base-files_")):
        call(["dpkg-deb", "--extract", str(archive), str(root)])
    (root / "etc/hosts").write_text(HOSTS, "ascii")
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)


def _unpack_python(root: Path, store: Path) -> None:
    """Fetch the locked packages for arm64, checked against their hashes, and unpack them."""
    store.mkdir()
    version = next((root / "usr/lib").glob("python3.*")).name.removeprefix("python")
    listed = entries("requirements-build.lock") | entries("requirements.lock")
    tools = entries("requirements-dev.lock")
    listed |= {name: tools[name] for name in TOOLS}
    (store / "source").write_text(listed.pop(FROM_SOURCE), "utf-8")
    (store / "wheels").write_text("\n".join(listed.values()), "utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    target = str(root / LIBRARIES / f"python{version}/dist-packages")
    install = [
        *(*pip, "install", "--no-deps", "--no-compile", "--target", target),
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={version}"),
        *(f"--platform={tag}_aarch64" for tag in _TAGS),
    ]
    hashed = ("--require-hashes", "-r")
    call([*install, *hashed, str(store / "wheels")], timeout=300)
    fetch = ("download", "--no-deps", "--no-build-isolation", "--dest", str(store))
    call([*pip, *fetch, *hashed, str(store / "source")], timeout=120)
    (packed,) = store.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(root / "srv", filter="data")
    directory = f"/srv/{packed.name.removesuffix('.tar.gz')}"
    build = command(root, "env", "-C", directory, "python3", "-c", _BUILD)
    call(build, timeout=600)
    (wheel,) = (root / "srv").glob("*.whl")
    call([*install, "--no-index", str(wheel)])
    # Compiling it warns, which is an error in tests.
    compiler = ("-W", "ignore", "-m", "compileall", "-q", target.removeprefix(str(root)) + "/iptc")
    call(command(root, "python3", *compiler), timeout=600)


def entries(lock: str) -> dict[str, str]:
    """Return the entries of a lock file, with their hashes, by the names of the packages."""
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", "\0")
    lines = [line.replace("\0", "\\\n") for line in text.splitlines() if "==" in line]
    return {line.partition("==")[0]: line for line in lines}


def _copy_project(target: Path) -> None:
    """Copy what belongs to the project, what git knows or would add, into a repository there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():  # not removed since
            shutil.copy(ROOT / name, target / name)
    author = ("-c", "user.name=Tests", "-c", "user.email=tests@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*author, "commit", "-q", "-m", "All")):
        call(["git", "-C", str(target), *words])
