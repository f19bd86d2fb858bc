"""`gateway check --migrate`: a compose file rewritten for this image, with its comments."""

from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway import cli
from tests.configurations import QUICK, put

BEFORE = """\
# My stack
services:
  vpn: # the gateway
    image: qmcgaw/gluetun:v3 # pinned
    container_name: vpn
    cap_add: [NET_ADMIN]
    environment:
      # The provider
      - VPN_SERVICE_PROVIDER=mullvad
      - PUID=1000
      - HTTPPROXY=on # for the phone
      - SHADOWSOCKS=on
      - TZ=Europe/Berlin
    ports:
      # Web interface
      - 8080:8080
      - ${TORRENT:-6881}:6881
      - 6881:6881/udp # peers
    healthcheck:
      test: ping -c 1 1.1.1.1
      # often
      interval: 5s

    restart: always
    volumes: ["./vpn:/gluetun/wireguard"]

  # The workload
  app:
    image: nginx # any
    network_mode: service:vpn
"""

AFTER = """\
# My stack
services:
  vpn: # the gateway
    image: portcullis # pinned
    container_name: vpn
    cap_add: [NET_ADMIN]
    environment:
      # The provider
      - VPN_SERVICE_PROVIDER=mullvad
      - HTTPPROXY=on # for the phone
      # not supported: use SOCKS5_ENABLED=on, or a Shadowsocks server with network_mode: service:vpn
      # - SHADOWSOCKS=on
      - TZ=Europe/Berlin
      - FIREWALL_INPUT_PORTS=8080/tcp
    ports:
      # Web interface
      - 8080:8080

    restart: always
    volumes: ["./vpn:/gluetun/wireguard"]

  # The workload
  app:
    image: nginx # any
    network_mode: service:vpn
"""


@pytest.fixture(autouse=True)
def vpn_file(tmp_path: Path) -> None:
    """Put the file there that the services mount."""
    put(tmp_path, "vpn/wg0.conf", QUICK)


def migrated(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str], code: int = 0
) -> tuple[str, str]:
    """Return what is printed for a compose file: the new one, and what is left to do."""
    put(folder, "compose.yml", text)
    file = str(folder / "compose.yml")
    capsys.readouterr()
    assert cli.main(["check", "--compose", file, "--service", "vpn", "--migrate"]) == code
    said = capsys.readouterr()
    assert (folder / "compose.yml").read_bytes().decode() == text  # nothing is written
    return said.out, said.err


def test_only_what_has_to_change_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments, order, blank lines and the other services stay; nothing is left to do."""
    new, left = migrated(tmp_path, BEFORE, capsys)
    assert new == AFTER
    assert "To " not in left
    again, _ = migrated(tmp_path, new, capsys)
    assert again == new


def test_the_ends_of_lines_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Windows' too, and the missing one of the last line."""
    new, _ = migrated(tmp_path, BEFORE.replace("\n", "\r\n"), capsys)
    assert new == AFTER.replace("\n", "\r\n")
    short = "services:\n  vpn:\n    image: x\n    volumes: ['./vpn:/config']\n    expose: [80]"
    new, _ = migrated(tmp_path, short, capsys)
    assert new == short.replace("image: x", "image: portcullis") + (
        '\n    environment:\n      FIREWALL_INPUT_PORTS: "80/tcp"\n'
        "    cap_add:\n      - NET_ADMIN\n"
    )


