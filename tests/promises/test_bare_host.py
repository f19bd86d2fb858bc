"""The gateway on a host without containers: docs/host.md.

It is installed as `pip install .` does it without a compiler, so without python-iptables, and the
host is a namespace with the uplink. What systemd does with the units is done by hand here;
tests/systemd has systemd do it.
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import units
from tests.lab.errors import LabError
from tests.lab.frames import addressed_to, is_multicast_report
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.installed import install
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS
from tests.lab.namespace import NETNS_DIRECTORY, Namespace
from tests.lab.process import Child, eventually, run
from tests.lab.topology import Lab
from tests.lab.workload import Workload

pytestmark = [pytest.mark.lab, pytest.mark.firewall("nftables"), pytest.mark.promise("P1")]

NAME = f"t{os.getpid()}"[:10]
HOST4 = INTERNET[0].ipv4
GATEWAY, WORKLOAD = "portcullis@.service", "workload.conf"
NAMESPACE = "portcullis-netns@.service"
SSH = 22


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the installed programs."""
    return install(tmp_path_factory.mktemp("installed"))


class Host:
    """The lab's namespace with the uplink as a host, and a gateway's namespace on it."""

    def __init__(self, lab: Lab, programs: Path) -> None:
        """Write the configuration to the places that the units name."""
        self.lab = lab
        self.places = {"programs": str(programs), "helpers": str(units.UNITS)}
        self.environment = {"PATH": os.environ["PATH"], "GATEWAY": f"{programs}/gateway"}
        self.namespace = Namespace(f"portcullis-{NAME}")
        self.secrets = Path("/etc/portcullis", NAME)
        self.unit = units.settings(GATEWAY, NAME)

    def netns(self, setting: str) -> None:
        """Run the commands of the namespace's unit on the host; LabError if one fails."""
        for line in units.settings(NAMESPACE, NAME)[setting]:
            argv = [units.placed(word, self.places) for word in shlex.split(line)]
            done = subprocess.run(
                self.lab.gateway_namespace.command(argv),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=60,
            )
            if done.returncode:
                raise LabError(f"{line}: {done.stdout}")

    def start(self) -> Child:
        """Start the gateway as its unit does, and run what the unit runs after that."""
        gateway = self.lab.gateway()
        given = gateway.env(WIREGUARD_PRIVATE_KEY=None, FIREWALL_BACKEND=None)
        key = self.secrets / "wireguard_private_key"
        key.touch(mode=0o600)
        key.write_text(self.lab.client.private, encoding="ascii")
        child = self.lab.household.start(
            self._command("ExecStart"), "unit", env=self.environment | given
        )
        words = self._command("ExecStartPost")
        run(["env", f"GATEWAY={self.environment['GATEWAY']}", *words])
        return child

    def _command(self, setting: str) -> list[str]:
        (line,) = self.unit[setting]
        return units.command(self.unit, shlex.split(line), self.places)

    def workload(self) -> Workload:
        """Return a place to ask from: the namespace."""
        return Workload(self.namespace, self.lab.household)

    def close(self) -> None:
        """Remove what the units and the script have made on the machine."""
        self.namespace.kill_all()
        self.netns("ExecStopPost")
        for directory in ("/etc/portcullis", "/var/lib/portcullis-netns"):
            shutil.rmtree(Path(directory, NAME), ignore_errors=True)


def sweep() -> None:
    """Remove the namespaces of runs that were killed, each with the number of its process."""
    for path in NETNS_DIRECTORY.glob("portcullis-t*"):
        if not Path("/proc", path.name.removeprefix("portcullis-t")).exists():
            Namespace(path.name).delete()


@pytest.fixture
def host(lab: Lab, programs: Path) -> Iterator[Host]:
    """Yield a host whose namespace for a gateway is made."""
    sweep()
    made = Host(lab, programs)
    try:
        made.netns("ExecStart")
        yield made
    finally:
        made.close()


def test_systemd_understands_each_line_of_the_units(programs: Path, tmp_path: Path) -> None:
    """With the programs where this test has them. The drop-in belongs to a unit of another kind."""
    for unit in units.UNITS.glob("*.service"):
        text = unit.read_text(encoding="utf-8")
        for directory, key in units.INSTALLED.items():
            place = {"programs": str(programs), "helpers": str(units.UNITS)}[key]
            text = text.replace(f"={directory}", f"={place}/")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    (tmp_path / "other.service").write_text("[Service]\nExecStart=/bin/true\n", "ascii")
    drop_in = tmp_path / "other.service.d" / "portcullis.conf"
    drop_in.parent.mkdir()
    text = (units.UNITS / WORKLOAD).read_text(encoding="utf-8")
    drop_in.write_text(text.replace("NAME", "home"), encoding="utf-8")
    names = ("portcullis@home", "portcullis-netns@home", "portcullis-host", "other")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(f"{name}.service" for name in names)],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "ortcullis" in line or "other" in line]
    assert (done.returncode, said) == (0, [])


