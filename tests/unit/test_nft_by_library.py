"""The stand-in for nft refuses a libnftables that would use another socket than the given one."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = """
import ctypes, os, resource, socket, sys
from gateway.firewall.nft.by_library import NotTaken, context

class Function:
    def __init__(self, act):
        self.act = act
    def __call__(self, *given):
        return self.act(*given)

class Library:
    def __init__(self, kind):
        opens = lambda *_: os.dup(own.fileno()) and 1
        nothing = lambda *_: 0
        self.nft_ctx_new = Function(nothing if kind == "opens none" else opens)
        self.nft_run_cmd_from_buffer = Function(self.run if kind == "for each command" else nothing)
        self.nft_ctx_buffer_output = self.nft_ctx_buffer_error = Function(nothing)
        self.nft_ctx_get_output_buffer = Function(nothing)
    def run(self, *_):
        try:
            os.dup(own.fileno())
        except OSError:
            return 1
        return 0

own, given = socket.socketpair()
before = resource.getrlimit(resource.RLIMIT_NOFILE)
try:
    context(Library(sys.argv[1]), given.fileno())
except NotTaken as err:
    print("refused:", err)
else:
    print("taken", resource.getrlimit(resource.RLIMIT_NOFILE) == before)
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("opens one", "taken True"),
        ("opens none", "refused: libnftables has opened no netlink socket"),
        ("for each command", "refused: libnftables opens a netlink socket for each command"),
    ],
)
def test_only_a_library_that_keeps_its_socket_is_used(kind: str, said: str) -> None:
    """Any other would change the gateway's own namespace instead of the vault's."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said
