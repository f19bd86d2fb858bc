"""The public address: what is taken of answers, when it is looked up, and how it is configured."""

import asyncio
import errno
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.check.explain import explain
from gateway.daemon import public_addresses
from gateway.daemon.public_addresses import FIRST_PAUSE, LEAST_PAUSE, LONGEST_PAUSE, PublicAddresses
from gateway.daemon.services import Tools, services_of
from gateway.errors import ConfigError, NetworkError
from gateway.model import Address, Config, Errand, Secret, Tunnel
from gateway.model.lease import Connection
from gateway.model.public_ip import FILE, AddressApi, ApiKind, PublicIp
from gateway.policy.public_address import (
    LONGEST_TEXT,
    PublicAddress,
    from_lines,
    in_lines,
    place_of,
    taken,
)
from gateway.policy.states import Query, Transfer
from gateway.policy.upstreams import OURS
from gateway.providers.countries import NAMES
from gateway.providers.entries import Entry
from gateway.services.fetching.lists import AnswerError
from gateway.services.fetching.public_address import AddressFetcher
from gateway.settings import assemble
from gateway.settings.public_ip import DEFAULT
from gateway.system import process
from gateway.system.netns import OWN
from tests.configurations import COMPLETE, problems, put, reported
from tests.lab.tls import Authority, serve
from tests.scenarios import IPV4_ONLY, RESOLVING_HOLES

HOST = "localhost"
ADDRESS = "203.0.113.7"
WHOLE = PublicAddress(
    ADDRESS, "Netherlands", "North Holland", "Amsterdam", "a.example", "Example Hosting", "Europe/A"
)
ANSWERS: dict[ApiKind, dict[str, object]] = {
    ApiKind.IPINFO: {
        "ip": ADDRESS,
        "country": "NL",
        "region": "North Holland",
        "city": "Amsterdam",
        "hostname": "a.example",
        "org": "Example Hosting",
        "timezone": "Europe/A",
        "loc": "52.37,4.88",
    },
    ApiKind.IFCONFIG_CO: {
        "ip": ADDRESS,
        "country": "Netherlands",
        "region_name": "North Holland",
        "city": "Amsterdam",
        "hostname": "a.example",
        "asn_org": "Example Hosting",
        "time_zone": "Europe/A",
        "latitude": 52.37,
    },
    ApiKind.IP2LOCATION: {
        "ip": ADDRESS,
        "country_code": "NL",
        "country_name": "Netherlands",
        "region_name": "North Holland",
        "city_name": "Amsterdam",
        "as": "Example Hosting",
        "time_zone": "Europe/A",
    },
    ApiKind.CLOUDFLARE: {
        "clientIp": ADDRESS,
        "country": "NL",
        "region": "North Holland",
        "city": "Amsterdam",
        "hostname": "a.example",
        "asOrganization": "Example Hosting",
        "asn": 1,
    },
}
ANSWERS[ApiKind.ECHOIP] = ANSWERS[ApiKind.IFCONFIG_CO]
LACKS = {
    ApiKind.IP2LOCATION: {"hostname": ""},
    ApiKind.CLOUDFLARE: {"timezone": ""},
}


def taken_of(kind: ApiKind, answer: object) -> PublicAddress:
    """Return what is taken of an answer."""
    return taken(kind, Entry(answer).text, NAMES)


@pytest.mark.parametrize("kind", ApiKind)
def test_each_form_of_answer_is_understood(kind: ApiKind) -> None:
    """A code of a country becomes its name; what a service does not say is empty."""
    found = taken_of(kind, ANSWERS[kind])
    assert found == replace(WHOLE, **LACKS.get(kind, {}))
    assert from_lines(in_lines(found)) == found
    assert place_of(found) == "Amsterdam, North Holland, Netherlands"
    assert taken_of(kind, {**dict.fromkeys(ANSWERS[kind], 7), **_address(kind, "::FFFF")}) == (
        PublicAddress("::ffff")
    )