def test_what_pip_installs_without_a_compiler_checks_a_configuration(
    programs: Path, lab: Lab
) -> None:
    """`gateway check` needs no python-iptables, whichever firewall it shows the rules of."""
    for firewall, word in (("nftables", "ct state"), ("iptables", "COMMIT")):
        done = subprocess.run(
            [str(programs / "gateway"), "check", "--rules", firewall],
            env=lab.gateway().env(FIREWALL_BACKEND=firewall),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert word in done.stdout


def test_without_a_compiler_iptables_is_refused_with_what_to_install(
    programs: Path, lab: Lab
) -> None:
    """The namespace stays closed."""
    gateway = lab.gateway(argv=[str(programs / "gateway")])
    gateway.start(gateway.env(FIREWALL_BACKEND="iptables"))
    gateway.wait()
    assert "pip install" in gateway.logs()
    assert lab.workload.probe("tcp", host=HOST4).failed_fast


def test_a_host_without_a_firewall_is_closed_and_the_log_says_what_to_install(
    programs: Path, lab: Lab
) -> None:
    """Neither nftables nor the legacy tools are there: the links go down."""
    assert lab.workload.probe("udp", host=HOST4).result == "answered", "control"
    hidden = "mount -t tmpfs tmpfs /usr/sbin && mount -t tmpfs tmpfs /usr/local/sbin && exec $0"
    argv = ["unshare", "--mount", "--propagation=private", "sh", "-c", hidden]
    gateway = lab.gateway(argv=[*argv, str(programs / "gateway")], capabilities=None)
    gateway.start(gateway.env())
    assert gateway.wait() == 1
    assert "apt install nftables" in gateway.logs()
    assert "every link is down" in gateway.logs()
    assert lab.workload.probe("udp", host=HOST4).failed_fast


def test_a_unit_behind_a_gateway_leaves_through_the_tunnel_alone(host: Host) -> None:
    """From before the gateway starts until after it was killed, and its name is not the host's."""
    lab, workload = host.lab, host.workload()
    control = lab.workload.probe("udp", host=HOST4, marker="of-the-host")
    assert control.result == "answered"
    assert lab.capture.containing("of-the-host"), "control: what the host itself sends is seen"
    since = time.monotonic()
    flood = workload.flood("udp4", "tcp4", host4=HOST4, marker="must-not-leave", rate=100)
    assert workload.probe("tcp", host=HOST4).failed_fast, "it is closed without a gateway"

    gateway = host.start()
    assert workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    assert '"firewall": "nftables"' in gateway.output()

    gateway.signal(signal.SIGKILL)
    gateway.wait()
    refused = lambda: workload.probe("tcp", host=HOST4, timeout=1).failed_fast  # noqa: E731
    eventually(refused, timeout=10, what="the end of the tunnel with wireguard-go")
    again = host.start()
    assert workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    flood.close()
    again.close()
    assert not lab.capture.containing("must-not-leave")
    assert lab.leaks(since, allowed=[is_multicast_report]) == []  # the host's own, for its address


class Locked:
    """The gateway on the host itself, whose namespace the lab's is, and an SSH server on it."""

    def __init__(self, lab: Lab, programs: Path) -> None:
        """Serve SSH, and connect to it from the LAN."""
        self.lab = lab
        self.programs = programs
        lab.operator.serve(echo("0.0.0.0", SSH))
        self.address = lab.uplink.gateway.ipv4
        self.session = lab.lan.stream(self.address, port=SSH, timeout=30)
        eventually(self.session.exchanges, timeout=5, what="the first exchange of the session")

    def gateway(self, **variables: str) -> Gateway:
        """Return the gateway, started on what it takes for the host."""
        code = (
            "import sys; from gateway.lock import host; from gateway.__main__ import main;"
            "host.HOST_ONLY = '/proc/self/stat'; sys.argv = ['gateway']; raise SystemExit(main())"
        )
        made = self.lab.gateway(argv=[str(self.programs / "python"), "-I", "-c", code])
        listed = {
            "FIREWALL_INPUT_PORTS": f"{SSH}/tcp",
            "FIREWALL_OUTBOUND_SUBNETS": LAN_SUBNETS.ipv4,
        }
        made.start(made.env(**listed, **variables))
        return made

    def answers(self) -> bool:
        """Return whether the session that was there before is answered now."""
        seen = len(self.session.exchanges())
        time.sleep(0.5)
        later = self.session.exchanges()[seen:]
        return any(not exchange["errno"] for exchange in later)


@pytest.fixture
def whole(lab: Lab, programs: Path) -> Iterator[Locked]:
    """Yield a host with a session of SSH, without a gateway yet."""
    made = Locked(lab, programs)
    yield made
    made.session.close()


def test_the_host_itself_is_not_locked_unless_that_was_asked_for(whole: Locked) -> None:
    """It ends with what to write, and SSH and the host's own traffic continue."""
    gateway = whole.gateway()
    assert gateway.wait() == 2
    assert "PORTCULLIS_HOST=on" in gateway.logs()
    assert whole.answers()
    assert whole.lab.workload.probe("tcp", host=HOST4).seen == whole.address


def test_a_locked_host_keeps_ssh_from_its_lan_and_nothing_else(whole: Locked) -> None:
    """Sessions that were there, and later ones. They outlive the tunnel; all else is in it."""
    lab = whole.lab
    gateway = whole.gateway(PORTCULLIS_HOST="on")
    gateway.wait_healthy()
    since = time.monotonic()
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    assert lab.lan.probe("tcp", host=whole.address, port=SSH).seen == LAN_HOST.ipv4
    eventually(whole.answers, timeout=10, what="an answer to the session that was there before")

    gateway.kill()
    assert lab.workload.probe("tcp", host=HOST4).failed_fast
    gateway.restart(gateway.environment)
    gateway.wait_healthy()
    eventually(whole.answers, timeout=10, what="an answer to the session after a crash")
    ours = [addressed_to(LAN_HOST.ipv4)]
    assert lab.leaks(since, allowed=ours) == []
