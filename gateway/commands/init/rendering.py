"""The text of the compose file: an anchor, the gateway and a workload (docs/layouts.md)."""

import json
from collections.abc import Iterable

from gateway.commands.init.answers import Answers

LISTS = "servers:/config/servers"
"""The volume that has the provider's list of servers, with its place in the container."""

HEAD = """\
# Written by `gateway init`; docs/configuration.md explains every variable.
#
#   docker compose up -d                                (Compose 1.x: docker-compose up -d)
#   docker compose exec gateway gateway status          is it connected, and why not
#   docker compose exec gateway gateway verify          try the ways around the tunnel
#   docker compose logs gateway                         what happened

services:
  # Owns the network, and closes it first. Ports, networks and sysctls go here.
  anchor:
{build}    image: {image}
    command: hold
    restart: unless-stopped
    cap_add: [NET_ADMIN]
    sysctls:
      net.ipv6.conf.all.disable_ipv6: "0"     # for tunnels with an IPv6 address
    healthcheck: {{disable: true}}              # the gateway has its own
{ports}
  # To change it without the others: docker compose up -d --no-deps gateway
  gateway:
    image: {image}
    restart: unless-stopped
    network_mode: service:anchor
    depends_on: [anchor]
    cap_add: [NET_ADMIN]
    devices: [/dev/net/tun]                   # for kernels without WireGuard
{environment}{volumes}    secrets: [{secrets}]

  # Put your own container here, and keep these keys but `image`.
  workload:
    image: {workload}
    restart: unless-stopped
    network_mode: service:anchor
    depends_on:
      gateway:
        condition: service_healthy
    cap_drop: [NET_RAW]                       # remove it for a program that has to ping

secrets:
"""


def compose(answers: Answers, *, build: bool) -> str:
    """Return the compose file; with `build`, the image is made from the folder that it is in."""
    names = list(answers.secrets)
    listed = "VPN_SERVICE_PROVIDER" in answers.variables
    text = HEAD.format(
        build="    build: .\n" if build else "",
        image=quoted(answers.image),
        workload=quoted(answers.workload),
        ports=_block("ports", [f"- {quoted(port)}" for port in answers.ports]),
        environment=_block(
            "environment",
            [f"{name}: {quoted(value)}" for name, value in answers.variables.items()],
        ),
        volumes=f"    volumes: [{LISTS}]          # keeps the provider's list\n" if listed else "",
        secrets=", ".join(names),
    )
    text += "".join(f"  {name}:\n    file: ./secrets/{name}\n" for name in names)
    return text + (f"\nvolumes:\n  {LISTS.partition(':')[0]}:\n" if listed else "")


def _block(key: str, lines: Iterable[str]) -> str:
    """Return a key of a service with its lines, nothing without lines."""
    found = "".join(f"      {line}\n" for line in lines)
    return f"    {key}:\n{found}" if found else ""


def quoted(text: str) -> str:
    """Return `text` for a compose file: in quotes (YAML 1.2 reads JSON), and `$` as itself."""
    return json.dumps(text, ensure_ascii=False).replace("$", "$$")