def _address(kind: ApiKind, text: object) -> dict[str, object]:
    return {"clientIp" if kind is ApiKind.CLOUDFLARE else "ip": text}


@pytest.mark.parametrize(
    "text", [None, 7, "", "here", "203.0.113.7/32", "fe80::1%eth0", "1.2.3.4\n5", ["1.1.1.1"]]
)
def test_an_answer_without_an_address_is_none(text: object) -> None:
    """No other field is taken then."""
    with pytest.raises(ValueError, match="the answer has no address"):
        taken_of(ApiKind.IPINFO, ANSWERS[ApiKind.IPINFO] | {"ip": text})


@given(st.dictionaries(st.sampled_from(sorted(ANSWERS[ApiKind.IPINFO])), st.text()))
def test_texts_are_short_and_printable(texts: Mapping[str, str]) -> None:
    """So that they do no harm to a terminal, a log or a page, and survive the way to the parent."""
    found = taken_of(ApiKind.IPINFO, texts | {"ip": ADDRESS})
    for text in found.__dict__.values():
        assert text.isprintable()
        assert len(text) <= LONGEST_TEXT
    assert from_lines(in_lines(found)) == found


@given(st.text() | st.lists(st.text(), min_size=7, max_size=7).map("\n".join))
def test_what_the_process_hands_over_is_not_trusted(text: str) -> None:
    """It has read what a host has sent."""
    try:
        found = from_lines(text)
    except ValueError:
        return
    assert all(it.isprintable() and len(it) <= LONGEST_TEXT for it in found.__dict__.values())


# -- the process ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(trusted: Authority) -> Path:
    """Return the host's certificate from it."""
    return trusted.issue(HOST)


def ask(
    trusted: Authority, port: int, kind: ApiKind = ApiKind.IPINFO, **changes: object
) -> PublicAddress:
    """Ask a service at a port. Raises GatewayError."""

    async def run() -> PublicAddress:
        process.reap_orphans()
        environ = {"SSL_CERT_FILE": str(trusted.certificate)}
        fetcher = AddressFetcher(environ, OWN, device="lo")
        api = AddressApi("", HOST, "/json", port, kind=kind, **changes)  # type: ignore[arg-type]
        fetcher.open(api, ip_address("127.0.0.1"))
        return await fetcher.ask(api)

    return asyncio.run(run())


def test_a_service_is_asked_by_a_process_of_its_own(trusted: Authority, certificate: Path) -> None:
    """Over TLS, with the token of the account."""
    with serve(certificate, json.dumps(ANSWERS[ApiKind.IPINFO]).encode()) as port:
        assert ask(trusted, port, token=Secret("canary")) == WHOLE


def test_a_token_in_a_query_may_have_any_character(trusted: Authority, certificate: Path) -> None:
    """One with a space would be no request, and one with `&` another token."""
    with serve(certificate, json.dumps(ANSWERS[ApiKind.IP2LOCATION]).encode()) as port:
        found = ask(trusted, port, ApiKind.IP2LOCATION, token=Secret("a b&c"))
    assert found.address == ADDRESS


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>Sign in</html>", "it is not JSON"),
        (b"[" * 10_000, "nested too deeply|it is not JSON"),
        (b"[]", "the answer has no address"),
        (b'{"ip": "here"}', "the answer has no address"),
        (b" " * (17 << 10), "larger than 16 KiB"),
        (b"\xff", "it is not UTF-8"),
    ],
    ids=["page", "deep", "list", "no address", "large", "octets"],
)
def test_an_answer_that_is_not_one_is_a_reason(
    trusted: Authority, certificate: Path, body: bytes, why: str
) -> None:
    """And nothing of it is quoted."""
    with serve(certificate, body) as port, pytest.raises(AnswerError, match=why) as caught:
        ask(trusted, port, token=Secret("canary"))
    assert "canary" not in str(caught.value)


