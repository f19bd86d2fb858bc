"""What users, their files and their programs depend on, read from the code; each thing is a line.

A line is `kind subject` or `kind subject: detail`. docs/compatibility.md defines what is in it;
`tests/unit/test_public_surface.py` compares the lines with those of the last time, surface.txt.
"""

import ast
import json
import re
import signal
import tomllib
from argparse import ArgumentParser, _HelpAction, _SubParsersAction
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pydantic import PlainValidator

from gateway.cli import _parser
from gateway.commands import exit_codes
from gateway.daemon import patience
from gateway.model import Secret
from gateway.providers.catalog import _BY_NAME, CUSTOM
from gateway.services.health.server import PATHS
from gateway.settings import places
from gateway.settings.fields import _SWITCHES
from gateway.settings.names import known as upstreams
from gateway.settings.schema import FIELDS, Settings, names_of
from gateway.settings.sourced import Kind, Origin, Refused, Sourced
from gateway.settings.sources import FILE_VARIABLES, SECRETFILE
from tests.events import events
from tests.surface_answers import answers, api, codes, metrics

PROJECT = Path(__file__).resolve().parents[1]

CODE = re.compile(r"`([^`]+)`")
WORD = re.compile(r"[a-z]+")
PLACEHOLDER = re.compile(r"{{\w+}}")
PLACE = re.compile(
    r"/(?:config|gluetun|run|var/lib|etc/(?:wireguard|hosts|resolv\.conf)|dev/net)(?:/[\w.*-]+)*"
)
"""Files and directories that a user mounts, reads or shares."""
NONSENSE = "zzz"
"""A word that a variable with words of its own refuses."""


def surface(words: Collection[str] = ()) -> list[str]:
    """Return all lines in their order; `words` are further ones that a variable may accept."""
    return [
        *sorted(variables(words)),
        *sorted(f"provider {name}" for name in (CUSTOM, *_BY_NAME)),
        *sorted(f"resolver {name}" for name in upstreams()),
        *sorted(f"path {place}" for place in paths()),
        *programs(),
        *sorted(image()),
        *sorted(templates()),
        *sorted(commands(_parser(), ())),
        *sorted(
            f"exit {value}: {name}" for name, value in vars(exit_codes).items() if name.isupper()
        ),
        *(f"signal {signal.Signals(one).name}" for one in patience.STOP_SIGNALS),
        f"signal {signal.Signals(patience.RELOAD_SIGNAL).name}",
        *sorted(f"address {path}" for path in PATHS),
        *sorted(api()),
        *sorted(answers()),
        *sorted(codes()),
        *sorted(metrics()),
        *sorted(log_events()),
    ]


def variables(words: Collection[str]) -> Iterator[str]:
    """Yield each variable with its older names, what it is when not set, and its own words."""
    described = [(Settings.model_fields[name].description or "") + unset(name) for name in FIELDS]
    known = {word for word in (*words, *CODE.findall(" ".join(described))) if WORD.fullmatch(word)}
    for field in FIELDS:
        current, *older = names_of(field)
        yield f"variable {current}"
        yield from (f"variable {current}: older name {name}" for name in older)
        yield from (
            f"variable {current}: not set means {code}" for code in CODE.findall(unset(field))
        )
        replaced = PLACEHOLDER.findall(Settings.model_fields[field].description or "")
        yield from (f"variable {current}: {word}" for word in sorted({*replaced}))
        if not accepts(field, NONSENSE):
            own = {*known, *_SWITCHES} if accepts(field, "on") else known
            yield from (f"variable {current}: {word}" for word in own if accepts(field, word))
    yield from (f"variable {name}{SECRETFILE}" for name in FILE_VARIABLES)


def unset(field: str) -> str:
    """Return what the documentation says of a variable that is not set."""
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, Mapping)
    return str(extra["unset"])


