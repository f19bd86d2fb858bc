"""What the gateway does, shown step by step in the lab: see scripts/demo."""

import sys
import time
from contextlib import suppress

from tests.lab.frames import addressed_to, is_multicast_report, is_wireguard
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET
from tests.lab.lists import MULLVAD, PROVIDER, RESOLVER, ListHost, mullvad
from tests.lab.process import eventually
from tests.lab.tls import authority
from tests.lab.topology import Lab
from tests.lab.workload import Probe

HOST = INTERNET[0]
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def title(text: str) -> None:
    """Begin a step."""
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def line(label: str, text: str) -> None:
    """Say one thing about the step."""
    print(f"  {label:<26}{text}", flush=True)


def ask(lab: Lab, address: str) -> Probe:
    """Have the workload connect to a host on the internet, which answers who it sees."""
    return lab.workload.probe("tcp", host=address)


def outcome(probe: Probe) -> str:
    """Return what became of a connection."""
    if probe.result == "connected":
        return f"is seen outside as {BOLD}{probe.seen}{PLAIN}"
    return f"{BOLD}{probe.result}{PLAIN} after {probe.seconds * 1000:.1f} ms"


def show_workload(lab: Lab) -> None:
    """Show what the workload gets, in both families."""
    line("workload over IPv4", outcome(ask(lab, HOST.ipv4)))
    line("workload over IPv6", outcome(ask(lab, HOST.ipv6)))


def show_name(gateway: Gateway) -> None:
    """Show that a name resolves, and who the gateway's own resolver asks for it."""
    found = gateway.workload().probe("resolve", name="www.example")
    asks = gateway.status().body["resolver"]["asks"]
    line("a name in the workload", f"{found.result}; the gateway's resolver asks {asks}")


def show_outside(lab: Lab, since: float) -> int:
    """Show what a capture outside the namespace has seen; return how much should not be there."""
    frames = lab.capture.frames(since)
    server = lab.server.endpoint
    encrypted = sum(is_wireguard(f, a, lab.server.port) for f in frames for a in server)
    of_list = [addressed_to(RESOLVER), addressed_to(PROVIDER)]
    asked = sum(judge(frame) for frame in frames for judge in of_list)
    leaks = len(lab.leaks(since, allowed=[is_multicast_report, *of_list]))
    said = f", {asked} for the list" if asked else ""
    line("capture outside", f"{encrypted} encrypted packets{said}, {BOLD}{leaks} others{PLAIN}")
    return leaks


def show_health(gateway: Gateway) -> None:
    """Show what the health endpoint says."""
    health = gateway.status()
    line("health", f"{health.code} {health.state}: {health.body.get('reason', '')}")


def start_with_provider(lab: Lab) -> Gateway:
    """Start a gateway that has the name of its provider, which the lab plays, and a country."""
    trusted = authority(lab.household.directory)
    host = ListHost(lab, trusted.issue(MULLVAD), mullvad(lab.servers))
    gateway = lab.gateway()
    gateway.write("/config/volume", "")  # else the list would be kept on this machine
    chosen = {"VPN_SERVICE_PROVIDER": "mullvad", "SERVER_COUNTRIES": "Netherlands"}
    machine = {"WIREGUARD_ENDPOINT_RESOLVER": RESOLVER, "SSL_CERT_FILE": str(trusted.certificate)}
    named = {"WIREGUARD_ENDPOINT_IP": None, "WIREGUARD_PUBLIC_KEY": None}
    gateway.start(gateway.env(**chosen, **machine, **named, DNS_SERVER="on"))
    gateway.wait_for_state("connecting")
    line("variables", ", ".join(f"{name}={value}" for name, value in chosen.items()))
    line("list of servers", f"fetched over TLS from {MULLVAD}, {len(host.requests)} request")
    return gateway


def demonstrate(lab: Lab) -> int:
    """Go through the life of a gateway; return the number of packets that leaked."""
    title("Before: a workload in a container's network, no gateway yet")
    show_workload(lab)

    title("The gateway starts with its provider's name, the server does not answer: closed")
    lab.server.cut()
    since = time.monotonic()
    gateway = start_with_provider(lab)
    show_workload(lab)
    show_health(gateway)
    leaks = show_outside(lab, since)

    title("The server answers: connected")
    lab.server.restore()
    gateway.wait_healthy(30)
    show_workload(lab)
    show_name(gateway)
    show_health(gateway)
    leaks += show_outside(lab, since)

    title("The tunnel is cut, the workload keeps asking")
    since = time.monotonic()
    lab.server.cut()
    flood = lab.workload.flood("udp4", "udp6", rate=50)
    gateway.wait_unhealthy(40)
    line("noticed", f"after {time.monotonic() - since:.0f} s without an answer")
    show_workload(lab)
    show_health(gateway)
    leaks += show_outside(lab, since)

    title("The server is back: the same process, the same namespace, no restart")
    since = time.monotonic()
    lab.server.restore()
    gateway.wait_healthy(40)
    line("connected", f"after {time.monotonic() - since:.1f} s")
    show_workload(lab)
    leaks += show_outside(lab, since)

    title("The gateway is killed; the workload is still there")
    since = time.monotonic()
    gateway.kill()
    eventually(lambda: ask(lab, HOST.ipv4).failed_fast, timeout=10, what="the end of the tunnel")
    show_workload(lab)
    flood.stop()
    return leaks + show_outside(lab, since)


def main() -> int:
    """Run the demonstration in a lab that leaves nothing behind."""
    started = time.monotonic()
    with suppress(KeyboardInterrupt), Lab() as lab:
        leaks = demonstrate(lab)
        verdict = "nothing leaked" if not leaks else f"{leaks} PACKETS LEAKED"
        title(f"In {time.monotonic() - started:.0f} s: {verdict}.")
        print(f"{DIM}All namespaces are removed again. To use the gateway: README.md.{PLAIN}")
        return 1 if leaks else 0
    print("\nStopped; all namespaces are removed again.")
    return 130


if __name__ == "__main__":
    raise SystemExit(main())
