"""Which breaks are proven, so that a run breaks what is new or changed, and a tenth of the rest.

    python -m tests.breaking.campaign --prove --case ipv4|ipv6|hold

breaks all that are chosen, and writes the ledger of that case.

A ledger has a hash of each module of the gateway and of this harness as they were when it was
written, and the breaks that were proven with them: phase, maker, call, what became of it, and the
text of the gateway's line that made the call. No line number, so code may move within its file.

A break is proven as long as its words are in the ledger and no module has changed on which it
depends. Which are these? What a break leads to is decided by what was done before it, and by what
handles the failure, which may be in another task and so not on the stack. So it depends on each
module of the gateway of which any function had run by then; on each of which none runs in a good
run, because it holds constants, types, or what is for emergencies; and on this harness, with the
programs of the lab that judge. Only what is not part of a running gateway is left out: SEPARATE.
Comments, docstrings and layout do not count. A change of the core so has nearly all broken again,
and that is right; one of `gateway verify`, of a document or of another test has none.

What it can hide: a change of a handler in a module of which nothing had run until the break, but
something does later in a good run; a change of a library, of the kernel or of a program (nft,
wireguard-go). For these there are the tenth, drawn from the commit, and LAB_BREAKS=all.
An empty ledger proves nothing: all that are chosen are broken.
"""

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HARNESS = ("tests/breaking/*.py", "tests/lab/*.py", "tests/promises/witness.py")
SEPARATE = ("gateway/commands/",)
"""What begins like this runs in a process of its own, with or without the gateway."""
SHARE = 10
"""One of so many proven breaks is done again at each commit."""


@dataclass(frozen=True)
class Ledger:
    """The breaks that are proven, and the hash of each module with which they were."""

    proven: frozenset[str] = frozenset()
    modules: dict[str, str] = field(default_factory=dict)

    def is_due(self, words: str, files: Iterable[str], commit: str) -> bool:
        """Return whether a break that depends on `files` is to be done at `commit`."""
        if words not in self.proven:
            return True
        if any(self.modules.get(name) != meaning(PROJECT / name) for name in files):
            return True
        digest = hashlib.sha256(f"{commit} {words}".encode()).digest()
        return int.from_bytes(digest[:4]) % SHARE == 0


NOTHING_PROVEN = Ledger()


def path_of(case: str) -> Path:
    """Return where the ledger of the breaks of `case` is, by its name."""
    return Path(__file__).with_name(f"ledger-{case}.txt")


def harness() -> frozenset[str]:
    """Return the files of the harness, on which every break depends."""
    found = (path for pattern in HARNESS for path in PROJECT.glob(pattern))
    return frozenset(str(path.relative_to(PROJECT)) for path in found)


def of_the_gateway() -> frozenset[str]:
    """Return the files of the gateway itself."""
    found = (str(path.relative_to(PROJECT)) for path in (PROJECT / "gateway").rglob("*.py"))
    return frozenset(name for name in found if not name.startswith(SEPARATE))


def read(path: Path) -> Ledger:
    """Return the ledger at `path`, an empty one where there is none."""
    if not path.exists():
        return NOTHING_PROVEN
    lines = path.read_text(encoding="utf-8").splitlines()
    modules = [line.split() for line in lines if line.startswith("module ")]
    proven = frozenset(line.removeprefix("proven ") for line in lines if line.startswith("proven "))
    return Ledger(proven, {name: meant for _, name, meant in modules})


def write(path: Path, proven: Iterable[str]) -> None:
    """Write the ledger at `path`: what is proven with the code as it is now."""
    names = sorted(of_the_gateway() | harness())
    lines = [
        "# Written by `python -m tests.breaking.campaign --prove`; see ledger.py.",
        *(f"module {name} {meaning(PROJECT / name)}" for name in names),
        *(f"proven {words}" for words in sorted(proven)),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@cache
def meaning(path: Path) -> str:
    """Return a hash of what a Python file does: without comments, docstrings and layout.

    Nothing where there is no such file.
    """
    if not path.exists():
        return ""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def source_of(place: str) -> str:
    """Return the text of the innermost line of a place, `file:line < file:line`, with its file."""
    name, _, number = place.partition(" < ")[0].rpartition(":")
    if not name:
        return ""
    lines = _lines(PROJECT / "gateway" / name)
    at = int(number)
    return f"{name} `{lines[at - 1].strip()}`" if 0 < at <= len(lines) else name


@cache
def _lines(path: Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8").splitlines()
