"""A root of the lab that is signed, with the names of a test in it (package ldnsutils)."""

from dataclasses import dataclass
from pathlib import Path

from tests.lab.process import run

_HEAD = ". 60 IN SOA a. a. 1 3600 3600 86400 60\n. 60 IN NS a.\na. 60 IN A 192.0.2.1\n"


@dataclass(frozen=True)
class SignedRoot:
    """`zone` is the file of the signed zone, `anchor` that of its public key."""

    zone: Path
    anchor: Path


def signed_root(directory: Path, names: dict[str, str], forged: dict[str, str]) -> SignedRoot:
    """Sign a root with `names`, then give each of `forged` its address without a new signature."""
    plain = directory / "root"
    plain.write_text(_HEAD + "".join(f"{it}. 60 IN A {names[it]}\n" for it in names), "ascii")
    words = ["ldns-keygen", "-k", "-a", "ECDSAP256SHA256", "."]
    key = directory / run(["env", "-C", str(directory), *words]).strip()
    run(["ldns-signzone", str(plain), str(key)])
    zone = plain.with_suffix(".signed")
    lines = zone.read_text("ascii").splitlines(keepends=True)
    zone.write_text("".join(_forged(line, names, forged) for line in lines), "ascii")
    return SignedRoot(zone, key.with_name(f"{key.name}.key"))


def _forged(line: str, names: dict[str, str], forged: dict[str, str]) -> str:
    """Return a line of the zone, with the other address if it is that of a forged name."""
    name = line.split("\t", maxsplit=1)[0].rstrip(".")
    if name in forged and "\tA\t" in line:
        return line.replace(names[name], forged[name])
    return line
