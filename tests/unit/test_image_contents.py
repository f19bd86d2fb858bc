"""What is chosen for the image, and how its contents are listed, on small made-up packages."""

import json
import os
import sys
import tomllib
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from scripts.image import collect, contents

FOLDER = Path(collect.__file__).parent
VERSION = "0.9.0"
MOMENT = 1767225600
GO = """\
Package: tunnel
Version: 1:0.5+b1
Architecture: amd64
Maintainer: Go Packaging Team <team@example.org>
Source: golang-tunnel (1:0.5)
Static-Built-Using: golang-1.24 (= 1.24.4-1), golang-x-net (= 1:0.27~1)
"""
LIBRARY = """\
Package: libstdc++6
Version: 14.2
Architecture: amd64
Maintainer: A Person <person@example.org>
"""
PROJECT = f"Metadata-Version: 2.4\nName: portcullis\nVersion: {VERSION}\nLicense-Expression: MIT\n"
FREE = "Metadata-Version: 2.1\nName: Some.Thing_x\nVersion: 2\nLicense: as you like\n"


def made(folder: Path) -> tuple[Path, Path]:
    """Write the metadata of two packages of each kind, and return the prefix and the root."""
    root, prefix = folder / "root", folder / "prefix"
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for name, text in (("tunnel", GO), ("libstdc++6", LIBRARY)):
        (status / name).write_text(text, "utf-8")
    for name, text in (("portcullis", PROJECT), ("some", FREE)):
        place = prefix / f"lib/python3.13/site-packages/{name}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(text, "utf-8")
    return prefix, root


def test_a_list_is_valid_and_names_every_package(tmp_path: Path) -> None:
    """Characters that a purl or SPDX does not allow are written as they want them."""
    prefix, root = made(tmp_path)
    document: Any = contents.document(prefix, [root], MOMENT)
    path = tmp_path / "sbom.spdx.json"
    path.write_text(json.dumps(document), "utf-8")
    assert validate_full_spdx_document(parse_file(str(path))) == []
    purls = {one["externalRefs"][0]["referenceLocator"] for one in document["packages"]}
    assert purls == {
        f"pkg:generic/portcullis@{VERSION}",
        "pkg:pypi/some-thing-x@2",
        "pkg:deb/debian/tunnel@1%3A0.5%2Bb1?arch=amd64&distro=debian-13",
        "pkg:deb/debian/libstdc%2B%2B6@14.2?arch=amd64&distro=debian-13",
        "pkg:deb/debian/golang-1.24@1.24.4-1?arch=source&distro=debian-13",
        "pkg:deb/debian/golang-x-net@1%3A0.27~1?arch=source&distro=debian-13",
    }
    kinds = [one["relationshipType"] for one in document["relationships"]]
    assert (kinds.count("CONTAINS"), kinds.count("STATIC_LINK")) == (3, 2)
    by_name = {one["name"]: one for one in document["packages"]}
    assert by_name["tunnel"]["supplier"] == "Organization: Go Packaging Team (team@example.org)"
    assert by_name["libstdc++6"]["supplier"] == "Person: A Person (person@example.org)"
    assert by_name["portcullis"]["licenseDeclared"] == "MIT"
    assert by_name["some-thing-x"]["licenseDeclared"] == "NOASSERTION"


def test_a_list_depends_on_the_contents_alone(tmp_path: Path) -> None:
    """Another version leads to another name of the document; the same contents to the same."""
    prefix, root = made(tmp_path)
    first, second = (contents.document(prefix, [root], MOMENT) for _ in range(2))
    assert first == second
    (root / "var/lib/dpkg/status.d/tunnel").write_text(GO.replace("0.5", "0.6"), "utf-8")
    third = contents.document(prefix, [root], MOMENT)
    assert third["documentNamespace"] != first["documentNamespace"]


def known(*stanzas: str) -> dict[str, Message]:
    """Return packages as dpkg knows them."""
    read = map(message_from_string, stanzas)
    return {one["Package"]: one for one in read}


def test_what_a_package_depends_on_comes_along() -> None:
    """Of alternatives the one that is installed; what only installation needs is left out."""
    packages = known(
        "Package: resolver\nDepends: adduser, a (>= 2) | b, mail-agent\nPre-Depends: c:any\n",
        "Package: b\nDepends: d\n",
        "Package: c\n",
        "Package: d\n",
        "Package: postfix\nProvides: mail-agent\n",
        "Package: adduser\nDepends: passwd\n",
        "Package: passwd\n",
        "Package: other\n",
    )
    found = collect.closure(["resolver"], packages)
    assert found == {"resolver", "b", "c", "d", "postfix"}


