"""P16: keys stay secret, from every source and after every error.

What is looked for is each key as it is written in a configuration, in hexadecimal (the form of
wireguard-go's protocol) and in its raw bytes.
"""

import base64
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.gateway import HEALTH, Gateway
from tests.lab.process import eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P16")]

FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as client:
    client.sendall(b"GET " + sys.argv[3].encode() + b" HTTP/1.0\\r\\n\\r\\n")
    while part := client.recv(65536):
        sys.stdout.buffer.write(part)
"""
PATHS = ("/", "/healthz", "/livez", "/readyz", "/metrics", "/nothing")
HOOK = "sh -c 'env > /run/hook; cat /proc/self/cmdline >> /run/hook; env; echo done >> /run/hook'"
DISCLOSED = "WIREGUARD_PRIVATE_KEY"
CORE = re.compile(r"Max core file size +(\S+) +(\S+)")


def forms(lab: Lab) -> list[bytes]:
    """Return every form of the two keys."""
    found = []
    for key in (lab.client.private, lab.server.preshared_key):
        raw = base64.b64decode(key)
        found += [key.rstrip("=").encode(), raw.hex().encode(), raw.hex().upper().encode(), raw]
    return found


def leaks_key(lab: Lab, data: bytes | str) -> bool:
    """Return whether `data` holds a key in any form."""
    data = data.encode() if isinstance(data, str) else data
    return any(form in data for form in forms(lab))


def by_variables(gateway: Gateway) -> dict[str, str]:
    """Put the keys into the environment."""
    return gateway.env()


def by_secret_files(gateway: Gateway) -> dict[str, str]:
    """Put the keys where Docker mounts secrets, and one into a file that is named."""
    gateway.write("/run/secrets/wireguard_private_key", gateway.client.private + "\n")
    gateway.write("/run/secrets/other", gateway.server.preshared_key)
    return gateway.env(
        WIREGUARD_PRIVATE_KEY=None,
        WIREGUARD_PRESHARED_KEY=None,
        WIREGUARD_PRESHARED_KEY_SECRETFILE="/run/secrets/other",
    )


def by_wg_quick_file(gateway: Gateway) -> dict[str, str]:
    """Put everything into a wg-quick file, with a command that is named and not run."""
    gateway.write("/config/wg0.conf", gateway.wg_quick(extra="PostUp = echo hello"))
    kept = {"LOG_LEVEL", "LOG_FORMAT", "FIREWALL_BACKEND", "WIREGUARD_IMPLEMENTATION"}
    return {name: value for name, value in gateway.env().items() if name in kept}


SOURCES = (by_variables, by_secret_files, by_wg_quick_file)


def processes(lab: Lab, *, without: int) -> Iterator[tuple[str, bytes]]:
    """Yield what others may read of each process in the namespace but the gateway itself."""
    for pid in lab.gateway_namespace.pids():
        for name in ("cmdline", "environ", "comm", "status"):
            if pid != without:
                try:
                    yield f"{pid} {name}", Path(f"/proc/{pid}/{name}").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue


@pytest.mark.parametrize("source", SOURCES)
def test_a_gateway_at_work_logs_no_key(
    lab: Lab, source: Callable[[Gateway], dict[str, str]]
) -> None:
    """Not in its log at the level debug, to its children, by HTTP, by its commands, in a file.

    The control is its own environment or the secret file: there the same search finds the key.
    """
    gateway = lab.gateway()
    environment = source(gateway)
    gateway.start(environment | {"VPN_UP_COMMAND": HOOK})
    gateway.wait_healthy()
    own = Path(f"/proc/{gateway.pid}/environ").read_bytes()
    assert leaks_key(lab, own) is (DISCLOSED in environment), "control, or the point of a file"
    assert not leaks_key(lab, Path(f"/proc/{gateway.pid}/cmdline").read_bytes())
    reported = dict(processes(lab, without=gateway.pid))
    if gateway.status().body["tunnel"] == "userspace":
        assert any(b"wireguard-go" in text for text in reported.values()), (
            "control: a child is seen"
        )
    assert [where for where, text in reported.items() if leaks_key(lab, text)] == []
    hook = gateway.container.root / "run/hook"
    eventually(
        lambda: hook.exists() and hook.read_text().endswith("done\n"), timeout=5, what="the hook"
    )
    for path in PATHS:
        fetch = [sys.executable, "-I", "-S", "-c", FETCH, HEALTH[0], str(HEALTH[1]), path]
        answer = lab.workload.run(*fetch)
        assert answer.startswith("HTTP/1.")
        assert not leaks_key(lab, answer)
    for command in (["status"], ["status", "--json"], ["check"], ["--help"], ["nonsense"]):
        _, output = gateway.execute(*gateway.argv, *command)
        assert output
        assert not leaks_key(lab, output)
    gateway.restart()
    gateway.wait_healthy()
    gateway.stop()
    assert not leaks_key(lab, gateway.logs(all_starts=True))
    assert files_with_a_key(lab, gateway) == []


def files_with_a_key(lab: Lab, gateway: Gateway) -> list[str]:
    """Return the files in the container's /run that hold a key, but for those it was given."""
    return [
        str(path)
        for path in (gateway.container.root / "run").rglob("*")
        if path.is_file() and "secrets" not in path.parts and leaks_key(lab, path.read_bytes())
    ]


