"""A Podman of the tests' own: its files, its processes, its network, gone when it stops.

Podman has no daemon. A process that only waits keeps the mount and process namespaces in which each
command of Podman and each container runs, and all of them end with it.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

from tests.docker.engine import _ENTER, CGROUPS, Engine, _children, call
from tests.lab.errors import LabError
from tests.lab.namespace import Namespace
from tests.lab.process import Child, eventually

ROOT = Path(__file__).resolve().parents[2]
WAITING = ROOT / "gateway/lock/waiting.py"
PARENT = "libpod_parent"
"""The group that Podman puts everything in."""

_CONFIGURATION = """
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{directory}/networks"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "/run/containers/storage"
"""


class Podman(Engine):
    """One directory of storage, and the namespaces in which Podman works on it."""

    def __init__(self, archive: Path) -> None:
        """Make the directory, and Podman's configuration in it; `archive` has the images."""
        super().__init__()
        self._archive = archive
        self._others = any(CGROUPS.glob(f"*/{PARENT}"))
        for name, text in (("containers.conf", _CONFIGURATION), ("storage.conf", _STORAGE)):
            given = text.format(directory=self.directory)
            (self.directory / name).write_text(given, encoding="ascii")

    @property
    def environment(self) -> dict[str, str]:
        """Environment of Podman: no settings of the user's, no systemd to check health."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",
        }

    def start(self, namespace: Namespace | None, *_options: str) -> None:
        """Make the namespaces; the options are those of another engine."""
        argv = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation=private", "sh", "-c", _ENTER, "sh", str(self.directory)),
            *(sys.executable, "-I", "-S", str(WAITING)),
        ]
        log = self.directory / "waiting.log"
        self._daemon = Child(argv if namespace is None else namespace.command(argv), log)
        eventually(self._answers, timeout=60, what=f"podman:\n{log}", interval=0.1)
        self.docker("load", "-i", str(self._archive), timeout=300)

    def stop(self) -> None:
        """End every container; the storage stays for the next start."""
        if self._daemon is not None and self._daemon.exit_code is None:
            self.docker("pod", "rm", "-af", "-t", "1", check=False, timeout=120)
        super().stop()

    def close(self) -> None:
        """Stop, and remove everything that there was."""
        super().close()
        if not self._others:
            for top in CGROUPS.glob(f"*/{PARENT}"):
                for group, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):  # another Podman's by now
                        Path(group).rmdir()

    def docker(
        self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> str:
        """Run podman in place of the docker client; see `call`."""
        if self._daemon is None or self._daemon.exit_code is not None:
            raise LabError("podman is not started")
        if argv[:2] == ("rm", "-f"):  # Docker kills at once, Podman asks first
            argv = (*argv[:2], "-t", "0", *argv[2:])
        (inside,) = _children(self._daemon.pid)
        enter = ["nsenter", f"--target={inside}", "--mount", "--pid", "--net", "--"]
        return call(
            [*enter, "podman", *argv],
            stdin=stdin,
            check=check,
            timeout=timeout,
            env=self.environment,
        )

    def _answers(self) -> bool:
        if self._daemon is None or self._daemon.exit_code is not None:
            raise LabError(f"it has ended: {self._daemon and self._daemon.output()}")
        return bool(_children(self._daemon.pid)) and "Version:" in self.docker("version")


def missing() -> list[str]:
    """Return what this machine lacks for Podman, in words for a person."""
    return [
        f"the program {program}"
        for program in ("podman", "runc", "conmon")
        if shutil.which(program) is None
    ]
