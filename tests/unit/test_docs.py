"""The documents and the tests say the same."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
TESTS = PROJECT / "tests"
GOLDEN = sorted(p for p in (TESTS / "golden").iterdir() if p.suffix in {".ipt4", ".ipt6", ".nft"})

UNPROMISED = {"loopback", "the rest"}
"""The comments of rules without a promise, which docs/security.md explains."""

ENTRY = re.compile(r"^\*\*[^*]+\*\*", re.MULTILINE)
SHOWN = re.compile(r"^\*(?!\*)[^*]+\*$", re.MULTILINE)
"""How an entry of docs/known-issues.md begins, and what it says last."""

TEST_FILE = re.compile(r"(?:unit|promises|docker)/test_\w+\.py")


def listed() -> dict[str, set[str]]:
    """Return the promises in docs/security.md by number, with the files of their tests."""
    text = (DOCS / "security.md").read_text("utf-8")
    paragraphs = text.split("\n\n")
    numbers = [(at, re.match(r"\*\*(P\d+) ", it)) for at, it in enumerate(paragraphs)]
    return {
        number[1]: set(re.findall(r"`([^`]+)`", paragraphs[at + 1]))
        for at, number in numbers
        if number and paragraphs[at + 1].startswith("Tests: ")
    }


def promised() -> set[str]:
    """Return the numbers of the promises in docs/security.md."""
    text = (DOCS / "security.md").read_text("utf-8")
    return set(re.findall(r"^\*\*(P\d+) ", text, re.MULTILINE))


@cache
def proven() -> dict[str, set[str]]:
    """Return the numbers that a test claims to prove, by its marker, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "promise":
                for argument in node.args:
                    number = str(ast.literal_eval(argument))
                    found.setdefault(number, set()).add(str(path.relative_to(TESTS)))
    return found


def test_every_promise_has_a_test() -> None:
    """A promise that nothing proves is a hope."""
    assert promised() - proven().keys() == set()


def test_every_test_of_a_promise_proves_one_that_is_made() -> None:
    """A number that security.md does not have is a slip."""
    assert proven().keys() - promised() == set()


def test_every_promise_names_the_files_of_its_tests_and_no_others() -> None:
    """Whoever doubts a promise finds what tries to break it."""
    assert listed() == proven()


def test_every_rule_names_a_promise_that_is_made() -> None:
    """The comments that the kernel shows can be looked up."""
    text = "".join(path.read_text("utf-8") for path in GOLDEN)
    whys = {quoted or word for quoted, word in re.findall(r'comment (?:"([^"]+)"|(\w+))', text)}
    assert whys >= UNPROMISED
    strange = {why for why in whys - UNPROMISED if why.split()[0] not in promised()}
    assert not strange
    assert all(f"`{why}`" in (DOCS / "security.md").read_text("utf-8") for why in UNPROMISED)


def test_every_rule_says_why() -> None:
    """Rules stand behind -A for iptables, and beside the line with its hook in a chain of nft."""
    for path in GOLDEN:
        lines = path.read_text("utf-8").splitlines()
        rules = [
            line for line in lines if line.startswith(("-A ", "\t\t")) and " hook " not in line
        ]
        assert rules, path
        assert [line for line in rules if "comment " not in line] == [], path


def test_every_known_issue_names_what_shows_it_or_says_why_nothing_does() -> None:
    """An entry is followed by one short line, and the tests in it are there."""
    paragraphs = (DOCS / "known-issues.md").read_text("utf-8").strip().split("\n\n")
    entries = [at for at, text in enumerate(paragraphs) if ENTRY.match(text)]
    assert entries
    for at in entries:
        said = paragraphs[at + 1] if at + 1 < len(paragraphs) else ""
        assert SHOWN.fullmatch(said), paragraphs[at]
        files = TEST_FILE.findall(said)
        assert files or said.startswith("*No test"), said
        sources = "".join((TESTS / file).read_text("utf-8") for file in files)
        for test in re.findall(r"`(test_\w+)`", said):
            assert f"def {test}(" in sources, test


def test_every_limit_names_tests_that_are_there_or_says_why_none_is() -> None:
    """The last column of the table: tests by name, a file of tests, or the word none."""
    text = (DOCS / "limits.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows
    sources = "".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    for row in rows:
        shown = row[-1].strip(" |")
        names = re.findall(r"`(test_\w+)`", shown)
        assert names or shown.startswith("none: ") or TEST_FILE.search(shown), row[0]
        assert [name for name in names if f"def {name}(" not in sources] == []
        assert all((TESTS / file).exists() for file in TEST_FILE.findall(shown)), row[0]


def test_the_architecture_has_a_place_for_every_module() -> None:
    """A room is named by its directory, a module outside of one by its file."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    gateway = PROJECT / "gateway"
    names = [
        f"`gateway/{path.name}/`" for path in gateway.iterdir() if (path / "__init__.py").exists()
    ]
    alone = {path.name for path in gateway.glob("*.py")} - {"__init__.py"}
    read_first = {
        path.name
        for room in ("policy", "commands/verify")
        for path in (gateway / room).glob("*.py")
        if path.name != "__init__.py"
    }
    told = {name.rpartition("/")[2] for name in re.findall(r"`([\w/]+\.py)`", text)}
    assert [name for name in names if name not in text] == []
    assert (alone | read_first) - told == set()


def test_the_files_that_the_architecture_names_are_there() -> None:
    """Nobody looks for a file that has gone."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    there = {path.name for path in (PROJECT / "gateway").rglob("*.py")}
    there |= {path.name for path in TESTS.rglob("*.py")}
    named = {name.rpartition("/")[2] for name in re.findall(r"`([\w/]+\.py)`", text)}
    assert named - there == set()


@pytest.mark.parametrize(
    "path", [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name
)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Whoever follows a link finds a file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_every_script_that_the_readme_names_is_there() -> None:
    """The first commands that a stranger types work."""
    text = (PROJECT / "README.md").read_text("utf-8")
    for script in set(re.findall(r"scripts/([a-z-]+)", text)):
        assert (PROJECT / "scripts" / script).is_file(), script
