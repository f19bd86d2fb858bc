"""docs/migrating.md: every block on the page works."""

import re
from pathlib import Path

import pytest
import yaml

from gateway.commands.check.compose import read_service
from gateway.commands.check.mounting import Mounts
from gateway.model import Secret
from gateway.settings.assemble import Loaded
from gateway.settings.findings import Findings
from tests.configurations import (
    OTHER_PRIVATE,
    PRESHARED,
    PRIVATE,
    QUICK,
    load_service,
    put,
    reported,
)

PAGE_PATH = Path(__file__).parents[2] / "docs" / "migrating.md"
PAGE = PAGE_PATH.read_text()
BLOCKS = dict(re.findall(r"<!-- ([^\n]+?) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL))

HOOKS = "PostUp = iptables -I OUTPUT -d 192.168.1.0/24 -j ACCEPT\nPreDown = true\n"


def load(folder: Path, name: str, *, image: str | None = None) -> Loaded:
    """Check a block of the page, and the files that it mounts next to it."""
    # A test may not write to /etc; that the command of the page mounts it is tried below.
    text = BLOCKS[name].replace("/etc/wireguard/", f"{folder}/etc/wireguard/")
    if image:
        text = re.sub(r"image: \S+", f"image: {image}", text, count=1)
    put(folder, "compose.yml", text)
    put(folder, "wg0.conf", QUICK)
    put(folder, "etc/wireguard/wg0.conf", QUICK)
    put(folder, "config/wg0.conf", QUICK.replace("[Peer]", f"{HOOKS}[Peer]"))
    put(folder, "secrets/wireguard_private_key", PRIVATE)
    put(folder, "secrets/wireguard_preshared_key", PRESHARED)
    service = re.findall(r"^  (\w+):", text, re.MULTILINE)[0]
    return load_service(folder / "compose.yml", service, {})


@pytest.mark.parametrize("name", [name for name in BLOCKS if name.endswith("after")])
def test_what_the_page_says_to_write_works(tmp_path: Path, name: str) -> None:
    """Each block loads, with no notice except those that the page explains."""
    loaded = load(tmp_path, name)
    expected = (
        "no IPv6 address, so IPv6 is refused",
        "commands in wg-quick files are never run",
    )
    for notice in loaded.notices:
        assert notice.message.endswith(expected[0]) or expected[1] in notice.message


def test_the_command_of_the_page_sees_every_file_of_its_blocks(tmp_path: Path) -> None:
    """Absolute paths are mounted at the same path; the others are next to the compose file."""
    command = PAGE.partition("docker run ")[2].partition("\n## ")[0]
    mounted = dict(re.findall(r"-v \"?([^\s:\"]+):([^\s:\"]+)", command))
    assert all(here == there for here, there in mounted.items())
    assert re.search(r'-w "\$PWD"', command)
    assert "$PWD" in mounted
    read = {
        str(mount.source)
        for name, block in BLOCKS.items()
        if name.endswith("after")
        for mount in mounts_of(tmp_path, block).values()
    }
    assert "/etc/wireguard/wg0.conf" in read  # positive control: there is such a path
    for path in read:
        assert any(path.startswith(place) for place in (f"{tmp_path}/", *mounted)), path


def mounts_of(folder: Path, block: str) -> Mounts:
    """Return what the first service of a block mounts."""
    put(folder, "compose.yml", block)
    service = re.findall(r"^  (\w+):", block, re.MULTILINE)[0]
    return read_service(folder / "compose.yml", service, {}, Findings()).mounts


def test_there_is_an_after_for_each_image() -> None:
    """And a before where there is a compose file before."""
    assert set(BLOCKS) == {
        "gluetun: before",
        "gluetun: after",
        "gluetun with a file: after",
        "gluetun with an anchor: after",
        "linuxserver: before",
        "linuxserver: after",
        "wg-quick: after",
    }


def test_a_gluetun_file_works_by_changing_the_image(tmp_path: Path) -> None:
    """The same tunnel, with a notice for what has no meaning and for what stays closed."""
    before = load(tmp_path, "gluetun: before", image="portcullis")
    after = load(tmp_path, "gluetun: after")
    assert before.config.tunnels == after.config.tunnels
    assert before.config.tunnels[0].private_key == Secret(PRIVATE)
    assert before.config.outbound_subnets == after.config.outbound_subnets
    assert before.config.vpn_input_ports == after.config.vpn_input_ports
    for line in (
        "VPN_ENDPOINT_IP: is the older name of WIREGUARD_ENDPOINT_IP",
        "DNS_PLAINTEXT_ADDRESS: is the older name of DNS_ADDRESS",
        "is the older name of DNS_ADDRESS",
        "WIREGUARD_PRIVATE_KEY: the private key is in the environment",
        "port 8080/tcp is published but stays closed until FIREWALL_INPUT_PORTS lists it",
        "ports 6881/tcp, 6881/udp are published, but clients come through the tunnel",
    ):
        assert line in reported(before)


def test_a_linuxserver_file_works_by_changing_the_image(tmp_path: Path) -> None:
    """The same tunnel; the commands in its file are named, its variables are not needed."""
    before = load(tmp_path, "linuxserver: before", image="portcullis")
    after = load(tmp_path, "linuxserver: after")
    assert before.config.tunnels == after.config.tunnels
    assert before.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
    for line in (
        "PostUp, PreDown: commands in wg-quick files are never run",
        "PUID: not needed: ",
        "LOG_CONFS: not needed: ",
        "port 8080/tcp is published but stays closed",
    ):
        assert line in reported(before)


def test_the_compose_file_of_the_readme_works(tmp_path: Path) -> None:
    """The first file that a new user copies is complete, with a provider or with a file."""
    readme = (PAGE_PATH.parents[1] / "README.md").read_text("utf-8")
    provider, file = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    put(tmp_path, "compose.yml", provider)
    put(tmp_path, "secrets/wireguard_private_key", PRIVATE)
    put(tmp_path, "secrets/wg0.conf", QUICK)
    fetched = "the gateway fetches it from api.mullvad.net, outside the tunnel, before it connects"
    without_ipv6 = "the tunnel has no IPv6 address, so IPv6 is refused"
    loaded = load_service(tmp_path / "compose.yml", "gateway", {})
    assert [notice.message for notice in loaded.notices] == [
        f"the list of servers is not there yet: {fetched}",
        without_ipv6,
    ]
    whole, other = yaml.safe_load(provider), yaml.safe_load(file)
    for part in ("services", "secrets"):
        whole[part] |= other[part]
    put(tmp_path, "compose.yml", yaml.safe_dump(whole))
    loaded = load_service(tmp_path / "compose.yml", "gateway", {})
    assert [notice.message for notice in loaded.notices] == [without_ipv6]
