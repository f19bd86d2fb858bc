"""Copy the files of Debian packages into the root of an image that has nothing else.

    python3 collect.py [--on ROOT] TARGET PACKAGE...

Runs while the image is built, where the packages are installed. TARGET gets the files of each
PACKAGE and of what it depends on, with what their installation has made, without what is listed in
left_out.toml, without scripts for shells, and with nothing that differs between two builds.
/var/lib/dpkg/status.d names the packages: scanners of images read it. With --on, TARGET is a layer
on the root ROOT, and lacks what is there. Fails with the file's name when a program would lack a
library.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Final

PARTS: Final[Mapping[str, Sequence[str]]] = {
    "base-files": (
        *("/bin", "/etc/debian_version", "/etc/host.conf", "/etc/os-release", "/home", "/lib"),
        *("/lib64", "/root", "/run", "/sbin", "/tmp", "/usr/lib/os-release"),  # noqa: S108 - the image's
        *("/usr/share/common-licenses", "/var"),
    ),
    "openssl": ("/etc/ssl", "/usr/lib/ssl"),
    "util-linux": ("/usr/bin/setpriv",),
}
"""Packages of which only these places are wanted, and nothing that they depend on."""

NEEDED: Final = ("libcap-ng0",)
"""What those parts depend on: setpriv's library."""

_LISTS: Final = tomllib.loads(Path(__file__).with_name("left_out.toml").read_text("utf-8"))
LEFT_OUT: Final = frozenset(name for names in _LISTS["packages"].values() for name in names)
UNUSED: Final = re.compile("|".join(one for many in _LISTS["files"].values() for one in many))
STAND_INS: Final[Mapping[str, str]] = {"/usr/sbin/unbound": "libpython"}
"""Programs, and the library in whose place the Dockerfile puts another one of the same name."""

MADE: Final = (
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime"),
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
)
"""What the installation of packages has made, and what programs read."""

ALTERNATIVES: Final = Path("/etc/alternatives")
STATUS: Final = "var/lib/dpkg/status.d"

_SHELLS: Final = re.compile(rb"#! *(?:/usr)?/bin/(?:env +)?(?:ba|da)?sh\b|#! *.*\bperl\b")
_ELF: Final = b"\x7fELF"


def installed() -> dict[str, Message]:
    """Return what dpkg knows of each installed package, by name."""
    status = Path("/var/lib/dpkg/status").read_text("utf-8").split("\n\n")
    stanzas = [message_from_string(text) for text in status if text.strip()]
    return {one["Package"]: one for one in stanzas if one["Status"].endswith(" installed")}


def closure(wanted: Iterable[str], known: Mapping[str, Message]) -> set[str]:
    """Return the packages with what they depend on. Raises SystemExit for one that is missing."""
    provided: dict[str, str] = {}
    for name, stanza in known.items():
        for virtual in re.findall(r"[\w.+-]+(?= \(|,|$)", stanza["Provides"] or ""):
            provided.setdefault(virtual, name)
    found: set[str] = set()
    ahead = [*wanted]
    while ahead:
        name = ahead.pop()
        if name in found or name in LEFT_OUT:
            continue
        if name not in known:
            raise SystemExit(f"the package {name} is not installed where the image is made")
        found.add(name)
        if name in PARTS:
            continue
        fields = (known[name]["Depends"], known[name]["Pre-Depends"])
        for group in ",".join(filter(None, fields)).split(","):
            options = re.findall(r"(?:^|\|)\s*([\w.+-]+)", group)
            chosen = [provided.get(one, one) for one in options if one in {*known, *provided}]
            # Either the first that is installed, or none: then it was left out on purpose.
            ahead.extend(chosen[:1])
    return found


def files_of(package: str, architecture: str) -> list[str]:
    """Return the paths of a package that the image gets, where links to directories lead."""
    lists = Path("/var/lib/dpkg/info")
    plain = lists / f"{package}.list"
    listing = plain if plain.exists() else lists / f"{package}:{architecture}.list"
    paths = listing.read_text("utf-8").splitlines()
    places = PARTS.get(package, ("/",))
    licence = f"/usr/share/doc/{package}"
    kept = [
        path
        for path in paths
        if any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)
        or path.startswith(licence)
    ]
    return [real(path) for path in kept if not UNUSED.match(path) and is_wanted(Path(path))]