def accepts(field: str, text: str) -> bool:
    """Return whether the parser of a field takes `text`."""
    (parse,) = (
        one.func for one in Settings.model_fields[field].metadata if isinstance(one, PlainValidator)
    )
    origin = Origin("a test", field.upper(), Kind.VARIABLE)
    return not isinstance(parse(Sourced(Secret(text), origin)), Refused)  # type: ignore[call-arg]


def paths() -> set[str]:
    """Return the files and directories that the gateway's modules name, except for its tools."""
    found = set(places.PLACES)
    for module in (PROJECT / "gateway").rglob("*.py"):
        if not {"commands", "lock"} & set(module.parts):
            found |= {
                node.value
                for node in ast.walk(ast.parse(module.read_text("utf-8")))
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and PLACE.fullmatch(node.value)
            }
    return found


def programs() -> Iterator[str]:
    """Yield the programs that an installation has."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    yield from (f"program {name}" for name in sorted(project["scripts"]))


def commands(parser: ArgumentParser, path: tuple[str, ...]) -> Iterator[str]:
    """Yield each command with its arguments, its options, and the words that they take."""
    name = " ".join(("gateway", *path))
    yield f"command {name}"
    for action in parser._actions:  # noqa: SLF001 - argparse has no other list of them
        if isinstance(action, _HelpAction):
            continue
        if isinstance(action, _SubParsersAction):
            for word, below in action.choices.items():
                yield from commands(below, (*path, word))
            continue
        values = "" if action.nargs == 0 else " VALUE"
        for option in action.option_strings or [f"argument {action.dest}"]:
            kind = f"option {option}{values}" if option.startswith("-") else option
            required = " (required)" if action.required else ""
            yield f"command {name}: {kind}{required}"
            yield from (f"command {name}: {kind}, {word}" for word in action.choices or ())


def image() -> Iterator[str]:
    """Yield what compose files, units, manifests and scripts repeat of the image, or ask it for."""
    text = (PROJECT / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    (check,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])", text, re.MULTILINE)
    yield f"image health check: {' '.join(json.loads(check))}"
    for kind, pattern in (
        ("label", r"(org\.opencontainers[\w.]+)="),
        ("target", r"^FROM gateway AS (\w+)"),
        ("stop signal", r"^STOPSIGNAL (\w+)"),
    ):
        yield from (f"image {kind}: {it}" for it in re.findall(pattern, text, re.MULTILINE))
    page = (PROJECT / "docs" / "image.md").read_text("utf-8")
    taken = {*re.findall(r"^ARG (\w+)=", text, re.MULTILINE)}
    documented = {*re.findall(r"--build-arg (\w+)=", page)}
    yield from (f"image build argument: {it}" for it in taken & documented)


def templates() -> Iterator[str]:
    """Yield what users copy from docs, or refer to there, and the commands of the script."""
    docs = PROJECT / "docs"
    for path in (*(docs / "host").iterdir(), *(docs / "podman").iterdir()):
        yield f"template {path.relative_to(docs)}"
    for path in (docs / "kubernetes").rglob("kustomization.yaml"):
        yield f"template {path.parent.relative_to(docs)}"
    script = (docs / "host" / "portcullis-netns").read_text("utf-8")
    (usage,) = re.findall(r'^usage="usage: (.*)"$', script, re.MULTILINE)
    words = [it.split()[0] for it in usage.removeprefix("portcullis-netns ").split(" | ")]
    yield from (f"template host/portcullis-netns: {word}" for word in words)
    names = re.findall(r"^([A-Z_]+)=\${\1:-", script, re.MULTILINE)
    yield from (f"template host/portcullis-netns: variable {name}" for name in names)


def log_events() -> Iterator[str]:
    """Yield each event of the log with its levels and its fields."""
    for event, (levels, names) in events().items():
        yield from (f"event {event}: level {level}" for level in levels)
        yield from (f"event {event}: field {name}" for name in names)
