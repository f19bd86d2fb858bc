"""A gateway with DNS_HIJACK=on, other resolvers that its workloads ask, and a count of what leaves.

The server counts the questions for another resolver that come out of the tunnel. The lab's
resolvers on the internet give another answer than the upstream of the gateway's own one.
"""

import re

from gateway.policy.upstreams import REDIRECTED
from tests.lab.encrypted import NAME
from tests.lab.gateway import Gateway
from tests.lab.hosts import Services, dns
from tests.lab.internet import INTERNET
from tests.lab.server import INSIDE, RESOLVED
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.lab.workload import Probe, Workload
from tests.promises.test_own_resolver import upstream

OTHERS = INTERNET[1]
WAYS = [(address, transport) for address in OTHERS for transport in ("udp", "tcp")]
COUNTED = f"meta l4proto {{ tcp, udp }} th dport {{ 53, {REDIRECTED} }}"
ASKED = "198.51.100.53"
TRUE_ANSWER = RESOLVED.ipv4
"""What a resolver on the internet answers, or the server's own in the tunnel."""


class Site:
    """A gateway whose resolver asks another one over TLS, and a count at the server."""

    def __init__(self, lab: Lab, trusted: Authority) -> None:
        self.lab, self._trusted = lab, trusted
        upstream(lab, trusted.issue(NAME))
        lab.server.namespace.nft(
            f"""
            table inet counted {{
                chain arriving {{
                    type filter hook prerouting priority -300; policy accept;
                    iifname "{lab.server.interface}" {COUNTED} counter
                }}
            }}
            """
        )

    def started(self, **changes: str | None) -> Gateway:
        """Return a healthy gateway with the redirection, and `changes`."""
        gateway = self.lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
        wanted: dict[str, str | None] = {
            "DNS_SERVER": None,
            "DNS_ADDRESS": None,
            "DNS_HIJACK": "on",
            "DNS_UPSTREAM_RESOLVERS": f"{INSIDE.ipv4}@853#{NAME}",
            "SSL_CERT_FILE": str(self._trusted.certificate),
        }
        gateway.start(gateway.env(**(wanted | changes)))
        gateway.wait_healthy(timeout=20)
        return gateway

    def resolver(self, answer: str) -> Services:
        """Return another resolver of the internet, at ASKED."""
        self.lab.internet_namespace.ip(f"addr add {ASKED}/32 dev lo")
        return self.lab.internet.serve(dns(ASKED, A=answer))

    @property
    def counted(self) -> int:
        """The packets to a port of questions that came out of the tunnel."""
        listed = self.lab.server.namespace.run("nft", "list", "table", "inet", "counted")
        found = re.search(r"counter packets (\d+)", listed)
        assert found
        return int(found[1])


def ask(workload: Workload, address: str, transport: str, **more: object) -> Probe:
    """Ask `address` for the address of a name that the upstream knows."""
    return workload.probe("dns", server=address, name="one.example", transport=transport, **more)
