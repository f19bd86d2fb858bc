"""The gateway with less than it asks for, and with the least that it needs: docs/image.md.

Limitations: a container without NET_ADMIN cannot close its own namespace; it ends, and its
namespace with it unless another process holds that. No workload can join before it runs.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.docker.box import LAB_VOLUME, Box
from tests.docker.images import PROJECT
from tests.docker.project import OFTEN, gateway_environment
from tests.docker.site import EXIT, HOST, UPLINK, Site, gateway_address, neighbour, temporary
from tests.lab.frames import leaks

pytestmark = pytest.mark.docker

NUMBER = 1
TUN = ("--device", "/dev/net/tun")
ADMIN = ("--cap-add", "NET_ADMIN")
IPV6 = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
LEAST = ("--cap-drop", "ALL", *ADMIN, "--cap-add", "NET_RAW")
LEAST_FOR_NFTABLES = ("--cap-drop", "ALL", *ADMIN)
READ_ONLY = ("--read-only", "--tmpfs", "/run/wireguard")
NO_NEW_PRIVILEGES = ("--security-opt", "no-new-privileges")

Start = Callable[..., Box]


@pytest.fixture
def start(site: Site) -> Iterator[Start]:
    """Return a function that starts a gateway with options of `docker run` and variables."""
    box = Box(site.engine, "lesser")
    secret = temporary(
        site.household.directory, "lesser/wireguard_private_key", site.gateway_keys[NUMBER].private
    )

    def run(*options: str, **variables: str) -> Box:
        environment = gateway_environment(site, NUMBER) | variables
        words = [word for pair in environment.items() for word in ("-e", "=".join(pair))]
        address = gateway_address(NUMBER)
        site.engine.docker(
            *("run", "-d", "--name", box.name, "--network", UPLINK, OFTEN),
            *("--ip", address.ipv4, "--ip6", address.ipv6),
            *("-v", f"{secret}:/run/secrets/wireguard_private_key:ro"),
            *(*options, *words, PROJECT),
        )
        return box

    yield run
    box.remove()


@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    ("options", "variables", "named"),
    [
        pytest.param(TUN, {}, ["NET_ADMIN", "cap_add"], id="no-net-admin"),
        pytest.param((*ADMIN, *IPV6), {}, ["/dev/net/tun", "devices:"], id="no-tun"),
        pytest.param(
            (*ADMIN, *IPV6),
            {"WIREGUARD_IMPLEMENTATION": "userspace"},
            ["/dev/net/tun", "devices:"],
            id="no-tun-userspace",
        ),
        pytest.param(
            (*ADMIN, *TUN),
            {"WIREGUARD_IMPLEMENTATION": "kernelspace"},
            ["WireGuard", "modprobe wireguard"],
            id="no-kernel-wireguard",
        ),
        pytest.param(
            (*ADMIN, *TUN, *IPV6, "--read-only"),
            {},
            ["/run/wireguard", "tmpfs:"],
            id="read-only-without-tmpfs",
        ),
        pytest.param((*ADMIN, *TUN, "--user", "1000"), {}, ["root"], id="not-root"),
        pytest.param(
            (*TUN, *LEAST_FOR_NFTABLES),
            {"FIREWALL_BACKEND": "iptables"},
            ["NET_RAW", "cap_add"],
            id="iptables-without-net-raw",
        ),
        pytest.param(
            (*ADMIN, *TUN),
            {"WIREGUARD_ENDPOINT_PORT": "no-port"},
            ["WIREGUARD_ENDPOINT_PORT", "no-port"],
            id="wrong-variable",
        ),
    ],
)
def test_what_is_missing_ends_it_with_the_remedy(
    site: Site, start: Start, options: tuple[str, ...], variables: dict[str, str], named: list[str]
) -> None:
    """It exits non-zero, the log says what is missing and what to do, and nothing has left.

    Control: another container's packet is captured at the same place.
    """
    capture = site.capture_network(UPLINK)
    box = start(*options, **variables)
    assert box.wait_for_end() != 0
    logs = box.logs()
    assert "Traceback" not in logs
    assert [word for word in named if word not in logs] == [], logs
    site.control(capture)
    own = set(gateway_address(NUMBER))
    sent = [frame for frame in capture.frames() if frame.source in own]
    assert leaks(sent, [neighbour(NUMBER)]) == []


@pytest.mark.parametrize(
    ("options", "variables", "firewall"),
    [
        pytest.param((*ADMIN, *IPV6), {}, "iptables", id="documented"),
        pytest.param((*LEAST, *IPV6), {}, "iptables", id="least"),
        pytest.param((*LEAST_FOR_NFTABLES, *IPV6), {}, "nftables", id="least-for-nftables"),
        pytest.param((*ADMIN, *IPV6, *READ_ONLY), {}, "iptables", id="read-only"),
        pytest.param(
            (*ADMIN, *IPV6, "--read-only", "--tmpfs", "/run"), {}, "iptables", id="read-only-run"
        ),
        pytest.param((*ADMIN, *IPV6, *NO_NEW_PRIVILEGES), {}, "iptables", id="no-new-privileges"),
        pytest.param(
            (*LEAST, *IPV6, *NO_NEW_PRIVILEGES, *READ_ONLY), {}, "iptables", id="everything"
        ),
    ],
)
def test_it_works_with_little(
    site: Site, start: Start, options: tuple[str, ...], variables: dict[str, str], firewall: str
) -> None:
    """Healthy, a workload's traffic leaves by the tunnel in both families, and by nothing else.

    Control: the capture sees the encrypted flow.
    """
    box = start(*TUN, *options, **variables)
    box.wait_for_health("healthy")
    assert f'"firewall": "{firewall}"' in box.logs()
    capture = site.capture_of(box, NUMBER)
    workload = site.run(
        *("lesser-workload", "-v", LAB_VOLUME, "--network", f"container:{box.name}"),
        command=["sleep", "infinity"],
    )
    try:
        assert workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
        assert workload.probe("tcp", host=HOST.ipv6).seen == EXIT.ipv6
        assert workload.probe("udp", host=HOST.ipv4, device="eth0").result != "answered"
    finally:
        workload.remove()
    assert site.leaks(capture) == []


@pytest.mark.promise("P5")
def test_ipv6_that_docker_switched_off_stays_refused(site: Site, start: Start) -> None:
    """Without the sysctl of the example new links have no IPv6: IPv4 works, IPv6 fails at once.

    The log names the sysctl. Control: the capture sees the encrypted flow.
    """
    box = start(*TUN, *ADMIN)
    box.wait_for_health("healthy")
    assert "net.ipv6.conf.all.disable_ipv6" in box.logs()
    capture = site.capture_of(box, NUMBER)
    workload = site.run(
        *("lesser-workload", "-v", LAB_VOLUME, "--network", f"container:{box.name}"),
        command=["sleep", "infinity"],
    )
    try:
        assert workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
        tried = workload.probe("tcp", host=HOST.ipv6)
        assert tried.failed_fast, tried
    finally:
        workload.remove()
    assert site.leaks(capture) == []


def test_names_with_a_read_only_root_need_a_resolver_file_of_the_users_own(
    site: Site, start: Start
) -> None:
    """Docker then mounts resolv.conf read-only, and this is reported; a mounted file helps."""
    box = start(*TUN, *ADMIN, *IPV6, *READ_ONLY)
    box.wait_for_health("healthy")
    assert "mount a file of your own at /etc/resolv.conf" in box.logs()
    box.remove()
    resolver = temporary(site.household.directory, "lesser/resolv.conf", "")
    volume = f"{resolver}:/etc/resolv.conf"
    box = start(*TUN, *ADMIN, *IPV6, *READ_ONLY, "-v", volume)
    box.wait_for_health("healthy")
    workload = site.run(
        *("lesser-workload", "-v", LAB_VOLUME, "--network", f"container:{box.name}"),
        *("--read-only", "-v", volume),
        command=["sleep", "infinity"],
    )
    try:
        assert workload.probe("resolve", name="read-only.example").result == "answered"
    finally:
        workload.remove()
