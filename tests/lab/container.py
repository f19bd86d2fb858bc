"""A container without an engine: mounts that stay, whatever process comes and goes inside."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, Household, run
from tests.lab.workload import DOCKER_CAPABILITIES, Workload, with_capabilities

GATEWAY_CAPABILITIES = (*DOCKER_CAPABILITIES, "net_admin")
"""Docker's default set with `cap_add: NET_ADMIN`."""

# The mounts of a container: a /run, a /var/lib/portcullis, a resolv.conf and a hosts of its own,
# and a /sys of its namespace. They outlive the process, because a container that restarts in place
# keeps them too. The mount point in /var/lib is all that is left behind.
_HOLD = """
set -e
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/portcullis
mount --bind "$3" /var/lib/portcullis
mkdir -p /run/wireguard /run/secrets
resolv=$(readlink -m /etc/resolv.conf)
mkdir -p "$(dirname "$resolv")"
[ -e "$resolv" ] || : > "$resolv"
mount --bind "$1" "$resolv"
mount --bind "$4" /etc/hosts
eval "$2"
echo ready
exec sleep infinity
"""
_READ_ONLY_PROC_SYS = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
_PROC = 'mount -t proc proc /proc && exec "$@"'
_WITHOUT_TUN = "mount -t tmpfs tmpfs /dev/net"


class Container:
    """A mount namespace held open in a network namespace, and how to run something in it."""

    def __init__(
        self,
        namespace: Namespace,
        household: Household,
        *,
        capabilities: Sequence[str] | None = GATEWAY_CAPABILITIES,
        pid_namespace: bool = False,
        joined: Callable[[], int] | None = None,
        read_only_proc_sys: bool = False,
        without_tun: bool = False,
        resolv_conf: str = "search example.test\nnameserver 127.0.0.11\noptions ndots:0\n",
        outside: Sequence[str] = (),
    ) -> None:
        """Make the mounts.

        `pid_namespace` makes the main process PID 1 of a namespace that dies with it; `joined`
        returns the id of a process whose process namespace it joins instead;
        `read_only_proc_sys` and `without_tun` take away what Docker takes away;
        `capabilities` None leaves all of them. `outside` are the words of a program that runs the
        main process's command line before it is in the container, such as one that joins a cgroup.
        """
        self.namespace = namespace
        self.pid_namespace = pid_namespace or joined is not None
        self._joined = joined
        self._household = household
        self._capabilities = capabilities
        self._outside = outside
        self._read_only_proc_sys = read_only_proc_sys
        resolver = household.file("resolv.conf")
        resolver.write_text(resolv_conf, encoding="utf-8")
        self.hosts = household.file("hosts")
        self.hosts.write_text("127.0.0.1 localhost\n", encoding="utf-8")
        layer = household.file("layer")
        layer.mkdir(mode=0o700)
        taken_away = [
            *([_READ_ONLY_PROC_SYS] if read_only_proc_sys else []),
            *([_WITHOUT_TUN] if without_tun else []),
        ]
        hold = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", _HOLD, "hold"]
        arguments = [str(resolver), " && ".join(taken_away), str(layer), str(self.hosts)]
        self._holder = household.start(namespace.command([*hold, *arguments]), "holder")
        self._holder.wait_for("ready")
        self.holder = self._holder.pid
        self._mounts = Path(f"/proc/{self.holder}/ns/mnt")
        self.root = Path(f"/proc/{self._holder.pid}/root")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list that runs `argv` as the container's main process."""
        argv = [*with_capabilities(self._capabilities), *argv]
        if self.pid_namespace and self._read_only_proc_sys:  # either way brings a writable one
            argv = ["sh", "-c", f'{_READ_ONLY_PROC_SYS} && exec "$@"', "sh", *argv]
        if self._joined:
            mounted = [*("unshare", "--mount", "--propagation", "slave", "--"), "sh", "-c", _PROC]
            entered = self._entered([*mounted, "sh", *argv])
            return [
                *self._outside,
                entered[0],
                f"--pid=/proc/{self._joined()}/ns/pid",
                *entered[1:],
            ]
        if self.pid_namespace:
            argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *argv]
        return [*self._outside, *self._entered(argv)]

    def execute(
        self, argv: Sequence[str], *, main: int, env: Mapping[str, str], stdin: str = ""
    ) -> tuple[int, str]:
        """Run a command next to the main process; return exit code and all output.

        `main` is the main process's id, whose process namespace is joined if it has its own.
        """
        entered = self._entered([*with_capabilities(self._capabilities), *argv])
        if self.pid_namespace:
            entered = [word for word in entered if not word.startswith("--mount=")]
            entered[1:1] = [f"--pid=/proc/{main}/ns/pid", f"--mount=/proc/{main}/ns/mnt"]
        done = subprocess.run(
            entered,
            input=stdin,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60 * PATIENCE,
        )
        return done.returncode, done.stdout

    def write(self, path: str, text: str, mode: int = 0o600) -> None:
        """Write a file under /run/secrets or /config."""
        if path.startswith("/config/") and not self._has_config():
            Path("/config").mkdir(exist_ok=True)  # the only thing left behind: a mount point
            run(self._entered(["mount", "-t", "tmpfs", "tmpfs", "/config"]))
        file = self.root / path.lstrip("/")
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def resolv_conf(self) -> str:
        """Return resolv.conf, which attached workloads share."""
        return (self.root / "etc/resolv.conf").read_text(encoding="utf-8")

    def workload(self, **options: Any) -> Workload:
        """Return a workload that shares resolv.conf, as an attached container does."""
        return Workload(self.namespace, self._household, mounts=self._mounts, **options)

    def close(self) -> None:
        """Give up the mounts."""
        self._holder.close()

    def _has_config(self) -> bool:
        mounts = Path(f"/proc/{self._holder.pid}/mounts").read_text(encoding="utf-8")
        return " /config " in mounts

    def _entered(self, argv: Sequence[str]) -> list[str]:
        return [
            *("nsenter", f"--net={self.namespace.path}", f"--mount={self._mounts}", "--"),
            *argv,
        ]
