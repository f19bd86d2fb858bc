"""Write what an image contains as SPDX 2.3 in JSON.

    python3 contents.py PREFIX ROOT... > sbom.spdx.json

Runs while the image is built. PREFIX has the gateway and its Python packages. Each ROOT has
Debian's packages in /var/lib/dpkg/status.d, as collect.py writes them. Programs in Go are linked
with sources of other packages, which Debian notes as Static-Built-Using; they are listed, too,
because a flaw in one of them is a flaw in the program. The text depends on the contents and
SOURCE_DATE_EPOCH alone. Format: https://spdx.github.io/spdx-spec/v2.3/
"""

import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Final
from urllib.parse import quote

PROJECT: Final = "portcullis"
NONE: Final = "NOASSERTION"
DOCUMENT: Final = "SPDXRef-DOCUMENT"
PROJECT_ID: Final = f"SPDXRef-{PROJECT}"

Package = dict[str, object]
Relation = dict[str, str]


def fields_of(path: Path) -> Message:
    """Return the fields of a file in the form of RFC 822, as dpkg and pip write it."""
    return message_from_string(path.read_text("utf-8"))


def package(kind: str, name: str, version: str, purl: str, **known: str) -> Package:
    """Return a package of SPDX; `known` replaces what is said of licence and supplier."""
    identity = re.sub(r"[^\w.-]|_", "-", f"{kind}-{name}-{version}", flags=re.ASCII)
    return {
        "SPDXID": PROJECT_ID if kind == PROJECT else f"SPDXRef-{identity}",
        "name": name,
        "versionInfo": version,
        "supplier": NONE,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        **known,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }
        ],
    }


def debian(name: str, version: str, architecture: str, **known: str) -> Package:
    """Return a package of Debian, whose purl names the release that its flaws are listed for."""
    kind = "debsource" if architecture == "source" else "deb"
    purl = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?arch={architecture}"
    return package(kind, name, version, f"{purl}&distro=debian-13", **known)


def supplier(maintainer: str) -> dict[str, str]:
    """Return who Debian names as the maintainer, as SPDX writes persons and teams."""
    found = re.fullmatch(r"\s*(.+?)\s*<([^<>]+)>\s*", maintainer)
    if found is None:
        return {}
    kind = (
        "Organization"
        if re.search(r"team|group|maintainers", found[1], re.IGNORECASE)
        else "Person"
    )
    return {"supplier": f"{kind}: {found[1]} ({found[2]})"}


def debian_packages(roots: Iterable[Path]) -> Iterator[tuple[Package, Sequence[Package]]]:
    """Yield Debian's packages, each with the sources that are linked into it."""
    paths = [path for root in roots for path in (root / "var/lib/dpkg/status.d").iterdir()]
    for path in sorted(paths, key=lambda one: one.name):
        stanza = fields_of(path)
        name, version = stanza["Package"], stanza["Version"]
        known = supplier(stanza["Maintainer"] or "")
        source = re.fullmatch(r"\s*(\S+)(?: \((\S+)\))?\s*", stanza["Source"] or name)
        if source:
            known["sourceInfo"] = f"built from: {source[1]} {source[2] or version}"
        linked = stanza["Static-Built-Using"] or stanza["Built-Using"] or ""
        yield (
            debian(name, version, stanza["Architecture"], **known),
            [
                debian(other, exactly, "source")
                for other, exactly in re.findall(r"(\S+) \(= ([^)\s]+)\)", linked)
            ],
        )


def python_packages(prefix: Path) -> Iterator[Package]:
    """Yield the packages of the Python package index, and the gateway itself."""
    for path in sorted(prefix.glob("lib/python3*/site-packages/*.dist-info/METADATA")):
        stanza = fields_of(path)
        name = re.sub(r"[-_.]+", "-", stanza["Name"]).lower()
        version = stanza["Version"]
        known = {}
        # Only an expression is sure to be one; the older field is free text.
        if expression := stanza["License-Expression"]:
            known["licenseDeclared"] = expression
        if name == PROJECT:
            yield package(PROJECT, name, version, f"pkg:generic/{name}@{version}", **known)
        else:
            yield package("pypi", name, version, f"pkg:pypi/{name}@{quote(version)}", **known)


def relation(one: object, kind: str, other: object) -> Relation:
    """Return how two elements of the document are related."""
    return {
        "spdxElementId": str(one),
        "relationshipType": kind,
        "relatedSpdxElement": str(other),
    }


def document(prefix: Path, roots: Sequence[Path], moment: int) -> Mapping[str, object]:
    """Return the whole document; `moment` is in seconds since 1970."""
    python = list(python_packages(prefix))
    packages = {str(one["SPDXID"]): one for one in python}
    relations = [relation(DOCUMENT, "DESCRIBES", PROJECT_ID)]
    relations += [relation(PROJECT_ID, "CONTAINS", one) for one in packages if one != PROJECT_ID]
    for found, linked in debian_packages(roots):
        packages[str(found["SPDXID"])] = found
        relations.append(relation(PROJECT_ID, "CONTAINS", found["SPDXID"]))
        for one in linked:
            packages.setdefault(str(one["SPDXID"]), one)
            relations.append(relation(found["SPDXID"], "STATIC_LINK", one["SPDXID"]))
    version = packages[PROJECT_ID]["versionInfo"]
    contents = json.dumps([*packages.values(), relations], sort_keys=True)
    identity = uuid.uuid5(uuid.NAMESPACE_URL, contents)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": f"{PROJECT}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{PROJECT}-{version}-{identity}",
        "creationInfo": {
            "created": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: {PROJECT}-contents-{version}"],
        },
        "packages": list(packages.values()),
        "relationships": relations,
    }


if __name__ == "__main__":
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    json.dump(document(Path(sys.argv[1]), [*map(Path, sys.argv[2:])], epoch), sys.stdout, indent=1)
    sys.stdout.write("\n")
