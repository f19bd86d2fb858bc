"""The health answer as `gateway verify` uses it.

Any workload can listen on the port while the gateway is not running, so each field is checked for
its kind, and a field of another kind counts as missing.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address

from gateway.model import Endpoint, Protocol
from gateway.model.frozen import frozen
from gateway.model.lease import MOST_LEASES, Lease

HIGHEST_PORT = 65535


@frozen
class Answer:
    """The fields of GET /healthz that matter here; docs/health.md explains them.

    `verified_age` is in seconds, None if the gateway never found the kernel as wanted. `limits` are
    texts with their codes, for people.
    """

    state: str = ""
    healthy: bool = False
    reason: str = ""
    reason_code: str = ""
    verified_age: float | None = None
    drift: int = 0
    firewall: str = ""
    guard: bool = True
    has_resolver: bool = True
    endpoints: tuple[Endpoint, ...] = ()
    listen_port: int | None = None
    leases: tuple[Lease, ...] = ()
    limits: tuple[str, ...] = ()


def answer_from(body: Mapping[str, object]) -> Answer:
    """Return the answer whose JSON object is `body`.

    An answer without `guard` counts as one of a gateway with a guard, and so does one without
    `resolver`: that is the stricter check.
    """
    age, drift, port = (body.get(name) for name in ("verified_age", "drift", "listen_port"))
    return Answer(
        state=_text(body.get("state")),
        healthy=body.get("healthy") is True,
        reason=_text(body.get("reason")),
        reason_code=_text(body.get("reason_code")),
        verified_age=age if isinstance(age, int | float) else None,
        drift=drift if isinstance(drift, int) else 0,
        firewall=_text(body.get("firewall")),
        guard=body.get("guard") is not False,
        has_resolver=body.get("resolver", True) is not None,
        endpoints=tuple(_endpoints(body.get("endpoints"))),
        listen_port=port if isinstance(port, int) and 0 < port <= HIGHEST_PORT else None,
        leases=tuple(_leases(body.get("forwarded_ports")))[:MOST_LEASES],
        limits=tuple(_limits(body.get("limits"))),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _endpoints(value: object) -> Iterator[Endpoint]:
    for each in value if isinstance(value, list) else ():
        match each:
            case {"address": str(address), "port": int(port)}:
                with suppress(ValueError):
                    yield Endpoint(ip_address(address), port)
            case _:
                pass


def _leases(value: object) -> Iterator[Lease]:
    """Yield the forwarded ports, whose end is not known here, nor needed."""
    for each in value if isinstance(value, list) else ():
        match each:
            case {
                "port": int(port),
                "listening": int(listening),
                "arriving": int(arriving),
                "version": 4 | 6 as version,
                "protocols": list(protocols),
            } if all(0 < it <= HIGHEST_PORT for it in (port, listening, arriving)):
                known = tuple(Protocol(it) for it in protocols if it in list(Protocol))
                moved = None if arriving == listening else arriving
                yield Lease(port, listening, float("inf"), known, version, moved)
            case _:
                pass


def _limits(value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else ():
        match each:
            case {"code": str(code), "text": str(text), "remedy": str(remedy)}:
                yield f"{text}; {remedy} [{code}]"
            case _:
                pass