def test_of_a_part_of_a_package_nothing_else_comes_along() -> None:
    """Of util-linux one program is wanted; the library that it needs is named apart."""
    packages = known("Package: util-linux\nDepends: libmount1\n", "Package: libmount1\n")
    assert collect.closure(["util-linux"], packages) == {"util-linux"}


def test_a_package_that_is_not_installed_stops_the_build() -> None:
    """Its name is in the message."""
    with pytest.raises(SystemExit, match="the package tinyproxy is not installed"):
        collect.closure(["tinyproxy"], {})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/usr/share/doc/nftables/copyright", True),
        ("/usr/share/doc/nftables/changelog.gz", False),
        ("/usr/share/dns/root.key", True),
        ("/usr/share/man/man8/nft.8.gz", False),
        ("/usr/bin/python3.13", True),
        ("/usr/bin/py3compile", False),
        ("/usr/sbin/unbound", True),
        ("/usr/sbin/unbound-control", False),
        ("/usr/lib/python3.13/asyncio/tasks.py", True),
        ("/usr/lib/python3.13/test/support/os_helper.py", False),
        ("/usr/lib/python3.13/unittest/mock.py", False),
        ("/usr/lib/python3.13/sqlite3/dbapi2.py", False),
        ("/usr/lib/python3.13/turtle.py", False),
        ("/usr/lib/python3.13/encodings/utf_8.py", True),
        ("/usr/lib/python3.13/encodings/gb18030.py", False),
        ("/usr/lib/python3.13/lib-dynload/_ssl.cpython-313-aarch64-linux-gnu.so", True),
        ("/usr/lib/python3.13/lib-dynload/_testcapi.cpython-313-aarch64-linux-gnu.so", False),
        ("/usr/lib/aarch64-linux-gnu/libc.so.6", True),
        ("/usr/lib/aarch64-linux-gnu/gconv/UTF-16.so", False),
        ("/etc/ssl/openssl.cnf", True),
        ("/etc/init.d/unbound", False),
    ],
)
def test_what_no_program_reads_is_left_out(path: str, *, wanted: bool) -> None:
    """Licences are not documentation that can be left out."""
    assert bool(collect.UNUSED.match(path)) is not wanted


def test_each_thing_that_is_left_out_is_written_once() -> None:
    """Patterns are whole paths from the root, and no package is wanted elsewhere."""
    lists = tomllib.loads((FOLDER / "left_out.toml").read_text("utf-8"))
    for kind in ("packages", "files"):
        names = [name for many in lists[kind].values() for name in many]
        assert len(names) == len({*names})
        assert all(name.startswith("/") for name in names) is (kind == "files")
    assert not collect.LEFT_OUT & {*collect.PARTS, *collect.NEEDED}


def test_a_library_that_a_program_lacks_is_named_unless_another_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of that program alone, and of no other library of it."""
    program = os.path.realpath(sys.executable)
    lacking = collect.missing_libraries([program], set())
    assert lacking
    assert all(line.startswith(f"{program}: ") for line in lacking)
    first = lacking[0].removeprefix(f"{program}: ").split()[0]
    monkeypatch.setattr(collect, "STAND_INS", {program: first, str(tmp_path): "libc"})
    others = collect.missing_libraries([program], set())
    assert [line.split()[1] for line in others] == [line.split()[1] for line in lacking[1:]]


def test_a_script_for_a_shell_is_left_out(tmp_path: Path) -> None:
    """The image has no tools that it could call. Python's own scripts and programs stay."""
    lines = {
        "one": b"#!/bin/sh\n",
        "two": b"#! /usr/bin/env bash\n",
        "three": b"#!/usr/bin/perl -w\n",
        "four": b"#!/usr/bin/python3\n",
        "five": b"\x7fELF\x02",
    }
    for name, line in lines.items():
        (tmp_path / name).write_bytes(line)
    assert [name for name in lines if collect.is_wanted(tmp_path / name)] == ["four", "five"]
    assert not collect.is_wanted(tmp_path / "excluded-by-dpkg")


def test_links_to_what_is_left_out_are_left_out(tmp_path: Path) -> None:
    """Of those that stay, each leads to a file of the image or to a directory."""
    (tmp_path / "kept").write_text("", "ascii")
    (tmp_path / "left").write_text("", "ascii")
    for name, target in (("good", "kept"), ("bad", "left"), ("folder", ".")):
        (tmp_path / name).symlink_to(target)
    paths = {str(tmp_path / name) for name in ("kept", "good", "bad", "folder")}
    assert collect.dangling(paths) == {str(tmp_path / "bad")}


def test_scanners_read_what_dpkg_knows(tmp_path: Path) -> None:
    """One stanza in a file for each package, with its fields as they were."""
    collect.describe(["tunnel"], known(GO), tmp_path)
    assert (tmp_path / collect.STATUS / "tunnel").read_text("utf-8") == GO
