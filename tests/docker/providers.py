"""The site plays the providers: their lists, resolvers, and the one server as theirs.

The lists have the form in which each provider publishes them (tests/provider_lists.py), with the
site's server in place of the first one.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.providers import catalog
from tests import provider_lists
from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.hosts import LISTS
from tests.docker.images import PROJECT
from tests.docker.site import HOST, INSIDE, PORT, SERVER, UPLINK, Site
from tests.lab.hosts import dns
from tests.lab.process import run
from tests.lab.tls import authority

IMAGE = "portcullis-of-the-site"
"""The project's image on a machine that trusts the authority of the providers' certificates."""

MADE_UP = {
    f'"{value}"': f'"{SERVER.ipv4}"' for value in ("198.51.100.1", "192.0.2.3")
} | {'"2001:db8:100::1"': '""'}  # fmt: skip
"""What a list has of its first server, and what it is here: IPv4 alone."""

IPV4 = 4
PORTS = sorted({port for one in catalog.PROVIDERS for port in one.ports} - {53, PORT})
"""Where the servers of all providers listen, except the ports of names and of our server."""


def list_of(name: str, public: str) -> bytes:
    """Return the list of the provider `name`, whose first server is the site's."""
    text = provider_lists.raw(name).decode().replace(f'"{provider_lists.key(1)}"', f'"{public}"')
    for former, value in MADE_UP.items():
        text = text.replace(former, value)
    return text.encode()


@contextmanager
def playing(site: Site, folder: Path) -> Iterator[None]:
    """Serve every list, and build the image of a machine that trusts their certificates.

    All of them are served in one container, which has an address for each host.
    """
    trusted = authority(folder)
    shutil.copy(trusted.certificate, folder / "authority.crt")
    (folder / "Dockerfile").write_text(
        f"FROM {PROJECT}\nCOPY authority.crt /etc/ssl/certs/ca-certificates.crt\n"
    )
    site.engine.docker("build", "-t", IMAGE, str(folder), timeout=120)
    commands = []
    for name, (host, address) in LISTS.items():
        (folder / name).write_bytes(list_of(name, site.server_keys.public))
        shutil.copy(trusted.issue(host), folder / f"{name}.pem")
        wanted = {
            "address": address,
            "port": 443,
            "certificate": f"/lists/{name}.pem",
            "body": f"/lists/{name}",
            "manner": "well",
        }
        served = " ".join((*PYTHON, "/lab/list_server.py", f"'{json.dumps(wanted)}'"))
        commands += [f"ip addr add {address}/24 dev eth0", f"{served} &"]
    box = site.run(
        *("lists", "-v", LAB_VOLUME, "-v", f"{folder}:/lists:ro"),
        *("--network", UPLINK, "--cap-add", "NET_ADMIN"),
        command=["sh", "-ec", "\n".join((*commands, "wait"))],
    )
    _listen(site.server)
    resolvers = _resolve(site)
    yield
    for one in (box, resolvers):
        one.remove()


def _listen(server: Box) -> None:
    """Let the server answer on the ports of all providers."""
    ports = ", ".join(map(str, PORTS))
    server.exec(
        "nft",
        "add table inet providers;"
        " add chain inet providers in { type nat hook prerouting priority -100; };"
        f" add rule inet providers in udp dport {{ {ports} }} redirect to :{PORT}",
    )


def _resolve(site: Site) -> Box:
    """Serve names in the tunnel at the addresses of all providers' resolvers."""
    all_of_them = (one for each in catalog.PROVIDERS for one in each.resolvers)
    found = {str(one) for one in all_of_them if one.version == IPV4} - set(INSIDE)
    for address in found:
        site.server.exec("ip", "addr", "replace", f"{address}/32", "dev", "lo")
    listed = [dns(address, A=HOST.ipv4, AAAA=HOST.ipv6) for address in sorted(found)]
    return site.run(
        *("resolvers", "-v", LAB_VOLUME, "--network", f"container:{site.server.name}"),
        command=[*PYTHON, "/lab/services.py", json.dumps(listed)],
    )


@contextmanager
def customer(site: Site, private: str, address: str, preshared: str = "") -> Iterator[None]:
    """Let the server know a user by his key, and his address in the tunnel."""
    public = run(["wg", "pubkey"], stdin=private).strip()
    file = f"/tmp/{address}"  # noqa: S108 - in the server's container
    site.server.exec(
        *("sh", "-ec"),
        f"printf '{preshared}' > {file}; wg set wg0 peer {public} preshared-key {file}"
        f" allowed-ips {address}/32; ip route replace {address} dev wg0",
    )
    yield
    site.server.exec("wg", "set", "wg0", "peer", public, "remove")
