"""What users, their files and their programs depend on, read from the code; each thing is a line.

A line is `kind subject` or `kind subject: detail`. docs/compatibility.md defines what is in it;
`tests/unit/test_public_surface.py` compares the lines with those of the last time, surface.txt.
"""

import ast
import re
import signal
import tomllib
from argparse import ArgumentParser, _HelpAction, _SubParsersAction
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import get_args

from pydantic import PlainValidator

from gateway.cli import _parser
from gateway.commands import exit_codes
from gateway.commands.check.advice import Advice
from gateway.commands.check.command import _for_programs
from gateway.commands.check.service import Service
from gateway.commands.check.trial import try_variables
from gateway.commands.verify.lines import Line
from gateway.daemon import patience
from gateway.errors import Notice, Problem, Weight
from gateway.model import Endpoint, Secret
from gateway.model.control import every_route
from gateway.policy.diagnosis import Cause
from gateway.policy.history import History, Sample, Transition
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.reload import Answer, Fault, Outcome
from gateway.policy.report import Hole, HoleKind, Status
from gateway.policy.reports import ResolverReport
from gateway.policy.states import Reason, State
from gateway.policy.tried import Tried
from gateway.providers.catalog import _BY_NAME, CUSTOM
from gateway.providers.server import Server
from gateway.services.health.board import describe, describe_history
from gateway.services.health.metrics import _Collector
from gateway.services.health.server import PATHS
from gateway.settings import places
from gateway.settings.fields import _SWITCHES
from gateway.settings.names import known as upstreams
from gateway.settings.schema import FIELDS, Settings, names_of
from gateway.settings.sourced import Kind, Origin, Refused, Sourced
from gateway.settings.sources import FILE_VARIABLES, SECRETFILE
from tests.configurations import COMPLETE
from tests.events import events

PROJECT = Path(__file__).resolve().parents[1]

CODE = re.compile(r"`([^`]+)`")
WORD = re.compile(r"[a-z]+")
PLACE = re.compile(
    r"/(?:config|gluetun|run|var/lib|etc/(?:wireguard|hosts|resolv\.conf)|dev/net)(?:/[\w.*-]+)*"
)
"""Files and directories that a user mounts, reads or shares."""
NONSENSE = "zzz"
"""A word that a variable with words of its own refuses."""

FULL = Status(
    1.0,
    "connected",
    healthy=True,
    reason=Reason.ANSWERS,
    since=0.0,
    endpoints=(Endpoint(ip_address("203.0.113.7"), 51820),),
    candidates=(Tried("203.0.113.7:51820", "se-1", 0.0, Reason.ANSWERS, 0.1, 0.1),),
    handshake_age=1.0,
    mtu=1420,
    path_mtu=1420,
    verified_age=1.0,
    reload=Answer(0.0, Outcome.REFUSED, ("X",), ("Y",), (Fault("X", "wrong"),), 1),
    limits=(Limit(LimitCode.NO_NAMES, "text", "remedy"),),
    holes=(Hole(HoleKind.LAN, ("192.168.1.0/24",), is_open=True),),
    resolver=ResolverReport("1.1.1.1"),
)
"""A status with every field."""


def surface(words: Collection[str] = ()) -> list[str]:
    """Return all lines in their order; `words` are further ones that a variable may accept."""
    return [
        *sorted(variables(words)),
        *sorted(f"provider {name}" for name in (CUSTOM, *_BY_NAME)),
        *sorted(f"resolver {name}" for name in upstreams()),
        *sorted(f"path {place}" for place in paths()),
        *programs(),
        *sorted(commands(_parser(), ())),
        *sorted(
            f"exit {value}: {name}" for name, value in vars(exit_codes).items() if name.isupper()
        ),
        *(f"signal {signal.Signals(one).name}" for one in patience.STOP_SIGNALS),
        f"signal {signal.Signals(patience.RELOAD_SIGNAL).name}",
        *sorted(f"address {path}" for path in PATHS),
        *sorted(f"control {route}" for route in every_route()),
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


def answers() -> Iterator[str]:
    """Yield the fields of each JSON answer with their types."""
    yield from in_json("health", describe(FULL, 1.0))
    begun = Transition(0.0, "connected", healthy=True, reason=Reason.ANSWERS, detail="x")
    past = History((begun,), (Sample(0.0, 1.0, 1, 1),))
    yield from in_json("history", describe_history(past, 0.0))
    line = {field.name: field.type() for field in fields(Line) if isinstance(field.type, type)}
    yield from in_json("verify", {"ok": True, "trials": [line]})
    checked = replace(
        try_variables(COMPLETE),
        problems=(Problem("X", "wrong"),),
        notices=(Notice(Weight.INFO, "X", "odd"),),
        advice=Advice(Service("gateway", {})),
    )
    yield from in_json("check", _for_programs(checked))
    yield from (f"json servers: [].{field.name}" for field in fields(Server))


def in_json(answer: str, value: object, path: str = "") -> Iterator[str]:
    """Yield `path` and what is below it, except for maps whose names are data."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from in_json(answer, below, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list | tuple) and value:
        yield from in_json(answer, value[0], f"{path}[]")
    if path and not path.endswith("]"):
        yield f"json {answer}: {path}, {json_type(value)}"


def json_type(value: object) -> str:
    """Return what JSON calls the type of `value`."""
    kinds = {bool: "boolean", int: "number", float: "number", list: "list", tuple: "list"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "") or (
        "object" if isinstance(value, Mapping) else "null" if value is None else "string"
    )


def codes() -> Iterator[str]:
    """Yield the codes of answers and metrics, which programs compare."""
    yield from (f"code {kind.__name__.lower()}: state" for kind in get_args(State))
    for kind, name in (
        (Reason, "reason_code"),
        (Cause, "diagnosis"),
        (LimitCode, "limit"),
        (HoleKind, "hole"),
        (Outcome, "outcome of a reload"),
    ):
        yield from (f"code {one}: {name}" for one in kind)


def metrics() -> Iterator[str]:
    """Yield each metric as it is served, with its type and the names of its labels."""
    for family in _Collector(FULL, History(), 1.0, healthy=True).collect():
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type)
        yield f"metric {name or family.name}: {family.type}"
        labels = getattr(family, "_labelnames", ())
        found = {*labels, *(label for sample in family.samples for label in sample.labels)}
        yield from (f"metric {name or family.name}: label {label}" for label in found)


def log_events() -> Iterator[str]:
    """Yield each event of the log with its levels and its fields."""
    for event, (levels, names) in events().items():
        yield from (f"event {event}: level {level}" for level in levels)
        yield from (f"event {event}: field {name}" for name in names)
