"""The documents agree with the tests and the code."""

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
"""The beginning and the last line of an entry of docs/known-issues.md."""

TEST_FILE = re.compile(r"(?:unit|promises|docker|systemd)/test_\w+\.py")


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
    """No promise is without a test."""
    assert promised() - proven().keys() == set()


def test_every_test_of_a_promise_proves_one_that_is_made() -> None:
    """No test is marked with a number that security.md lacks."""
    assert proven().keys() - promised() == set()


def test_every_promise_names_the_files_of_its_tests_and_no_others() -> None:
    """A reader finds every test of a promise."""
    assert listed() == proven()


def test_every_rule_names_a_promise_that_is_made() -> None:
    """An operator can look up the comments that the kernel shows."""
    text = "".join(path.read_text("utf-8") for path in GOLDEN)
    whys = {quoted or word for quoted, word in re.findall(r'comment (?:"([^"]+)"|(\w+))', text)}
    assert whys >= UNPROMISED
    strange = {why for why in whys - UNPROMISED if why.split()[0] not in promised()}
    assert not strange
    assert all(f"`{why}`" in (DOCS / "security.md").read_text("utf-8") for why in UNPROMISED)


IN_SET = ("\t\ttype inet_service", "\t\ttype ipv", "\t\tflags interval", "\t\telements = ")
IN_TREE = re.compile(r"-A ([A-Z]+-\d+)(?:-\d+)? .* -j \1-(?:\d+|rules)")


def test_every_rule_says_why() -> None:
    """A rule begins with -A for iptables; in a chain of nft it is a line without a hook.

    The lines inside the tree of a set do not: the one that leads into it and those behind it do.
    """
    for path in GOLDEN:
        lines = path.read_text("utf-8").splitlines()
        rules = [
            line
            for line in lines
            if line.startswith(("-A ", "\t\t"))
            and " hook " not in line
            and not line.startswith(IN_SET)
            and not IN_TREE.fullmatch(line)
        ]
        assert rules, path
        assert [line for line in rules if "comment " not in line] == [], path


def test_every_known_issue_names_what_shows_it_or_says_why_nothing_does() -> None:
    """An entry is followed by one short line, and the tests in it are there."""
    paragraphs = (DOCS / "known-issues.md").read_text("utf-8").strip().split("\n\n")
    entries = [at for at, text in enumerate(paragraphs) if ENTRY.match(text)]
    assert entries
    for at in entries:
        last = paragraphs[at + 1] if at + 1 < len(paragraphs) else ""
        assert SHOWN.fullmatch(last), paragraphs[at]
        files = TEST_FILE.findall(last)
        assert files or last.startswith("*No test"), last
        sources = "".join((TESTS / file).read_text("utf-8") for file in files)
        for test in re.findall(r"`(test_\w+)`", last):
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
    """A package by its directory, a module at the top by its file."""
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
    named = {name.rpartition("/")[2] for name in re.findall(r"`([\w/]+\.py)`", text)}
    assert [name for name in names if name not in text] == []
    assert (alone | read_first) - named == set()


def test_the_files_that_the_architecture_names_are_there() -> None:
    """No name on the page is out of date."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    there = {path.name for path in (PROJECT / "gateway").rglob("*.py")}
    there |= {path.name for path in TESTS.rglob("*.py")}
    named = {name.rpartition("/")[2] for name in re.findall(r"`([\w/]+\.py)`", text)}
    assert named - there == set()


def test_the_paths_through_the_code_name_what_is_there() -> None:
    """Each name on the page is defined in the file that it links to."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    named = re.findall(r"`(\w+)` in\s\[`[^`]+`\]\(\.\./(gateway/[\w/]+\.py)\)", text)
    assert len(named) >= 7
    for name, path in named:
        source = (PROJECT / path).read_text("utf-8")
        assert re.search(rf"^ *(?:def|class) {name}\b", source, re.MULTILINE), (name, path)


def test_the_readme_links_every_promise_to_a_test_of_it() -> None:
    """The link says the number, and the file that it opens proves that promise."""
    text = (PROJECT / "README.md").read_text("utf-8")
    links = re.findall(r"\[(P\d+)\]\(tests/([\w/]+\.py)\)", text)
    assert {number for number, _ in links} == promised()
    assert [(number, file) for number, file in links if file not in proven()[number]] == []


@pytest.mark.parametrize(
    "path",
    [*sorted(PROJECT.glob("*.md")), *sorted(DOCS.glob("*.md"))],
    ids=lambda path: path.name,
)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Every link opens a file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_every_file_that_the_recipes_name_is_there() -> None:
    """Paths in code spans; a bare name is in the folder of a path before it."""
    text = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`([\w.]+(?:/[\w.-]+)+\.(?:py|md|in))`", text)
    assert paths
    assert [path for path in paths if not (PROJECT / path).is_file()] == []
    folders = {(PROJECT / path).parent for path in paths}
    for name in re.findall(r"`(\w+\.py)`", text):
        assert any((folder / name).is_file() for folder in folders), name


def test_every_script_that_the_readme_names_is_there() -> None:
    """The first commands of a new user work."""
    text = (PROJECT / "README.md").read_text("utf-8")
    for script in set(re.findall(r"scripts/([a-z-]+)", text)):
        assert (PROJECT / "scripts" / script).is_file(), script
