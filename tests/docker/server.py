"""A WireGuard server with an exit and a resolver, as the first process of a container.

    python server.py JSON

JSON has `private`, `peers` (a list of `public` and `addresses`), `addresses` inside the tunnel and
`services` for services.py, which takes over at the end. A program of its own, standard library
only.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SERVICES = "/lab/services.py"
LINK = "wg0"
PORT = 51820

# The exit: what comes out of the tunnel has the address of the link it leaves by.
RULES = f"""
table inet exit {{
    chain departure {{
        type nat hook postrouting priority srcnat; policy accept;
        iifname "{LINK}" masquerade
    }}
}}
"""


def run(*argv: str, stdin: str = "") -> None:
    """Run a command to its end; a failure ends the container with the command's message."""
    subprocess.run(argv, input=stdin, text=True, check=True)


def start_tunnel(given: dict[str, object]) -> None:
    """Start wireguard-go and configure it."""
    subprocess.Popen(["wireguard-go", "-f", LINK])
    while not Path(f"/var/run/wireguard/{LINK}.sock").exists():
        time.sleep(0.01)
    lines = ["[Interface]", f"PrivateKey = {given['private']}", f"ListenPort = {PORT}"]
    routes = []
    for peer in given["peers"]:  # type: ignore[attr-defined]
        addresses = [f"{address}/{128 if ':' in address else 32}" for address in peer["addresses"]]
        lines += ["[Peer]", f"PublicKey = {peer['public']}", f"AllowedIPs = {', '.join(addresses)}"]
        routes += [f"route add {address} dev {LINK}" for address in addresses]
    run("wg", "setconf", LINK, "/dev/stdin", stdin="\n".join(lines) + "\n")
    # On loopback, so that the resolver outlives the tunnel's interface.
    own = [f"addr add {address} dev lo" for address in given["addresses"]]  # type: ignore[attr-defined]
    run("ip", "-batch", "-", stdin="\n".join([*own, f"link set {LINK} up", *routes]) + "\n")


def main() -> None:
    """Bring everything up, then become the services."""
    given = json.loads(sys.argv[1])
    start_tunnel(given)
    run("nft", "-f", "-", stdin=RULES)
    argv = [sys.executable, "-I", "-S", SERVICES, json.dumps(given["services"])]
    os.execv(sys.executable, argv)  # noqa: S606 - the same interpreter, the lab's own script


if __name__ == "__main__":
    main()
