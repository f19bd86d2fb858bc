"""Workloads: processes in the gateway's namespace that the gateway did not start."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.hosts import Services
from tests.lab.namespace import Namespace
from tests.lab.probe_client import probe_server_of_this_process
from tests.lab.process import PATIENCE, Child, Household, run

PROBES = str(Path(__file__).with_name("probes.py"))
HOLDER = str(Path(__file__).with_name("holder.py"))
RIDER = str(Path(__file__).with_name("rider.py"))
XDP = str(Path(__file__).with_name("xdp.py"))
TRAFFIC = str(Path(__file__).with_name("traffic.py"))
PROBE_TIMEOUT = 2.0
"""Seconds that a probe waits for an answer, unless another time is given."""

DOCKER_CAPABILITIES = (
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
)
"""What Docker grants a container that asks for nothing (moby, oci/caps/defaults.go)."""


def with_capabilities(capabilities: Sequence[str] | None) -> list[str]:
    """Return the words that limit a command to these capabilities; None leaves them all."""
    if capabilities is None:
        return []
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return ["setpriv", f"--bounding-set={kept}", "--inh-caps=-all", "--"]


@dataclass(frozen=True)
class Probe:
    """What came of one probe."""

    result: str
    """connected, answered, sent, refused, unreachable, denied, timeout, unsupported or error."""
    errno: str | None
    """Name of the error, such as ECONNREFUSED."""
    seconds: float
    """Time from the first system call to the result."""
    seen: str | None
    """The address that the far end saw, where it returns one."""
    fields: Mapping[str, Any]
    """Everything that the probe printed."""

    @property
    def failed_fast(self) -> bool:
        """The kernel said no, instead of leaving the application to wait."""
        return self.result in {"refused", "unreachable", "denied"}


class Workload:
    """A place to run probes and programs: a namespace, a mount namespace, capabilities."""

    def __init__(
        self,
        namespace: Namespace,
        household: Household,
        *,
        mounts: Path | None = None,
        capabilities: Sequence[str] | None = DOCKER_CAPABILITIES,
    ) -> None:
        """Describe the workload.

        `mounts` is a /proc/PID/ns/mnt whose resolv.conf it shares, as Docker does for attached
        containers; `capabilities` are the default ones of Docker, None means all.
        """
        self.namespace = namespace
        self._household = household
        self._mounts = mounts
        self._capabilities = capabilities

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list that runs `argv` as this workload."""
        mounts = [] if self._mounts is None else [f"--mount={self._mounts}"]
        return [
            *("nsenter", f"--net={self.namespace.path}", *mounts, "--"),
            *with_capabilities(self._capabilities),
            *argv,
        ]

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        """Run a short command and return its output."""
        return run(self.command(argv), stdin=stdin, check=check)

    def probe(self, name: str, /, **arguments: object) -> Probe:
        """Run one probe of probes.py, such as `probe("tcp", host="198.51.100.10")`."""
        given = {"timeout": PROBE_TIMEOUT * PATIENCE} | arguments
        mounts = [] if self._mounts is None else [self._mounts]
        fields = probe_server_of_this_process().run(
            name,
            {key: str(value) for key, value in given.items()},
            namespaces=[self.namespace.path, *mounts],
            capabilities=self._capabilities,
        )
        return Probe(
            fields["result"], fields["errno"], fields["seconds"], fields.get("seen"), fields
        )

    def serve(self, *listed: dict[str, Any]) -> Services:
        """Start services (echo, http, dns of hosts.py) and return them, listening."""
        return Services(self.namespace, listed, self._household).wait()

    def flood(self, *kinds: str, marker: str = "flood-marker", **arguments: object) -> "Traffic":
        """Send without end; kinds and arguments as in traffic.py. The marker is in each payload."""
        return self._traffic("flood", kinds=",".join(kinds), marker=marker, **arguments)

    def stream(self, host: str, **arguments: object) -> "Traffic":
        """Keep one TCP connection or UDP flow alive, an exchange every `interval` seconds."""
        return self._traffic("stream", host=host, **arguments)

    def ride(self, resolver: str, device: str) -> Child:
        """Try to ride along with the gateway's question to `resolver`; see rider.py."""
        argv = self.command([sys.executable, "-I", "-S", RIDER, resolver, device])
        child = self._household.start(argv, "rider")
        child.wait_for("ready")
        return child

    def hold(self, path: str) -> Child:
        """Take a lease on a file and keep it, as often as the kernel gives one; see holder.py."""
        return self._household.start(
            self.command([sys.executable, "-I", "-S", HOLDER, path]), "holder"
        )

    def send_by_xdp(self, *jobs: Mapping[str, Any]) -> list[str]:
        """Try the jobs of xdp.py once each; return "sent" or the name of the error for each."""
        script = [sys.executable, "-I", "-S", XDP, "send"]
        return list(json.loads(self.run(*script, stdin=json.dumps(jobs))))

    def hold_queue(self, **job: object) -> Child:
        """Take a queue by AF_XDP whenever it is free, and send by it without end; see xdp.py."""
        argv = self.command([sys.executable, "-I", "-S", XDP, "hold", json.dumps(job)])
        child = self._household.start(argv, "xdp")
        child.wait_for("ready")
        return child

    def _traffic(self, name: str, **arguments: object) -> "Traffic":
        script = [sys.executable, "-I", "-S", TRAFFIC, name]
        argv = self.command([*script, *(f"{key}={value}" for key, value in arguments.items())])
        child = self._household.start(argv, name)
        child.wait_for("ready")
        return Traffic(child)


class Traffic:
    """A sender that sends until it is stopped, whatever happens to its packets."""

    def __init__(self, child: Child) -> None:
        """Wrap the running process."""
        self._child = child
        self.pid = child.pid

    def stop(self) -> dict[str, Any]:
        """Stop sending and return the counters: `sent`, `errors` by name, `kinds`."""
        self._child.signal(signal.SIGTERM)
        self._child.wait()
        self._child.close()
        lines = self._child.output().splitlines()
        return dict(json.loads(lines[-1]))

    def exchanges(self) -> list[dict[str, Any]]:
        """Return the stream's exchanges so far: `at`, `number`, `result`, `errno`."""
        lines = [line for line in self._child.output().splitlines() if line.endswith("}")]
        return [event for line in lines if "number" in (event := json.loads(line))]

    def close(self) -> None:
        """End the sender."""
        self._child.close()
