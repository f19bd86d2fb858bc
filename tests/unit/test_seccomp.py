"""A process that has given up its rights and its calls, as the kernel sees it."""

import errno
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.system.bpf import Instruction
from gateway.system.seccomp import CALLS, MSG_FASTOPEN, SENDTO, STARTING, filter_for, refusing

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = f"""
import ctypes, json, os, socket, struct, sys
sys.path.insert(0, {str(PROJECT)!r})
from gateway.system.rights import give_up_rights
from gateway.system.seccomp import refuse_connecting
given, other = socket.socketpair()
status = open("/proc/self/status")
give_up_rights("it", ())
def tried(call):
    try:
        call()
    except OSError as err:
        return err.errno
    return 0
elsewhere = socket.create_server(("127.0.0.1", 0))
def left():  # what asyncio has connected, and its peer has reset
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(server.getsockname())
    peer, _ = server.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    tried(lambda: client.sendto(b"x", 0x20000000, elsewhere.getsockname()))
    return client
reset = [left(), left()]
calls = {{
    "socket": lambda: socket.socket().close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
    "execve": lambda: os.execv("/nothing", ["nothing"]),
    "connect": lambda: given.connect("/nothing"),
    "bind": lambda: given.bind("/nothing"),
    "fastopen": lambda: reset.pop().sendto(b"x", 0x20000000, elsewhere.getsockname()),
    "sendmsg": lambda: given.sendmsg([b""]),
    "io_uring": lambda: exec("raise OSError(ctypes.get_errno(), '')") if
        ctypes.CDLL(None, use_errno=True).syscall(425, 1, 0) < 0 else None,
}}
before = {{name: tried(call) for name, call in calls.items()}}
refuse_connecting()
after = {{name: tried(call) for name, call in calls.items()}}
given.send(b"x")
found = dict(it.split(":\\t") for it in status.read().splitlines() if ":\\t" in it)
print(json.dumps([before, after, other.recv(1).decode(), found["CapEff"], found["Seccomp"]]))
"""
REFUSED = 1


def test_it_can_use_what_it_was_given_and_open_nothing() -> None:
    """The control is the same calls before."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=20
    )
    before, after, received, capabilities, mode = json.loads(done.stdout)
    assert before["socket"] == before["netlink"] == before["sendmsg"] == 0
    assert REFUSED not in {before["execve"], before["connect"]}
    assert before["fastopen"] == errno.EINPROGRESS, "it connects to another address"
    assert set(after.values()) == {REFUSED}
    assert received == "x"
    assert int(capabilities, 16) == 0
    assert mode == "2"


@pytest.mark.parametrize(("number", "ends"), [("EPERM", False), ("EINVAL", False), ("EIO", True)])
def test_where_it_can_have_no_other_user_it_has_no_right_all_the_same(
    number: str, *, ends: bool
) -> None:
    """Without CAP_SETUID, or in a user namespace that lacks the id; anything else is an error."""
    code = (
        f"import errno, os, sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "def refuse(*_):\n"
        f"    raise OSError(errno.{number}, os.strerror(errno.{number}))\n"
        "os.setgroups, os.setresgid, os.setresuid = (lambda _: None), refuse, refuse\n"
        "from gateway.errors import NetworkError\n"
        "from gateway.system.rights import give_up_rights\n"
        "status = open('/proc/self/status')\n"
        "try:\n"
        "    give_up_rights('it', ())\n"
        "except NetworkError as err:\n"
        "    print(err)\n"
        "else:\n"
        "    lines = status.read().splitlines()\n"
        "    print(*(it for it in lines if it.startswith(('CapPrm', 'NoNewPrivs'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    wanted = "cannot change its user: Input/output error: it"
    held = f"CapPrm:\t{0:016x} NoNewPrivs:\t1"
    assert done.stdout.strip() == (wanted if ends else held)


def verdict(code: Sequence[Instruction], number: int, architecture: int, flags: int = 0) -> str:
    """Return what a filter says of a call, run as the kernel runs it."""
    at, value = 0, 0
    while True:
        operation, yes, no, argument = code[at]
        at += 1
        if operation == 0x20:
            value = {0: number, 4: architecture, 40: flags}[argument]
        elif operation == 0x06:
            return "allowed" if argument == 0x7FFF0000 else "refused"
        else:
            is_true = {
                0x15: value == argument,
                0x35: value >= argument,
                0x45: bool(value & argument),
            }[operation]
            at += yes if is_true else no


@pytest.mark.parametrize("machine", CALLS)
def test_every_listed_call_leads_to_the_refusal(machine: str) -> None:
    """The program, run as the kernel runs it; each other call is allowed, each machine is not."""
    kind, refused = CALLS[machine]
    code = filter_for(machine)
    found = {it for it in range(500) if verdict(code, it, kind) == "refused"}
    assert found == set(refused)
    with_flag = {it for it in range(500) if verdict(code, it, kind, MSG_FASTOPEN) == "refused"}
    assert with_flag == {*refused, SENDTO[machine]}
    assert verdict(code, SENDTO[machine], kind, 0x4040) == "allowed", (
        "MSG_NOSIGNAL and MSG_DONTWAIT"
    )
    assert verdict(code, 0x40000000, kind) == "refused"
    assert verdict(code, 0, 0x40000003) == "refused", "a program of 32 bits"


@pytest.mark.parametrize("machine", CALLS)
def test_nothing_else_is_refused_to_who_may_start_no_process(machine: str) -> None:
    """Neither in a program of this machine; the others are refused as above."""
    kind, _ = CALLS[machine]
    code = refusing(machine, STARTING[machine])
    assert {it for it in range(500) if verdict(code, it, kind) == "refused"} == {*STARTING[machine]}
    assert verdict(code, 0x40000000, kind) == "refused"
    assert verdict(code, 0, 0x40000003) == "refused"


STARTS = f"""
import os, signal, subprocess, sys, threading
sys.path.insert(0, {str(PROJECT)!r})
def refuse(*_):
    raise OSError(1, "")
os.setgroups, os.setresgid, os.setresuid = (lambda _: None), refuse, refuse
from gateway.system.rights import give_up_rights
def forked():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
ways = forked, lambda: subprocess.run(["true"]), lambda: threading.Thread(target=str).start()
def tried():
    for way in ways:
        try:
            way()
        except (OSError, RuntimeError):
            yield "refused"
        else:
            yield "started"
print(*tried())
give_up_rights("it", ())
print(*tried())
"""


def test_as_root_it_can_start_no_process_either() -> None:
    """The limit on processes is not for root. The control is the same before."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.splitlines() == ["started " * 2 + "started", "refused " * 2 + "refused"]


def test_a_machine_of_another_kind_is_an_error() -> None:
    """So that nothing runs there without the filter."""
    with pytest.raises(NotImplementedError, match="riscv64"):
        filter_for("riscv64")
