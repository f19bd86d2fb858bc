"""The documents and the tests say the same."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"


def promised() -> set[str]:
    """Return the numbers of the promises in docs/security.md."""
    text = (DOCS / "security.md").read_text("utf-8")
    return set(re.findall(r"^\*\*(P\d+) ", text, re.MULTILINE))


def proven() -> set[str]:
    """Return the numbers that a test claims to prove, by its marker."""
    found: set[str] = set()
    for path in (PROJECT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "promise":
                found |= {str(ast.literal_eval(argument)) for argument in node.args}
    return found


def test_every_promise_has_a_test() -> None:
    """A promise that nothing proves is a hope."""
    assert promised() - proven() == set()


def test_every_test_of_a_promise_proves_one_that_is_made() -> None:
    """A number that security.md does not have is a slip."""
    assert proven() - promised() == set()


def test_every_rule_names_a_promise_that_is_made() -> None:
    """The comments that the kernel shows can be looked up."""
    named: set[str] = set()
    for path in (PROJECT / "gateway" / "policy").glob("*.py"):
        named |= set(re.findall(r'why="(P\d+) |"(?:P\d+) ', path.read_text("utf-8")))
    assert {name for name in named if name} <= promised()


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
