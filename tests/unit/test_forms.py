"""The issue forms, SECURITY.md and docs/upgrading.md: they ask for what exists."""

import re
from argparse import _SubParsersAction
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import _parser

PROJECT = Path(__file__).resolve().parents[2]
FORMS = PROJECT / ".github" / "ISSUE_TEMPLATE"
NAMES = ("bug", "proposal")
CALL = re.compile(
    r"^(?:docker (?:compose )?(?:exec|run) .*)?"
    r"\b(?:gateway|portcullis) ((?:--)?[a-z]+)((?: --[a-z-]+)*)"
)
"""A command of the gateway, run in a container or not, with its options."""


def form(name: str) -> dict[str, Any]:
    """Return a form."""
    read: dict[str, Any] = yaml.safe_load((FORMS / f"{name}.yml").read_text("utf-8"))
    return read


def fields(name: str) -> dict[str, Mapping[str, Any]]:
    """Return the fields of a form by their id."""
    return {one["id"]: one for one in form(name)["body"] if one["type"] != "markdown"}


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the gateway in the code of a text, with its options."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(r"```sh\n.*?```", "", text, flags=re.DOTALL))
    for line in [*"\n".join(blocks).splitlines(), *(" ".join(span.split()) for span in spans)]:
        for command, options in CALL.findall(line):
            yield command, options.split()


def test_every_form_is_known_and_none_can_be_left_out() -> None:
    """An issue without a form would have no report."""
    assert {path.stem for path in FORMS.iterdir()} == {*NAMES, "config"}
    assert form("config") == {"blank_issues_enabled": False}


@pytest.mark.parametrize("name", NAMES)
def test_a_form_has_what_the_forge_requires(name: str) -> None:
    """A form with an error is left out silently there."""
    read = form(name)
    assert {"name", "description", "body"} <= read.keys()
    ids = [one["id"] for one in read["body"] if one["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    for one in read["body"]:
        assert one["type"] in {"markdown", "textarea", "dropdown", "checkboxes", "input"}
        assert one["attributes"].get("label" if one["type"] != "markdown" else "value")


def test_a_report_has_the_output_of_doctor_and_the_log() -> None:
    """Both are required; keys are asked for nowhere."""
    asked = fields("bug")
    for name in ("doctor", "log"):
        assert asked[name]["validations"]["required"]
    assert (
        "`docker compose exec gateway gateway doctor`"
        in asked["doctor"]["attributes"]["description"]
    )
    assert "doctor" in fields("proposal")
    assert asked["read"]["attributes"]["options"][0]["required"]


def test_leaks_are_sent_to_the_private_way_first() -> None:
    """The first thing that the form says, and the first that SECURITY.md does."""
    first = form("bug")["body"][0]
    assert first["type"] == "markdown"
    assert "SECURITY.md" in first["attributes"]["value"]
    page = (PROJECT / "SECURITY.md").read_text("utf-8")
    assert page.index("private vulnerability reporting") < page.index("## Versions")
    assert re.search(r"\S+@\S+", page) is None


def test_the_layouts_are_those_of_the_page() -> None:
    """In its words."""
    page = (PROJECT / "docs" / "layouts.md").read_text("utf-8")
    (head,) = re.findall(r"^\| \| (.*) \|$", page, re.MULTILINE)
    options = fields("bug")["layout"]["attributes"]["options"]
    named = {option.partition(":")[0] for option in options if ":" in option}
    assert named == set(head.split(" | "))


@pytest.mark.parametrize(
    "path",
    [
        *(FORMS / f"{name}.yml" for name in NAMES),
        PROJECT / "SECURITY.md",
        PROJECT / "docs/upgrading.md",
    ],
    ids=lambda path: path.name,
)
def test_every_command_that_is_asked_for_exists(path: Path) -> None:
    """With its options."""
    (below,) = (one for one in _parser()._actions if isinstance(one, _SubParsersAction))  # noqa: SLF001 - no other way
    text = (
        "\n".join(map(str, yaml_texts(path))) if path.suffix == ".yml" else path.read_text("utf-8")
    )
    found = list(calls(text))
    assert found
    for command, options in found:
        if command == "--version":
            continue
        assert command in below.choices, command
        known = below.choices[command].format_help()
        assert [option for option in options if option not in known] == [], command


def yaml_texts(path: Path) -> Iterator[str]:
    """Yield each text of a YAML file, unfolded."""
    rest: list[Any] = [yaml.safe_load(path.read_text("utf-8"))]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            yield one
        else:
            rest += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