# -- when -----------------------------------------------------------------------------------------

FIRST = AddressApi("", "one.example", "/json", kind=ApiKind.IPINFO)
SECOND = AddressApi("", "two.example", "/json", kind=ApiKind.CLOUDFLARE)
OTHER = replace(IPV4_ONLY, listen_port=7)


@dataclass
class World:
    """A resolver and services, with a clock that only sleep moves."""

    file: Path
    apis: tuple[AddressApi, ...] = (FIRST, SECOND)
    now: float = 1000.0
    answer: PublicAddress = WHOLE
    fails: dict[str, list[Exception]] = field(default_factory=dict)
    hangs: bool = False
    did: list[tuple[float, str]] = field(default_factory=list)
    resolver: Address | None = None
    config: Config = RESOLVING_HOLES

    @property
    def service(self) -> PublicAddresses:
        """What is tested."""
        found = PublicAddresses(PublicIp(self.apis, str(self.file)), self, self, lambda: self.now)
        found.adopt(self.config)
        return found

    def open(self, errand: Errand | None = None, server: Address | None = None) -> object:
        """Make a socket: for a question without arguments, else to a host."""
        if errand is None or server is None:
            return Query(ip_address("127.0.0.1"), 40000, 7)
        return Transfer(server, errand.port, 40001, 0)

    async def ask(self, what: object) -> object:
        """Look names up, or ask a service."""
        if isinstance(what, tuple):
            return dict.fromkeys(what, (ip_address("203.0.113.80"),))
        assert isinstance(what, AddressApi)
        self.did.append((self.now, what.host))
        if self.fails.get(what.host):
            raise self.fails[what.host].pop(0)
        if self.hangs:
            await asyncio.Event().wait()
        return self.answer


def run(
    service: PublicAddresses,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    *steps: Callable[[], bool],
) -> None:
    """Run the service until each step has returned true; sleep takes no time."""
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        world.now += seconds
        await real(0.001)

    async def live() -> None:
        task = asyncio.create_task(service.run())
        for step in steps:
            for _ in range(40000):
                await real(0.0005)
                if step():
                    break
            else:
                pytest.fail(f"never: {world.did}")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    monkeypatch.setattr(public_addresses.asyncio, "sleep", sleep)
    asyncio.run(live())


def connects(service: PublicAddresses, tunnel: Tunnel | None = IPV4_ONLY) -> Callable[[], bool]:
    """Return a step that has the tunnel up, or lost."""

    def step() -> bool:
        service.follow(Connection(tunnel) if tunnel else None)
        return True

    return step


def test_the_address_is_looked_up_once_for_each_connection_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has it as long as it is known; other leases are no other connection."""
    world = World(tmp_path / "gluetun" / "ip")
    service = world.service
    text = lambda: world.file.read_text() if world.file.exists() else None  # noqa: E731
    leases = Connection(IPV4_ONLY, ())

    def again() -> bool:
        service.follow(leases)
        assert (service.latest(), len(world.did)) == (WHOLE, 1)
        return True

    def lost() -> bool:
        service.follow(None)
        assert service.latest() is None
        return True

    run(
        service,
        world,
        monkeypatch,
        lambda: text() == "",
        connects(service),
        lambda: text() == f"{ADDRESS}\n",
        again,
        lost,
        lambda: text() == "",
        connects(service, OTHER),
        lambda: text() == f"{ADDRESS}\n",
    )
    assert [host for _, host in world.did] == [FIRST.host] * 2
    assert world.did[1][0] >= world.did[0][0] + LEAST_PAUSE
    report = service.report()
    assert (report.is_running, report.problem, report.starts) == (True, "", 2)
    assert text() == "", "it ends with the gateway"


def test_a_service_that_fails_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the list."""
    world = World(tmp_path / "ip", fails={FIRST.host: [AnswerError("HTTP 429", FIRST.host)]})
    service = world.service
    run(service, world, monkeypatch, connects(service), lambda: service.found is not None)
    assert [host for _, host in world.did] == [FIRST.host, SECOND.host]
    assert service.report().problem == ""