HEAD = "services:\n  vpn:\n    image: portcullis\n    volumes: ['./vpn:/config']\n"
CHANGES = {
    "a mapping": (
        (
            "    cap_add:\n    - SYS_MODULE\n    environment:\n      PUID: 1 # me\n      TZ: UTC\n"
            "      DNS_KEEP_NAMESERVER: 'on'\n    expose: [80]\n"
        ),
        (
            "    cap_add:\n    - NET_ADMIN\n    environment:\n      TZ: UTC\n"
            "      # not supported: use DNS_ADDRESS; the container's own resolver is asked outside "
            "the tunnel\n      # DNS_KEEP_NAMESERVER: 'on'\n"
            '      FIREWALL_INPUT_PORTS: "80/tcp"\n    expose: [80]\n'
        ),
    ),
    "brackets": (
        (
            "    cap_add: []\n    environment: {PUID: 1, TZ: 'UTC'}\n"
            "    ports: ['6881:6881', \"80:80\"]\n"
        ),
        (
            "    cap_add: [NET_ADMIN]\n"
            "    environment: {TZ: 'UTC', FIREWALL_INPUT_PORTS: \"80/tcp\"}\n"
            '    ports: ["80:80"]\n'
        ),
    ),
    "names that are wrong": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      - FIREWALL=off\n"
            "      - 'LOG_LEVLE=debug' # more\n      - VPN_TYPE=openvpn\n"
        ),
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      - 'LOG_LEVEL=debug' # more\n"
            "      - VPN_TYPE=wireguard\n"
        ),
    ),
    "names of a mapping that are wrong": (
        "    cap_add: [NET_ADMIN]\n    environment: {FIREWALL: on, LOG_LEVLE: debug}\n",
        "    cap_add: [NET_ADMIN]\n    environment: {LOG_LEVEL: debug}\n",
    ),
    "names in a block that are wrong": (
        "    cap_add: [NET_ADMIN]\n    environment:\n      wireguard_mtu: 1400\n",
        "    cap_add: [NET_ADMIN]\n    environment:\n      WIREGUARD_MTU: 1400\n",
    ),
    "a name that is wrong, whose value is set": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      FIREWALL_INPUT_PORT: 9000/tcp\n"
            "      TZ: UTC\n    ports: ['80:80']\n"
        ),
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      TZ: UTC\n"
            "      FIREWALL_INPUT_PORTS: \"9000/tcp,80/tcp\"\n    ports: ['80:80']\n"
        ),
    ),
    "a value in a block": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      VPN_TYPE: >-\n        openvpn\n"
            "      TZ: |\n        UTC\n"
        ),
        (
            '    cap_add: [NET_ADMIN]\n    environment:\n      VPN_TYPE: "wireguard"\n'
            "      TZ: |\n        UTC\n"
        ),
    ),
    "ports that count once the network is its own": (
        "    cap_add: [NET_ADMIN]\n    network_mode: host\n    ports: ['8888:8888']\n",
        "    cap_add: [NET_ADMIN]\n",
    ),
    "names of other images": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n"
            "      LOCAL_NETWORK: 192.168.77.0/24 # home\n      VPN_INPUT_PORTS: 81\n"
            "    expose: [80]\n"
        ),
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n"
            "      FIREWALL_OUTBOUND_SUBNETS: 192.168.77.0/24 # home\n"
            '      FIREWALL_INPUT_PORTS: "81/tcp,81/udp,80/tcp"\n    expose: [80]\n'
        ),
    ),
    "needless capabilities": (
        "    cap_add: [CAP_NET_ADMIN, sys_module]\n",
        "    cap_add: [CAP_NET_ADMIN]\n",
    ),
    "a capability that is the last": (
        "    privileged: true\n    cap_add:\n      - SYS_MODULE # for the kernel\n",
        "    privileged: true\n",
    ),
    "a list in brackets": (
        "    cap_add: [NET_ADMIN]\n    environment: [TZ=UTC, 'S6_X=1']\n    expose: [80]\n",
        (
            '    cap_add: [NET_ADMIN]\n    environment: [TZ=UTC, "FIREWALL_INPUT_PORTS=80/tcp"]\n'
            "    expose: [80]\n"
        ),
    ),
    "a value that is replaced": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      FIREWALL_INPUT_PORTS: 1/tcp # mine\n"
            "    ports: ['80:80']\n"
        ),
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n"
            "      FIREWALL_INPUT_PORTS: \"1/tcp,80/tcp\" # mine\n    ports: ['80:80']\n"
        ),
    ),
    "the last entries": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      - PUID=1\n    ports:\n"
            "      - target: 8888\n        published: 8888\n      - 8388:8388\n    user: '1000'\n"
        ),
        "    cap_add: [NET_ADMIN]\n",
    ),
    "only comments left": (
        "    cap_add: [NET_ADMIN]\n    environment:\n      - DOCKER_MODS=x\n    tty: true\n",
        (
            "    cap_add: [NET_ADMIN]\n    environment: {}\n"
            "      # not supported: use an image of your own\n      # - DOCKER_MODS=x\n"
            "    tty: true\n"
        ),
    ),
    "a resolver that is not there": (
        (
            "    cap_add: [NET_ADMIN]\n    environment:\n      - DNS_ADDRESS=127.0.0.1\n"
            "      - DNS_SERVER=off\n"
        ),
        "    cap_add: [NET_ADMIN]\n    environment:\n      - DNS_SERVER=off\n",
    ),
    "keys that break it": (
        (
            "    cap_add: [NET_ADMIN]\n    network_mode: host\n    entrypoint: |\n      /bin/sh\n"
            "      x\n    tty: true\n    command: sleep\n"
        ),
        "    cap_add: [NET_ADMIN]\n    tty: true\n    command: sleep\n",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_form_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Lists and mappings, in brackets and in blocks."""
    before, after = CHANGES[kind]
    code = 2 if "command" in after else 0
    new, _ = migrated(tmp_path, HEAD.replace("portcullis", "'other:1'") + before, capsys, code)
    assert new == HEAD + after


UNTOUCHED = {
    "a service in one line": "services:\n"
    "  vpn: {image: x, volumes: ['./vpn:/config'], expose: [1]}\n",
    "shared variables": "x-env: &env {PUID: 1}\nservices:\n  vpn:\n    image: portcullis\n"
    "    cap_add: [NET_ADMIN]\n    volumes: ['./vpn:/config']\n    expose: [1]\n"
    "    environment: *env\n",
    "variables that others share": "services:\n  vpn:\n    image: portcullis\n"
    "    cap_add: [NET_ADMIN]\n    volumes: ['./vpn:/config']\n    expose: [1]\n"
    "    environment: &env\n      PUID: 1\n  app: {environment: *env}\n",
}


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_what_others_share_is_not_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """It is reported, with what to write by hand."""
    new, left = migrated(tmp_path, UNTOUCHED[kind], capsys)
    assert new == UNTOUCHED[kind]
    assert "cannot be changed here" in left
    assert "FIREWALL_INPUT_PORTS: 1/tcp" in left


def test_an_anchor_loses_its_ports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are in the service that owns the network; its image is changed by a run of its own."""
    text = (
        "services:\n  vpn:\n    image: x\n    cap_add: [NET_ADMIN]\n"
        "    volumes: ['./vpn:/config']\n    network_mode: service:net\n  net:\n"
        "    image: y\n    ports:\n      - 80:80\n      - 6881:6881\n"
    )
    new, _ = migrated(tmp_path, text, capsys)
    found = yaml.safe_load(new)["services"]
    assert found["net"] == {"image": "y", "ports": ["80:80"]}
    assert found["vpn"]["environment"] == {"FIREWALL_INPUT_PORTS": "80/tcp"}


def test_the_standard_input_is_rewritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths begin at the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(BEFORE.encode())))
    assert cli.main(["check", "--compose", "-", "--service", "vpn", "--migrate"]) == 0
    assert capsys.readouterr().out == AFTER


