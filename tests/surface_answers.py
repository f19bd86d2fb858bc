"""What programs read in the answers of the gateway: fields, codes, metrics; each thing is a line.

A part of the public surface, see tests/surface.py.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

from gateway.commands.check.advice import Advice
from gateway.commands.check.command import _for_programs
from gateway.commands.check.service import Service
from gateway.commands.check.trial import try_variables
from gateway.commands.verify.lines import Line
from gateway.control.streams import SHOWN
from gateway.daemon.public_addresses import PublicAddresses
from gateway.errors import Notice, Problem, Weight
from gateway.model import Endpoint
from gateway.model.control import every_route
from gateway.model.lease import Lease
from gateway.model.place import HostPort
from gateway.model.proxies import HttpProxy, SocksProxy
from gateway.policy.diagnosis import Cause
from gateway.policy.history import History, Sample, Transition
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.orders import Effect
from gateway.policy.public_address import PublicAddress
from gateway.policy.reload import Answer, Fault, Outcome
from gateway.policy.report import Hole, HoleKind, Status
from gateway.policy.reports import ListReport, ResolverReport, ServiceReport
from gateway.policy.states import Reason, State
from gateway.policy.tried import Tried
from gateway.providers.server import Server
from gateway.services.control.events import Past
from gateway.services.control.service import NAME as CONTROL
from gateway.services.health.board import describe, describe_history
from gateway.services.health.metrics import _Collector
from gateway.services.port_client.service import PortPassing
from gateway.services.ports.service import NAME as PORTS
from gateway.services.proxies import kinds
from tests.configurations import COMPLETE

DOCUMENT = Path(__file__).resolve().parents[1] / "gateway" / "control" / "openapi.json"

FULL = Status(
    1.0,
    "connected",
    healthy=True,
    reason=Reason.ANSWERS,
    since=0.0,
    endpoints=(Endpoint(ip_address("203.0.113.7"), 51820),),
    listen_port=51820,
    addresses=("10.64.0.2/32",),
    candidates=(Tried("203.0.113.7:51820", "se-1", 0.0, Reason.ANSWERS, 0.1, 0.1),),
    handshake_age=1.0,
    mtu=1420,
    path_mtu=1420,
    verified_age=1.0,
    reload=Answer(0.0, Outcome.REFUSED, ("X",), ("Y",), (Fault("X", "wrong"),), 1),
    limits=(Limit(LimitCode.NO_NAMES, "text", "remedy"),),
    holes=(Hole(HoleKind.LAN, ("192.168.1.0/24",), is_open=True),),
    resolver=ResolverReport("1.1.1.1", lists=(ListReport("https://a.example", 1, 1),)),
    leases=(Lease(51820, 51820, 60.0),),
    services=(ServiceReport("control"),),
    public_ip=PublicAddress("203.0.113.8"),
)
"""A status with every field; maps are empty, because their names are data."""


def answers() -> Iterator[str]:
    """Yield the fields of each JSON answer with their types."""
    yield from in_json("health", describe(FULL, 1.0))
    yield from in_json("history", describe_history(past(), 0.0))
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
    yield from in_json("events", happened())


def past() -> History:
    """Return a history with one of each."""
    begun = Transition(0.0, "connected", healthy=True, reason=Reason.ANSWERS, detail="x")
    return History((begun,), (Sample(0.0, 1.0, 1, 1),))


def happened() -> dict[str, Any]:
    """Return each event of the control API by its name."""
    before = replace(FULL, leases=(), reload=None)
    said = dict(Past(History(), before).news(past(), FULL))
    shown = describe(FULL, 1.0)
    return {"state": {name: shown[name] for name in SHOWN}, **said}


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


def api() -> Iterator[str]:
    """Yield each route of the control API, with what it takes and answers by its document."""
    yield from (f"control {route}" for route in every_route())
    document = json.loads(DOCUMENT.read_text("utf-8"))
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            route = f"control {method.upper()} {path}"
            takes = {"takes": described["requestBody"]} if "requestBody" in described else {}
            for what, content in (takes | described["responses"]).items():
                if "$ref" not in content:
                    yield from contents(document, content, f"{route}: {what}")
    for name, content in document["components"]["responses"].items():
        yield from contents(document, content, f"control a refusal: {name}")


def contents(document: Any, content: Any, what: str) -> Iterator[str]:
    """Yield the media types of a body, and the properties of what is in it."""
    for kind, form in content["content"].items():
        yield f"{what}, {kind}"
        yield from (f"{what}, {line}" for line in schema_lines(document, form["schema"], ""))


def schema_lines(document: Any, schema: Any, path: str) -> Iterator[str]:
    """Yield each property of a JSON schema: its type, its words, whether it is always there."""
    schema = resolved(document, schema)
    if path and "type" in schema:
        yield f"{path} ({schema['type']})"
    words = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    yield from (f"{path}, {word}" for word in words)
    yield from (f"{path}.{name}, always there".lstrip(".") for name in schema.get("required", ()))
    for name, below in schema.get("properties", {}).items():
        yield from schema_lines(document, below, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from schema_lines(document, schema["items"], f"{path}[]")


def resolved(document: Any, value: Any) -> Any:
    """Return what a reference leads to, and anything else as it is."""
    while "$ref" in value:
        place, value = value["$ref"], document
        for name in place.removeprefix("#/").split("/"):
            value = value[name]
    return value


def service_names() -> tuple[str, ...]:
    """Return what reports and metrics call the optional services."""
    place = HostPort("127.0.0.1", 1080)
    of_proxies = (kinds.http(HttpProxy(place)), kinds.socks(SocksProxy(place)))
    others = (CONTROL, PORTS, PortPassing.name, PublicAddresses.name)
    return (*(kind.name for kind in of_proxies), *others)


def codes() -> Iterator[str]:
    """Yield the codes of answers and metrics, which programs compare."""
    yield from (f"code {kind.__name__.lower()}: state" for kind in get_args(State))
    for kind, name in (
        (Reason, "reason_code"),
        (Cause, "diagnosis"),
        (LimitCode, "limit"),
        (HoleKind, "hole"),
        (Outcome, "outcome of a reload"),
        (Effect, "outcome of an order"),
    ):
        yield from (f"code {one}: {name}" for one in kind)
    yield from (f"code {one}: service" for one in service_names())


def metrics() -> Iterator[str]:
    """Yield each metric as it is served, with its type and the names of its labels."""
    for family in _Collector(FULL, History(), 1.0, healthy=True).collect():
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type)
        yield f"metric {name or family.name}: {family.type}"
        labels = getattr(family, "_labelnames", ())
        found = {*labels, *(label for sample in family.samples for label in sample.labels)}
        yield from (f"metric {name or family.name}: label {label}" for label in found)