WRONG = {
    "something else": {"WIREGUARD_MTU": "9", "FIREWALL_INPUT_PORTS": "http"},
    "missing": {"WIREGUARD_PUBLIC_KEY": None, "WIREGUARD_ADDRESSES": None},
    "misspelt": {"WIREGUARD_PRIVAT_KEY": "?"},
    "the log": {"LOG_LEVEL": "loud", "LOG_FORMAT": "xml"},
}


@pytest.mark.parametrize("what", WRONG)
def test_no_error_in_a_configuration_shows_a_key(lab: Lab, what: str) -> None:
    """The keys are right; something else is wrong, and all of it is reported."""
    gateway = lab.gateway()
    environment = gateway.env(**WRONG[what])
    gateway.start(environment)
    assert gateway.wait() == 2
    assert "problem" in gateway.logs() or "wrong" in gateway.logs()
    code, output = gateway.execute(*gateway.argv, "check")
    assert code == 2
    assert not leaks_key(lab, gateway.logs() + output)


def test_a_key_under_a_wrong_name_or_in_a_wrong_place_is_not_shown(lab: Lab) -> None:
    """People paste keys into the wrong line; the error names the line.

    As a public key it is well formed, and alone shows whether what is accepted is shown.
    """
    gateway = lab.gateway()
    key = lab.client.private
    misplaced = [
        "WIREGUARD_ADDRESSES", "WIREGUARD_ENDPOINT_IP", "WIREGUARD_MTU", "WIREGUARD_ENDPOINT_PORT",
        "DNS_ADDRESS", "WIREGUARD_PRIVATE_KEY_SECRETFILE",
        "WIREGUARD_CONF_SECRETFILE", "WIREGUARD_PRIVAT_KEY", "LOG_LEVEL", "WIREGUARD_ENDPOINTS",
        "HEALTH_SERVER_ADDRESS", "FIREWALL_BACKEND",
    ]  # fmt: skip
    for names in (misplaced, ["WIREGUARD_PUBLIC_KEY"]):
        _, output = gateway.container.execute(
            [*gateway.argv, "check"],
            main=0,
            env=environment_of(gateway, **dict.fromkeys(names, key)),
        )
        assert [name for name in names if name not in output] == []
        assert not leaks_key(lab, output)


def environment_of(gateway: Gateway, **changes: str) -> dict[str, str]:
    """Return the environment of a command next to the gateway, with `changes`."""
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    return paths | gateway.env(**changes)


def test_what_is_missing_and_a_crash_show_no_key(lab: Lab) -> None:
    """The ways to end that are not a configuration error."""
    gateway = lab.gateway(without_tun=True)
    gateway.start(gateway.env(WIREGUARD_IMPLEMENTATION="userspace"))
    assert gateway.wait() == 1
    bare = lab.gateway(capabilities=[]).start()
    assert bare.wait() == 1
    assert "NET_ADMIN" in bare.logs()
    broken = lab.gateway()
    broken.start(broken.env(PYTHONPATH="/nowhere"))
    assert broken.wait() != 0
    assert not leaks_key(lab, gateway.logs() + bare.logs() + broken.logs())


def test_no_crash_writes_the_keys_into_a_core_dump(lab: Lab) -> None:
    """Neither the gateway's nor wireguard-go's: 1 byte is what the kernel refuses a pipe too.

    Control: a process next to them may write one.
    """

    def limits(pid: int | str) -> tuple[str, ...]:
        found = CORE.search(Path(f"/proc/{pid}/limits").read_text("ascii"))
        assert found
        return found.groups()

    gateway = lab.gateway().start()
    gateway.wait_healthy()
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii").split()
    assert children or gateway.status().body["tunnel"] == "kernelspace"
    assert [limits(pid) for pid in (gateway.pid, *children)] == [("1", "1")] * (1 + len(children))
    assert limits("self") != ("1", "1")