def test_what_stays_wrong_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the file as far as it can be changed, and the exit code of a problem."""
    text = BEFORE.replace("TZ=Europe/Berlin", "WIREGUARD_MTU=9")
    new, left = migrated(tmp_path, text, capsys, code=2)
    assert "image: portcullis # pinned" in new
    assert "WIREGUARD_MTU: must be 576" in left


def test_only_a_compose_file_is_rewritten(capsys: pytest.CaptureFixture[str]) -> None:
    """The option is not silently without effect."""
    assert cli.main(["check", "--migrate"]) == 2
    assert "--migrate: rewrites a compose file; name it with --compose" in capsys.readouterr().err


def test_a_file_without_the_service_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed that could be taken for a file."""
    new, left = migrated(tmp_path, "services: {other: {}}\n", capsys, code=2)
    assert not new
    assert "has no service 'vpn'" in left


def test_what_is_added_at_one_place_goes_into_the_block_that_it_belongs_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list of capabilities ends where a new key of the service begins."""
    text = (
        "services:\n  vpn:\n    image: x\n    ports:\n    - 80:80\n    cap_add:\n    - SYS_TIME\n"
    )
    put(tmp_path, "compose.yml", text)
    command = ["check", "--compose", str(tmp_path / "compose.yml"), "--service", "vpn", "--migrate"]
    cli.main(command)
    new = capsys.readouterr().out
    service = yaml.safe_load(new)["services"]["vpn"]
    assert "NET_ADMIN" in service["cap_add"]
    assert service["environment"] == {"FIREWALL_INPUT_PORTS": "80/tcp"}


KEYS = st.sampled_from(
    ["image", "environment", "ports", "cap_add", "healthcheck", "user", "expose", "labels", "x-a"]
)
VALUES = st.sampled_from(
    [
        None,
        "portcullis",
        ["PUID=1", "TZ=UTC", "HTTPPROXY=on"],
        {"PUID": "1", "DOT": "on", "A": None},
        ["6881:6881", "80:80", {"target": 8888}],
        [{"target": 80}],
        ["traefik.port=8080", "8080"],
        {"test": ["CMD", "ping"]},
        [],
        {},
        "a: b # c\n\nd",
    ]
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    service=st.dictionaries(KEYS, VALUES, min_size=1, max_size=6),
    other=st.dictionaries(KEYS, VALUES, max_size=3),
    flow=st.sampled_from([None, False]),
    width=st.sampled_from([20, 80]),
)
def test_the_rest_of_any_file_stays(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    service: dict[str, object],
    other: dict[str, object],
    flow: bool | None,  # noqa: FBT001 - drawn
    width: int,
) -> None:
    """The result is YAML again, the other services are what they were, and a second run agrees."""
    document = {"services": {"vpn": service, "other": other}, "x-more": {"a": ["b"]}}
    text = yaml.safe_dump(document, default_flow_style=flow, width=width, sort_keys=False)
    put(tmp_path, "compose.yml", text)
    command = ["check", "--compose", str(tmp_path / "compose.yml"), "--service", "vpn", "--migrate"]
    cli.main(command)
    new = capsys.readouterr().out
    found = yaml.safe_load(new)
    assert found["services"]["other"] == other
    assert found["x-more"] == document["x-more"]
    put(tmp_path, "compose.yml", new)
    cli.main(command)
    assert capsys.readouterr().out == new


def test_a_variable_of_ours_stays_where_other_names_like_it_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The login of Private Internet Access begins like variables of OpenVPN."""
    put(
        tmp_path,
        "compose.yml",
        """\
services:
  vpn:
    image: qmcgaw/gluetun
    cap_add: [NET_ADMIN]
    environment:
      - VPN_SERVICE_PROVIDER=private internet access
      - OPENVPN_USER=p1234567
      - OPENVPN_PASSWORD=correcthorse9
      - OPENVPN_VERBOSITY=1
""",
    )
    path = str(tmp_path / "compose.yml")
    assert cli.main(["check", "--compose", path, "--service", "vpn", "--migrate"]) == 0
    changed = yaml.safe_load(capsys.readouterr().out)["services"]["vpn"]["environment"]
    assert "OPENVPN_USER=p1234567" in changed
    assert "OPENVPN_PASSWORD=correcthorse9" in changed
    assert "OPENVPN_VERBOSITY=1" not in changed