def real(path: str) -> str:
    """Return a path with the links among its directories followed, and itself not."""
    parent, _, name = path.rpartition("/")
    return str(Path(os.path.realpath(parent or "/"), name)) if name else "/"


def is_wanted(path: Path) -> bool:
    """Return whether a file is there, and not a script for a shell or for Perl."""
    if not os.path.lexists(path):
        return False  # excluded by dpkg's own configuration, as documentation is
    if path.is_symlink() or not path.is_file():
        return True
    with path.open("rb") as file:
        return not _SHELLS.match(file.readline(200))


def alternatives(present: Collection[str]) -> list[str]:
    """Return the links of update-alternatives(1) whose programs are present."""
    links = []
    for directory in ("/usr/bin", "/usr/sbin"):
        for link in sorted(Path(directory).iterdir()):
            if not link.is_symlink() or UNUSED.match(str(link)):
                continue
            if link.readlink().parent == ALTERNATIVES and os.path.realpath(link) in present:
                links += [str(link), str(link.readlink())]
    return links


def dangling(paths: Collection[str]) -> set[str]:
    """Return the links among `paths` whose targets stay out of the image."""
    present = {os.path.realpath(path) for path in paths if not Path(path).is_symlink()}
    links = (path for path in paths if Path(path).is_symlink() and not Path(path).is_dir())
    return {path for path in links if os.path.realpath(path) not in present}


def missing_libraries(paths: Iterable[str], present: Collection[str]) -> list[str]:
    """Return what programs and libraries among `paths` would load that is not present."""
    binaries = [path for path in paths if is_elf(Path(path))]
    printed = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    program, lacking = next(iter(binaries), ""), []  # of one alone, ldd does not say the name
    for line in printed.splitlines():
        if not line.startswith("\t"):
            program = line.rstrip(":")
            continue
        if program in STAND_INS and line.strip().startswith(STAND_INS[program]):
            continue
        loaded = re.search(r"(/\S+) \(0x", line)
        if "not found" in line or (loaded and os.path.realpath(loaded[1]) not in present):
            lacking.append(f"{program}: {line.strip()}")
    return lacking


def is_elf(path: Path) -> bool:
    """Return whether a file is a program or a library."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == _ELF


def copy(paths: Iterable[str], target: Path) -> None:
    """Copy files with their directories, owners, modes and times."""
    target.mkdir(parents=True, exist_ok=True)
    names = sorted({str(parent) for path in paths for parent in (Path(path), *Path(path).parents)})
    text = "\0".join(f".{name}" for name in names)
    pack = ["tar", "-C", "/", "--no-recursion", "--null", "-T", "-", "-cf", "-"]
    packed = subprocess.run(pack, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-C", str(target), "-xpf", "-"], input=packed, check=True)


def describe(packages: Iterable[str], known: Mapping[str, Message], target: Path) -> None:
    """Write what dpkg knows of the packages, one file each, as scanners of images read it."""
    directory = target / STATUS
    directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(packages):
        text = "".join(f"{key}: {value}\n" for key, value in known[name].items())
        (directory / name).write_text(text, "utf-8")


def main(arguments: Sequence[str]) -> None:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", type=Path, metavar="ROOT")
    parser.add_argument("target", type=Path)
    parser.add_argument("packages", nargs="+")
    given = parser.parse_args(arguments)
    known = installed()
    packages = closure([*given.packages, *NEEDED], known)
    below = {path.name for path in (given.on / STATUS).iterdir()} if given.on else set()
    architecture = known["libc6"]["Architecture"]
    every = {path for name in packages for path in files_of(name, architecture)}
    every.update(path for path in MADE if Path(path).exists())
    every.update(alternatives(every))
    every -= dangling(every)
    if lacking := missing_libraries(sorted(every), {os.path.realpath(path) for path in every}):
        raise SystemExit("the image would lack libraries:\n" + "\n".join(lacking))
    if given.on is not None:
        every &= {path for name in packages - below for path in files_of(name, architecture)}
    copy(every, given.target)
    describe(packages - below, known, given.target)


if __name__ == "__main__":
    main(sys.argv[1:])