def test_failures_are_tried_again_later_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also across connections; the report has every reason."""
    refused = [AnswerError("HTTP 429", FIRST.host) for _ in range(12)]
    world = World(tmp_path / "ip", apis=(FIRST,), fails={FIRST.host: list(refused)})
    service = world.service
    problems: list[str] = []

    def failed() -> bool:
        problems.append(service.report().problem)
        return len(world.did) == 6

    run(
        service,
        world,
        monkeypatch,
        connects(service),
        failed,
        connects(service, None),
        connects(service, OTHER),
        lambda: service.found is not None,
    )
    assert "one.example: HTTP 429" in problems
    times = [at for at, _ in world.did]
    pauses = [round(later - sooner) for sooner, later in pairwise(times)]
    assert pauses[:4] == [FIRST_PAUSE * 2**n for n in range(4)]
    assert max(pauses) == LONGEST_PAUSE
    assert len(world.did) == 13


def test_a_look_up_ends_with_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer about the last one is not taken for the next."""
    world = World(tmp_path / "ip", hangs=True)
    service = world.service

    def hung() -> bool:
        return len(world.did) == 1

    def free() -> bool:
        world.hangs, world.answer = False, replace(WHOLE, address="203.0.113.8")
        return connects(service, OTHER)()

    run(
        service,
        world,
        monkeypatch,
        connects(service),
        hung,
        connects(service, None),
        lambda: service.found is None,
        free,
        lambda: service.found == world.answer,
    )
    assert len(world.did) == 2


def test_names_are_looked_up_by_the_workloads_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's own, or that of the tunnel; without one, the reason says so."""
    for config, tunnel, resolver in (
        (RESOLVING_HOLES, IPV4_ONLY, OURS),
        (Config((IPV4_ONLY,)), IPV4_ONLY, IPV4_ONLY.dns[0]),
    ):
        world = World(tmp_path / "ip", config=config)
        service = world.service
        run(service, world, monkeypatch, connects(service, tunnel), lambda s=service: bool(s.found))
        assert world.resolver == resolver


def test_a_file_that_cannot_be_written_is_reported_where_it_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is known all the same. A workload that shares the directory has made a link."""
    (tmp_path / "shared").symlink_to(tmp_path)
    world = World(tmp_path / "shared" / "ip")
    service = world.service
    run(service, world, monkeypatch, connects(service), lambda: service.found is not None)
    report = service.report()
    assert "cannot be written" in report.problem
    assert not (tmp_path / "ip").exists()
    assert "PUBLICIP_FILE" in report.remedy
    service = PublicAddresses(PublicIp((), FILE), world, world, time.monotonic)
    service._unwritten = "no"  # noqa: SLF001 - as on a system that is read-only
    assert service.report().problem == ""


def test_a_file_that_docker_has_mounted_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted file cannot be replaced by another one."""
    file = tmp_path / "ip"
    file.touch()
    inode = file.stat().st_ino
    world = World(file)
    service = world.service
    has_it = lambda: file.read_text() == f"{ADDRESS}\n"  # noqa: E731
    run(service, world, monkeypatch, connects(service), has_it)
    assert file.stat().st_ino == inode


