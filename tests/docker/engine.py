"""A Docker Engine of the tests' own: its files, its processes, its network, gone when it stops.

Two runs over one data root. The first has the machine's network, without a rule or bridge of
Docker's in it, and builds images. The second has a network namespace of its own, so that bridges,
NAT and whatever a container sends never touch the machine, and runs the containers. Both have their
own mount and process namespaces: what dockerd mounts or leaves running ends with it, also when the
test run is killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, Child, eventually

CGROUPS = Path("/sys/fs/cgroup")
_MOST_TOLD = 3000  # characters of a failed command's output, from its end
_PREFIX = "portcullis-docker-"
_PARENT = Path("/var/tmp")  # noqa: S108 - mkdtemp's; /tmp is in memory on many machines

# Run by `sh` in the new namespaces. What Docker writes outside its own directories (sockets and
# state in /run, a key in /etc/docker, plugins in /opt/containerd) goes where it disappears again;
# resolv.conf often is a link into the /run that is hidden.
_ENTER = """
set -e
resolver=$(readlink -f /etc/resolv.conf)
cp "$resolver" "$1/resolv.conf"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /opt
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc-work" overlay /etc
mkdir -p "$(dirname "$resolver")"
[ -e "$resolver" ] || cp "$1/resolv.conf" "$resolver"
shift
exec "$@"
"""


def call(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command and return standard output and standard error together, in order.

    `timeout` is in seconds (times LAB_PATIENCE). Raises LabError when the command fails and `check`
    is set, or when time is up.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout * PATIENCE,
            env=env,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as err:
        raise LabError(f"{' '.join(argv)}: not done after {timeout:g} s") from err
    if check and done.returncode:
        said = done.stdout[-_MOST_TOLD:]
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {said}")
    return done.stdout


class Engine:
    """One data root and the daemon that serves it, started and stopped at will."""

    def __init__(self) -> None:
        """Make the directory for everything that the engine keeps."""
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PARENT))
        for name in ("etc", "etc-work", "client"):
            (self.directory / name).mkdir()
        (self.directory / "owner").write_text(str(os.getpid()), encoding="ascii")
        (self.directory / "daemon.json").write_text("{}\n", encoding="ascii")
        self.cgroup = self.directory.name
        self._daemon: Child | None = None
        self._runs = 0

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the clients: this engine, none of the user's own settings."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
            "DOCKER_CONFIG": str(self.directory / "client"),
            # The builder that every engine has by itself; BuildKit needs a plugin of the client.
            "DOCKER_BUILDKIT": "0",
        }

    def start(self, namespace: Namespace | None, *options: str) -> None:
        """Start the daemon in a network namespace, or in the machine's own to build images."""
        self._runs += 1
        if namespace is None:
            options = ("--iptables=false", "--ip6tables=false", *options)
        directory = str(self.directory)
        argv = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation=private", "sh", "-c", _ENTER, "sh", directory),
            *("dockerd", f"--config-file={directory}/daemon.json"),
            *(f"--data-root={directory}/data", f"--exec-root={directory}/exec"),
            *(f"--pidfile={directory}/docker.pid", f"--host=unix://{directory}/docker.sock"),
            *("--bridge=none", f"--cgroup-parent=/{self.cgroup}", "--log-level=warn"),
            *options,
        ]
        log = self.directory / f"dockerd{self._runs}.log"
        self._daemon = Child(argv if namespace is None else namespace.command(argv), log)
        eventually(self._answers, timeout=60, what=f"dockerd:\n{log}", interval=0.1)

    def stop(self) -> None:
        """End every container and the daemon; the data root stays for the next start."""
        if self._daemon is None:
            return
        if containers := self.docker("ps", "-aq", check=False).split():
            self.docker("rm", "-f", *containers, check=False, timeout=120)
        # unshare holds the daemon, its child and the first process of its namespace.
        if self._daemon.exit_code is None:
            for child in _children(self._daemon.pid):
                os.kill(child, signal.SIGTERM)
        try:
            self._daemon.wait(30)
        finally:
            self._daemon.close()
            self._daemon = None

    def close(self) -> None:
        """Stop, and remove everything that there was."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory)
            _remove_cgroups(self.cgroup)

    def docker(
        self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> str:
        """Run the docker client; see `call`."""
        return call(
            ["docker", *argv], stdin=stdin, check=check, timeout=timeout, env=self.environment
        )

    def compose(self, *argv: str, cwd: Path, check: bool = True, timeout: float = 120) -> str:
        """Run docker-compose, or the client's own `compose` if that program is missing."""
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        return call([*program, *argv], check=check, timeout=timeout, env=self.environment, cwd=cwd)

    def _answers(self) -> bool:
        if self._daemon is None or self._daemon.exit_code is not None:
            said = self._daemon.output()[-_MOST_TOLD:] if self._daemon else ""
            raise LabError(f"dockerd has ended:\n{said}")
        answer = self.docker("version", "--format", "{{.Server.Version}}", check=False)
        return "Cannot connect" not in answer and answer[:1].isdigit()


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text(encoding="ascii").split()]


def _remove_cgroups(name: str) -> None:
    """Remove the groups that containers were in, innermost first, in either version's layout."""
    tops = [CGROUPS / name, *CGROUPS.glob(f"*/{name}")]
    for top in tops:
        if top.is_dir():
            for group, _, _ in os.walk(top, topdown=False):
                Path(group).rmdir()


def sweep() -> None:
    """Remove the directories and groups that runs which were killed have left behind."""
    for directory in _PARENT.glob(f"{_PREFIX}*"):
        owner = directory / "owner"
        if not owner.exists() or not Path("/proc", owner.read_text(encoding="ascii")).exists():
            shutil.rmtree(directory, ignore_errors=True)
            _remove_cgroups(directory.name)


def left_behind(name: str) -> list[str]:
    """Return what still has the name of an engine that was closed: files, groups, mounts."""
    places = [_PARENT / name, CGROUPS / name, *CGROUPS.glob(f"*/{name}")]
    found = [str(place) for place in places if place.exists()]
    for path in (*Path("/proc").glob("[0-9]*/cmdline"), Path("/proc/self/mountinfo")):
        with contextlib.suppress(OSError):  # a process that has ended in the meantime
            if name.encode() in path.read_bytes():
                found.append(str(path))
    return found


def missing() -> list[str]:
    """Return what this machine lacks to run a Docker Engine, in words for a person."""
    lacks = [
        f"the program {program}"
        for program in (
            "dockerd",
            "docker",
            "debootstrap",
            "unshare",
            "setpriv",
            "nsenter",
            "iptables",
            "ip",
        )
        if shutil.which(program) is None
    ]
    if not shutil.which("docker-compose") and "compose" not in call(
        ["docker", "help"], check=False
    ):
        lacks.append("docker-compose")
    if os.geteuid() != 0:
        lacks.append("root")
    if not Path("/dev/net/tun").exists():
        lacks.append("/dev/net/tun")
    return lacks
