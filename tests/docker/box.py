"""One container: what runs in it, what the engine says of it, where its link ends on the host."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from tests.docker.engine import Engine
from tests.lab.process import PATIENCE, eventually
from tests.lab.workload import PROBE_TIMEOUT, PROBES, Probe

LAB_DIRECTORY = Path(PROBES).parent
LAB_VOLUME = f"{LAB_DIRECTORY}:/lab:ro"
PYTHON = ("/usr/bin/python3", "-I", "-S")
NEVER = "0001-01-01"
"""The day on which a container was started that has not been started: zero in Go's reckoning."""


@dataclass(frozen=True)
class Box:
    """A container by its name."""

    engine: Engine
    name: str

    def exec(self, *argv: str, check: bool = True) -> str:
        """Run a command in the container and return its output."""
        return self.engine.docker("exec", self.name, *argv, check=check)

    def read(self, path: str) -> str:
        """Return what a file in the container says; the gateway's image has no program for that."""
        code = "import pathlib, sys; print(end=pathlib.Path(sys.argv[1]).read_text())"
        return self.exec(*PYTHON, "-c", code, path)

    def probe(self, name: str, /, **arguments: object) -> Probe:
        """Run one probe of the lab in the container, such as `probe("tcp", host="10.64.0.1")`."""
        given = {"timeout": PROBE_TIMEOUT * PATIENCE} | arguments
        words = [f"{key}={value}" for key, value in given.items()]
        fields = json.loads(self.exec(*PYTHON, "/lab/probes.py", name, *words))
        return Probe(
            fields["result"], fields["errno"], fields["seconds"], fields.get("seen"), fields
        )

    def inspect(self, template: str) -> str:
        """Return what `docker inspect` says by a template, such as "{{.State.Status}}"."""
        return self.engine.docker("inspect", "--format", template, self.name).strip()

    @property
    def state(self) -> str:
        """What the engine calls it: created, running, exited, and so on."""
        return self.inspect("{{.State.Status}}")

    @property
    def exists(self) -> bool:
        """Whether the engine knows such a container at all."""
        named = self.engine.docker("ps", "-a", "--format", "{{.Names}}").split()
        return self.name in named

    @property
    def started_ever(self) -> bool:
        """Whether it has been started at least once; Compose v2 makes containers long before."""
        return self.exists and not self.inspect("{{.State.StartedAt}}").startswith(NEVER)

    @property
    def health(self) -> str:
        """What HEALTHCHECK made of it: starting, healthy or unhealthy."""
        return self.inspect("{{.State.Health.Status}}")

    @property
    def exit_code(self) -> int:
        """Exit code of the last run."""
        return int(self.inspect("{{.State.ExitCode}}"))

    def reported(self) -> str:
        """Return the last line of the health check, as `docker inspect` shows it."""
        log = json.loads(self.inspect("{{json .State.Health.Log}}"))
        return log[-1]["Output"].strip() if log else ""

    def logs(self) -> str:
        """Return everything that the container has written."""
        return self.engine.docker("logs", self.name)

    def events(self, **wanted: object) -> list[dict[str, object]]:
        """Return the JSON lines that services in the container wrote, filtered by fields."""
        lines = [line for line in self.logs().splitlines() if line.startswith("{")]
        return [
            event
            for event in map(json.loads, lines)
            if all(event.get(name) == value for name, value in wanted.items())
        ]

    def wait_for_health(self, status: str, timeout: float = 30) -> float:
        """Wait until the engine calls it `status`; returns the seconds that took."""
        began = time.monotonic()
        eventually(
            lambda: self.health == status,
            timeout=timeout,
            what=f"{self.name} to be {status}; it says: {self.reported()!r}\n{self.logs()}",
            interval=0.1,
        )
        return time.monotonic() - began

    def wait_for_end(self, timeout: float = 15) -> int:
        """Wait until it has exited and return its exit code."""
        eventually(
            lambda: self.state == "exited", timeout=timeout, what=f"the end of {self.name}",
            interval=0.1,
        )  # fmt: skip
        return self.exit_code

    def far_end(self, link: str = "eth0") -> int:
        """Return the interface index, on the host, of the other end of a link."""
        return int(self.read(f"/sys/class/net/{link}/iflink"))

    def remove(self) -> None:
        """Kill and remove it; one that is gone is not an error."""
        self.engine.docker("rm", "-f", self.name, check=False)