def test_a_file_that_is_busy_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier write may still wait for a slow disk."""
    world = World(tmp_path / "ip")
    service = world.service
    real, busy = service._files.run, [0]  # noqa: SLF001

    async def run_aside(work: Callable[[], None], limit: float) -> None:
        busy[0] += 1
        if busy[0] % 3:
            raise NetworkError("the last attempt is still waiting", "x", errno.EBUSY)
        await real(work, limit)

    monkeypatch.setattr(service._files, "run", run_aside)  # noqa: SLF001
    run(
        service,
        world,
        monkeypatch,
        connects(service),
        lambda: world.file.exists() and world.file.read_text() == f"{ADDRESS}\n",
    )


# -- configuration --------------------------------------------------------------------------------


def loaded(root: Path, **environ: str) -> assemble.Loaded:
    """Return the configuration with these variables."""
    return assemble.load({**COMPLETE, **environ}, root)


def test_a_path_that_the_kernel_cannot_have_is_refused(tmp_path: Path) -> None:
    """A secret file may have a zero byte, which would be no OSError later."""
    put(tmp_path, "/run/secrets/publicip_file", "/a\0b")
    with pytest.raises(ConfigError, match="NUL byte"):
        loaded(tmp_path, PUBLICIP_ENABLED="on")


def test_no_service_is_asked_unless_a_variable_says_so(tmp_path: Path) -> None:
    """`off` wins; the other variables alone are remarked upon."""
    assert loaded(tmp_path).config.public_ip is None
    off = {"PUBLICIP_ENABLED": "off", "PUBLICIP_API": "ipinfo", "PUBLICIP_API_TOKEN": "canary"}
    nothing = loaded(tmp_path, **off, IP_STATUS_FILE="/x")
    assert nothing.config.public_ip is None
    said = reported(nothing)
    assert said.count("has no effect without PUBLICIP_ENABLED=on or PUBLICIP_API") == 3
    assert "canary" not in said
    assert loaded(tmp_path, PUBLICIP_ENABLED="on").config.public_ip == PublicIp(DEFAULT)
    tools = Tools({}, OWN, OWN, time.monotonic, *[lambda *_: None] * 4)  # type: ignore[list-item]
    assert services_of(nothing.config, tools).producers() == {}
    assert services_of(nothing.config, tools).public_ip() is None


def test_services_tokens_and_the_file_reach_their_places(tmp_path: Path) -> None:
    """Tokens go to the services in the order of the list, and are never shown."""
    put(tmp_path, "/run/secrets/publicip_api_token", "canary-1\ncanary-2\n")
    found = loaded(
        tmp_path,
        PUBLICIP_API="ipinfo, IP2Location,echoip#https://ip.example:8443/a/",
        PUBLICIP_FILE="/data/ip",
    )
    first, second, third = found.config.public_ip.apis  # type: ignore[union-attr]
    assert (first.url, second.url) == ("https://ipinfo.io/json", "https://api.ip2location.io/")
    assert (third.url, third.kind) == ("https://ip.example:8443/a/json", ApiKind.ECHOIP)
    assert (first.token, second.token, third.token) == (
        Secret("canary-1"),
        Secret("canary-2"),
        None,
    )
    text = explain(found) + repr(found.config)
    assert "canary" not in text
    assert "ipinfo.io, api.ip2location.io, ip.example" in text
    assert "/data/ip" in text


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PUBLICIP_API": "echoip#http://ip.example"}, "does not begin with https://"),
        ({"PUBLICIP_API": "echoip#https://192.0.2.1"}, "and the name of a host"),
        ({"PUBLICIP_API": "echoip#https://u:p@ip.example"}, "has a user"),
        ({"PUBLICIP_API": "echoip#https://ip.example/?q=1"}, "a query"),
        ({"PUBLICIP_API": "echoip#https://[::"}, "is not a URL"),
        ({"PUBLICIP_API": "echoip#https://x.example/" + "y" * 300}, "at most 300"),
        ({"PUBLICIP_API": "cloudflare", "PUBLICIP_API_TOKEN": "canary"}, "which takes none"),
        ({"PUBLICIP_API": "ipinfo", "PUBLICIP_API_TOKEN": "canary,b c"}, "more tokens than"),
        (
            {"PUBLICIP_API": ",".join(f"echoip#https://{n}.example" for n in range(9))},
            "more than 8 services",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    """With what to write, and never with a token."""
    (problem,) = problems({**COMPLETE, **environ}, tmp_path)
    assert said in problem
    assert "canary" not in problem
