"""The lab's end of probe_server.py: one server for each process of the test run."""

import array
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.process import PATIENCE

SERVER = str(Path(__file__).with_name("probe_server.py"))
CAPABILITIES = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "net_admin": 12,
    "net_raw": 13,
    "sys_chroot": 18,
    "mknod": 27,
    "audit_write": 29,
    "setfcap": 31,
}
"""Numbers of the capabilities that the lab grants (linux/capability.h)."""
TIME_LIMIT = 30.0
"""Seconds that a probe may take, times PATIENCE."""


class ProbeServer:
    """A running probe_server.py; it ends with the process that started it."""

    def __init__(self) -> None:
        """Start the server."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", SERVER, str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            )

    def run(
        self,
        name: str,
        words: Mapping[str, str],
        *,
        namespaces: Sequence[Path],
        capabilities: Sequence[str] | None,
    ) -> dict[str, Any]:
        """Run one probe and return everything that it found.

        `namespaces` are files of a network namespace and, optionally, of a mount namespace.
        Raises LabError with the traceback when the probe itself fails, or with its name when it
        takes too long.
        """
        kept = None if capabilities is None else [CAPABILITIES[name] for name in capabilities]
        request = json.dumps({"name": name, "words": dict(words), "capabilities": kept})
        mine, theirs = socket.socketpair()
        with mine:
            opened = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in namespaces]
            try:
                descriptors = array.array("i", [theirs.fileno(), *opened])
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
                self._control.sendmsg([request.encode()], rights)
            finally:
                theirs.close()
                for descriptor in opened:
                    os.close(descriptor)
            mine.settimeout(TIME_LIMIT * PATIENCE)
            text = b""
            try:
                while part := mine.recv(1 << 16):
                    text += part
            except TimeoutError:
                raise LabError(f"the probe {name} takes too long: {request}") from None
        try:
            return dict(json.loads(text))
        except ValueError:
            raise LabError(f"the probe {name} failed: {text.decode()}") from None


_server: ProbeServer | None = None
_lock = threading.Lock()


def probe_server_of_this_process() -> ProbeServer:
    """Return the server; it starts with the first probe."""
    global _server  # noqa: PLW0603 - one for each process, because its start is what is saved
    with _lock:
        if _server is None:
            _server = ProbeServer()
        return _server
