"""Ports that the provider signs (P9): open while the server of the tunnel forwards them.

The lab plays Private Internet Access, as in `test_p18_keys`; what signs ports is
`tests.lab.port_signer`, at the server's address in the tunnel. Strangers on the lab's internet call
the exit's address; a workload listens.
"""

import json
import time
from pathlib import Path

import pytest

from tests.lab import keys
from tests.lab.errors import LabError
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import OUTSIDER
from tests.lab.keys import DAY, FORM, PASSWORD, SIGNED, TOKEN, PortHost
from tests.lab.lists import ListHost
from tests.lab.process import PATIENCE, eventually
from tests.lab.server import RESOLVED
from tests.lab.topology import Lab
from tests.promises.test_p18_keys import Provider, outside, variables
from tests.promises.test_vault_gateway import Site as Vaulted
from tests.promises.witness import locked
from tests.trust import Trust, trust_in

pytestmark = [pytest.mark.lab, pytest.mark.promise("P9")]

FILE = Path("/config/servers/private-internet-access.ports")
OTHER = 47048
KINDS = ("tcp", "udp")
WAIT = 0.4 * PATIENCE
SOON = 20.0
SIGN, BIND = "/getSignature", "/bindPort"


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """Return two authorities that the gateways of this file trust."""
    return trust_in(tmp_path_factory.mktemp("tls"))


class Site:
    """A gateway of a lab that plays the provider; it forwards a port."""

    def __init__(
        self, lab: Lab, trust: Trust, *, in_vault: bool = False, **settings: object
    ) -> None:
        """Serve with these settings of the signer; `start` starts the gateway."""
        self.lab, self.trust = lab, trust
        self.provider = Provider(lab, trust)
        self.provider.takers[0].serve()
        certificate = trust.own.issue(keys.name_of(lab.server), alternative=False)
        self.signer = PortHost(lab, lab.server, certificate, **settings)
        self.gateway: Gateway = Vaulted(lab).gateway if in_vault else lab.gateway()
        self.status = lab.household.file("forwarded_port")

    def start(self) -> "Site":
        """Start the gateway, and wait until it is connected."""
        given = {
            "VPN_PORT_FORWARDING": "on",
            "VPN_PORT_FORWARDING_STATUS_FILE": str(self.status),
        }
        wanted = variables(self.gateway, self.trust, **given)
        self.gateway.start(wanted).wait_healthy(timeout=30)
        return self

    def wait_for(self, *ports: int) -> None:
        """Wait until health lists these ports and no others."""

        def listed() -> bool:
            body = self.gateway.status().body
            return [it["port"] for it in body.get("forwarded_ports", [])] == [*ports]

        try:
            eventually(listed, timeout=SOON, what=f"ports {ports}")
        except LabError as err:
            said = (
                self.signer.paths,
                self.limit(),
                [it for it in self.gateway.logs().splitlines() if "debug" not in it],
            )
            raise AssertionError(f"{err}: {said}") from err

    def limit(self) -> str:
        """Return what health says about the service, if it does not work."""
        found = self.gateway.status().body.get("limits", [])
        return "".join(it["text"] for it in found if it["code"] == "service_not_working")

    def wait_for_limit(self, text: str) -> None:
        """Wait until health says this about the service."""
        eventually(lambda: text in self.limit(), timeout=SOON, what=text)

    def calls(self, port: int) -> dict[str, str]:
        """Call `port` of the exit as a stranger; return who was seen, or what came of it."""
        asked = {"host": self.lab.server.exit.ipv4, "source": OUTSIDER.ipv4, "timeout": WAIT}
        found = {kind: self.lab.internet.probe(kind, port=port, **asked) for kind in KINDS}
        return {kind: answer.seen or answer.result for kind, answer in found.items()}

    def kept(self) -> list[dict[str, str]]:
        """Return the lines of the file with the signed ports, which only root can read."""
        file = self.gateway.container.root / FILE.relative_to("/")
        assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)
        return [json.loads(line) for line in file.read_text("ascii").splitlines()]


ANSWERED = dict.fromkeys(KINDS, OUTSIDER.ipv4)
SILENT = dict.fromkeys(KINDS, "timeout")


@pytest.mark.promise("P16")
def test_a_stranger_reaches_a_workload_and_a_restart_keeps_the_port(lab: Lab, trust: Trust) -> None:
    """One login in all. Another port that arrives stays silent; secrets are in the files alone."""
    site = Site(lab, trust, also=[OTHER]).start()
    site.wait_for(SIGNED)
    own = keys.client_of(lab.server)
    lab.workload.serve(*[echo(own, port) for port in (SIGNED, OTHER)])
    assert site.calls(SIGNED) == ANSWERED
    assert site.calls(OTHER) == SILENT
    eventually(lambda: site.status.read_text("ascii") == str(SIGNED), timeout=SOON, what="the file")
    assert {it["client"] for it in site.signer.requests} == {own}
    assert lab.leaks(locked(site.gateway), allowed=outside(lab)) == []
    (kept,) = site.kept()
    said = site.gateway.logs() + json.dumps(site.gateway.status().body)
    secrets = (TOKEN, PASSWORD, kept["payload"], kept["signature"])
    assert [it for it in secrets if it in said] == []
    site.gateway.stop()
    site.signer.set(port=OTHER, token=PASSWORD)
    site.start().wait_for(SIGNED)
    assert site.signer.paths == [SIGN, BIND, BIND]
    assert site.provider.logins == [FORM]
    eventually(lambda: site.calls(SIGNED) == ANSWERED, timeout=SOON, what="the port again")


def test_a_refused_token_leads_to_a_login_through_the_tunnel(lab: Lab, trust: Trust) -> None:
    """In a vault. Nothing of it leaves outside; a port that ends soon is not used again."""
    site = Site(lab, trust, in_vault=True, expires=time.time() + 3600)
    site.start().wait_for(SIGNED)
    site.gateway.stop()
    inside = ListHost(
        lab, trust.web.issue(keys.LOGIN), b"", resolver="203.0.113.54", address=RESOLVED.ipv4,
        account=FORM, token=TOKEN[::-1],
    )  # fmt: skip
    site.signer.set(token=TOKEN[::-1], port=OTHER, expires=time.time() + DAY)
    site.start().wait_for(OTHER)
    assert site.signer.paths == [SIGN, BIND, SIGN, SIGN, BIND]
    assert [it["login"] for it in inside.requests] == [FORM]
    lab.vault_workload.serve(echo(keys.client_of(lab.server), OTHER))
    assert site.calls(OTHER) == ANSWERED
    assert lab.leaks(locked(site.gateway), allowed=outside(lab)) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"manner": "garbage"}, "could not be asked for a port"),
        ({"expires": 1_000_000_000.0}, "has expired already"),
    ],
    ids=["garbage", "expired"],
)
def test_what_cannot_be_used_opens_nothing_and_is_reported(
    lab: Lab, trust: Trust, settings: dict[str, object], said: str
) -> None:
    """The gateway stays healthy; once the server does well, the port is there by itself."""
    site = Site(lab, trust, **settings).start()
    site.wait_for_limit(said)
    site.wait_for()
    assert TOKEN not in site.gateway.logs() + site.limit()
    site.signer.set(manner="well", expires=time.time() + 60 * DAY, port=SIGNED)
    site.wait_for(SIGNED)
    assert site.limit() == ""
