"""Loading as a whole: what connects, what wins over what, and every fault at once."""

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.model import (
    EVERYTHING,
    Backend,
    Candidate,
    CandidatePeer,
    Config,
    Endpoint,
    HealthProbe,
    HostPort,
    Implementation,
    NamedEndpoint,
    PortRange,
    ProbeKind,
    Protocol,
    Secret,
)
from gateway.model.name_server import NameServer
from gateway.settings import assemble, early, names
from gateway.settings.schema import FIELDS
from gateway.settings.sources import FILE_VARIABLES
from tests.configurations import (
    COMPLETE,
    FAULTS,
    OTHER_PRIVATE,
    OTHER_PUBLIC,
    PRESHARED,
    PRIVATE,
    PUBLIC,
    QUICK,
    made_up_key,
    problems,
    put,
    reported,
    shown_from,
)


def test_the_least_set_of_variables_makes_a_whole_configuration(tmp_path: Path) -> None:
    """Everything else has a default, and no third party is asked: names are the tunnel's."""
    endpoint = Endpoint(ip_address("203.0.113.7"), 51820)
    assert assemble.load(COMPLETE, tmp_path).config == Config(
        tunnels=(
            Candidate(
                private_key=Secret(PRIVATE),
                addresses=(ip_interface("10.64.1.2/32"), ip_interface("fd7d::2/128")),
                peers=(CandidatePeer(PUBLIC, endpoint, EVERYTHING),),
                dns=(ip_address("10.64.0.1"),),
            ),
        ),
        name_server=NameServer(names.known()["cloudflare"]),
    )


def test_every_variable_reaches_its_place(tmp_path: Path) -> None:
    """One value for each variable that the configuration holds."""
    config = assemble.load(
        {
            **COMPLETE,
            "WIREGUARD_PRESHARED_KEY": PRESHARED,
            "WIREGUARD_ALLOWED_IPS": "0.0.0.0/0",
            "WIREGUARD_MTU": "1380",
            "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL": "15s",
            "WIREGUARD_IMPLEMENTATION": "Userspace",
            "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24,10.9.8.7",
            "FIREWALL_INPUT_PORTS": "8080/tcp",
            "FIREWALL_VPN_INPUT_PORTS": "6881-6889/udp",
            "FIREWALL_BACKEND": "nftables",
            "HEALTH_SERVER_ADDRESS": ":9998",
            "HEALTH_PROBE": "icmp:10.64.0.1",
            "WIREGUARD_ENDPOINT_RESOLVER": "127.0.0.11",
            "VPN_UP_COMMAND": "/bin/say 'two words'",
            "VPN_DOWN_COMMAND": "/bin/true",
            "VPN_SERVICE_PROVIDER": "custom",
            "VPN_TYPE": "wireguard",
            "TZ": "Europe/Berlin",
        },
        tmp_path,
    ).config
    (tunnel,) = config.tunnels
    (peer,) = tunnel.peers
    assert tunnel.mtu == 1380
    assert peer.preshared_key == Secret(PRESHARED)
    assert peer.allowed_ips == (ip_network("0.0.0.0/0"),)
    assert peer.persistent_keepalive == 15
    assert config.outbound_subnets == (ip_network("192.168.1.0/24"), ip_network("10.9.8.7/32"))
    assert config.input_ports == (PortRange(Protocol.TCP, 8080, 8080),)
    assert config.vpn_input_ports == (PortRange(Protocol.UDP, 6881, 6889),)
    assert config.health_server == HostPort("", 9998)
    assert config.health_probe == HealthProbe(ProbeKind.ICMP, ip_address("10.64.0.1"))
    assert config.endpoint_resolver == ip_address("127.0.0.11")
    assert config.up_command == ("/bin/say", "two words")
    assert config.down_command == ("/bin/true",)
    assert (config.implementation, config.firewall) == (
        Implementation.USERSPACE,
        Backend.NFTABLES,
    )


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    """As compose files and images leave them."""
    empty = {name.upper(): "  " for name in FIELDS if name.upper() not in COMPLETE}
    assert (
        assemble.load({**COMPLETE, **empty}, tmp_path).config
        == assemble.load(COMPLETE, tmp_path).config
    )


def test_quotes_around_a_value_do_not_count(tmp_path: Path) -> None:
    """`- NAME="value"` in a compose list keeps the quotes; people do not see them."""
    loaded = assemble.load({**COMPLETE, "WIREGUARD_ENDPOINT_IP": '"203.0.113.9"'}, tmp_path)
    assert loaded.config.tunnels[0].endpoints[0].address == ip_address("203.0.113.9")
    assert "WIREGUARD_ENDPOINT_IP: the quotes around the value are ignored" in reported(loaded)


def test_quotes_do_not_count_anywhere(tmp_path: Path) -> None:
    """In variables that are read early, in names of files, in files."""
    put(tmp_path, "/keys/one", f"'{OTHER_PRIVATE}'\n")
    quoted = {
        "LOG_LEVEL": '"debug"',
        "LOG_FORMAT": "'json'",
        "HEALTH_SERVER_ADDRESS": '":9998"',
        "WIREGUARD_PRIVATE_KEY_SECRETFILE": '"/keys/one"',
    }
    loaded = assemble.load({**COMPLETE, **quoted}, tmp_path)
    assert loaded.log == early.LogSettings("debug", "json")
    assert early.health_address(quoted) == loaded.config.health_server == HostPort("", 9998)
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)


def test_the_quotes_of_a_command_are_its_own(tmp_path: Path) -> None:
    """They say where its words end."""
    environ = {**COMPLETE, "VPN_UP_COMMAND": '"/config/up.sh" "hello world"'}
    assert assemble.load(environ, tmp_path).config.up_command == ("/config/up.sh", "hello world")
    put(tmp_path, "/run/secrets/vpn_down_command", "'/config/a b'\n")
    assert assemble.load(COMPLETE, tmp_path).config.down_command == ("/config/a b",)


@pytest.mark.parametrize("name", ["vpn_port_forwarding_status_file", "vpn_down_command"])
def test_a_byte_that_no_path_or_argument_can_have_is_refused(tmp_path: Path, name: str) -> None:
    """Else what opens the file or starts the command would end the gateway."""
    put(tmp_path, f"/run/secrets/{name}", "/config/a\0b")
    (problem,) = problems(COMPLETE, tmp_path)
    assert name in problem
    assert "NUL" in problem


def test_what_else_was_found_out_is_reported_with_the_problems(tmp_path: Path) -> None:
    """It often says where they come from."""
    with pytest.raises(ConfigError) as caught:
        assemble.load({**COMPLETE, "WIREGUARD_MTU": "9", "PUID": "1000"}, tmp_path)
    assert [problem.where for problem in caught.value.problems] == ["WIREGUARD_MTU"]
    assert "PUID" in [notice.where for notice in caught.value.notices]


def test_nothing_set_names_everything_that_is_required(tmp_path: Path) -> None:
    """With the file that would do instead."""
    found = problems({}, tmp_path)
    assert [problem.partition(":")[0] for problem in found] == [
        "WIREGUARD_PRIVATE_KEY",
        "WIREGUARD_ADDRESSES",
        "WIREGUARD_ENDPOINT_IP",
        "WIREGUARD_ENDPOINT_PORT",
        "WIREGUARD_PUBLIC_KEY",
    ]
    assert "/config/wg0.conf" in found[0]


@pytest.mark.parametrize(("name", "value", "expected"), FAULTS)
def test_each_fault_names_the_variable_the_value_and_the_remedy(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    """One wrong variable is one problem, and nothing else is blamed for it."""
    (problem,) = problems({**COMPLETE, name: value}, tmp_path)
    assert problem.startswith(f"{name}: ")
    assert expected in problem


def test_every_field_has_a_case_above() -> None:
    """So that a new variable comes with its refusal; TZ takes anything."""
    assert {name for name, _, _ in FAULTS} == {f.upper() for f in FIELDS} - {"TZ"}


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """No one should have to start a container ten times to find ten typing errors."""
    wrong = {name: value for name, value, _ in FAULTS}
    assert {problem.partition(":")[0] for problem in problems(wrong, tmp_path)} >= set(wrong)


def test_faults_of_variables_and_of_a_file_are_reported_together(tmp_path: Path) -> None:
    """A file is read even when a variable is wrong."""
    put(tmp_path, "/config/wg0.conf", QUICK.replace("Address = 10.2.0.2/32", "Address = here"))
    found = problems({"FIREWALL_INPUT_PORTS": "http"}, tmp_path)
    assert [problem.split(":")[0] for problem in found] == [
        "FIREWALL_INPUT_PORTS",
        "/config/wg0.conf line 3",
    ]


def test_secret_files_win_over_variables_and_the_log_says_so(tmp_path: Path) -> None:
    """A named file, then the conventional one, then the variable, then its older name."""
    put(tmp_path, "/keys/one", OTHER_PRIVATE + "\n")
    put(tmp_path, "/run/secrets/wireguard_private_key", made_up_key(30))
    named = {**COMPLETE, "WIREGUARD_PRIVATE_KEY_SECRETFILE": "/keys/one"}
    loaded = assemble.load(named, tmp_path)
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
    assert shown_from(loaded, "WIREGUARD_PRIVATE_KEY", "/keys/one")
    assert (
        "WIREGUARD_PRIVATE_KEY: taken from /keys/one; environment has a different value"
        in reported(loaded)
    )
    loaded = assemble.load(COMPLETE, tmp_path)
    assert loaded.config.tunnels[0].private_key == Secret(made_up_key(30))


@pytest.mark.parametrize(
    "name", ["wireguard_private_key", "wireguard_preshared_key", "wireguard_addresses"]
)
def test_secrets_are_found_where_docker_mounts_them(tmp_path: Path, name: str) -> None:
    """`/run/secrets/<name in lower case>`, without any variable."""
    value = "10.77.0.2/32" if name == "wireguard_addresses" else OTHER_PRIVATE
    put(tmp_path, f"/run/secrets/{name}", value)
    environ = {key: text for key, text in COMPLETE.items() if key != name.upper()}
    loaded = assemble.load(environ, tmp_path)
    assert shown_from(loaded, name.upper(), f"/run/secrets/{name}")


@pytest.mark.parametrize("name", sorted(FILE_VARIABLES))
def test_every_variable_may_come_as_a_file(tmp_path: Path, name: str) -> None:
    """A `_SECRETFILE` variant for each; an empty file counts as not there."""
    put(tmp_path, "/keys/file", " \n")
    loaded = assemble.load({**COMPLETE, f"{name}_SECRETFILE": "/keys/file"}, tmp_path)
    assert f"{name}_SECRETFILE: '/keys/file' is empty" in reported(loaded)


def test_a_list_in_a_file_may_have_one_entry_a_line(tmp_path: Path) -> None:
    """As people write files."""
    put(tmp_path, "/run/secrets/wireguard_addresses", "10.77.0.2/32\r\nfd00::2\r\n")
    (tunnel,) = assemble.load(COMPLETE, tmp_path).config.tunnels
    assert tunnel.addresses == (ip_interface("10.77.0.2/32"), ip_interface("fd00::2/128"))


def test_a_secret_file_that_is_not_there_is_a_fault_unless_it_is_the_usual_place(
    tmp_path: Path,
) -> None:
    """Images set the usual places in advance, whether a secret is mounted or not."""
    (problem,) = problems({**COMPLETE, "WIREGUARD_PRIVATE_KEY_SECRETFILE": "/none"}, tmp_path)
    assert problem.startswith("WIREGUARD_PRIVATE_KEY_SECRETFILE: '/none' cannot be read")
    usual = {
        "WIREGUARD_PRIVATE_KEY_SECRETFILE": "/run/secrets/wireguard_private_key",
        "WIREGUARD_CONF_SECRETFILE": "/run/secrets/wg0.conf",
    }
    assemble.load({**COMPLETE, **usual}, tmp_path)


@pytest.mark.parametrize(
    ("older", "current", "value"),
    [
        ("VPN_ENDPOINT_IP", "WIREGUARD_ENDPOINT_IP", "203.0.113.99"),
        ("VPN_ENDPOINT_PORT", "WIREGUARD_ENDPOINT_PORT", "4242"),
        ("WIREGUARD_ADDRESS", "WIREGUARD_ADDRESSES", "10.64.77.7/32"),
        ("EXTRA_SUBNETS", "FIREWALL_OUTBOUND_SUBNETS", "192.168.77.0/24"),
        ("DNS_PLAINTEXT_ADDRESS", "DNS_ADDRESS", "10.64.77.1"),
        ("VPNSP", "VPN_SERVICE_PROVIDER", "custom"),
    ],
)
def test_older_names_mean_the_same_and_lose_against_the_current_one(
    tmp_path: Path, older: str, current: str, value: str
) -> None:
    """Compose files are older than names; the log says which value won."""
    rest = {name: text for name, text in COMPLETE.items() if name != current}
    loaded = assemble.load({**rest, older: value}, tmp_path)
    assert loaded.config == assemble.load({**rest, current: value}, tmp_path).config
    given = getattr(loaded.values, current.lower())
    assert given.origin.text == f"environment, as {older}"
    both = assemble.load(
        {**rest, current: value, older: COMPLETE.get(current, "10.0.0.0/24")}, tmp_path
    )
    assert both.config == loaded.config
    assert (
        f"{current}: taken from environment; environment, as {older} has a different value"
        in reported(both)
    )


def test_who_you_are_comes_from_the_file_and_how_you_talk_from_the_variable(tmp_path: Path) -> None:
    """The rule of precedence between variables and a wg-quick file, which is also gluetun's."""
    put(tmp_path, "/config/wg0.conf", QUICK + "PersistentKeepalive = 10\n")
    environ = {
        **COMPLETE,
        "WIREGUARD_MTU": "1300",
        "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL": "20s",
        "WIREGUARD_ALLOWED_IPS": "10.0.0.0/8",
    }
    loaded = assemble.load(environ, tmp_path)
    (tunnel,) = loaded.config.tunnels
    (peer,) = tunnel.peers
    assert tunnel.private_key == Secret(OTHER_PRIVATE)
    assert tunnel.addresses == (ip_interface("10.2.0.2/32"),)
    assert (peer.public_key, str(peer.endpoint)) == (OTHER_PUBLIC, "198.51.100.9:51820")
    assert (tunnel.mtu, peer.persistent_keepalive) == (1300, 20)
    assert peer.allowed_ips == (ip_network("10.0.0.0/8"),)
    assert loaded.config.tunnels[0].dns == (ip_address("10.64.0.1"),)
    for name, winner in [
        ("WIREGUARD_PRIVATE_KEY", "/config/wg0.conf line 2"),
        ("WIREGUARD_ADDRESSES", "/config/wg0.conf line 3"),
        ("WIREGUARD_PUBLIC_KEY", "/config/wg0.conf line 7"),
        ("WIREGUARD_ENDPOINT_IP", "/config/wg0.conf line 9"),
        ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "environment"),
        ("DNS_ADDRESS", "environment"),
    ]:
        assert f"{name}: taken from {winner};" in reported(loaded)
        assert shown_from(loaded, name, winner)


def test_a_secret_file_of_its_own_wins_over_the_wg_quick_file(tmp_path: Path) -> None:
    """The order of gluetun: secret file, wg-quick file, variable."""
    put(tmp_path, "/config/wg0.conf", QUICK)
    put(tmp_path, "/run/secrets/wireguard_private_key", PRIVATE)
    loaded = assemble.load({}, tmp_path)
    assert loaded.config.tunnels[0].private_key == Secret(PRIVATE)
    assert "WIREGUARD_PRIVATE_KEY: taken from /run/secrets/wireguard_private_key" in reported(
        loaded
    )


def test_sources_that_agree_are_not_reported(tmp_path: Path) -> None:
    """The same value twice is not a contradiction."""
    put(tmp_path, "/config/wg0.conf", QUICK)
    loaded = assemble.load(
        {"WIREGUARD_PUBLIC_KEY": OTHER_PUBLIC, "DNS_ADDRESS": "10.2.0.1"}, tmp_path
    )
    assert "taken from" not in reported(loaded)


PLACES = [
    "/run/secrets/wg0.conf",
    "/run/secrets/wireguard_conf",
    "/config/wg0.conf",
    "/config/wg_confs/wg0.conf",
    "/gluetun/wireguard/wg0.conf",
    "/etc/wireguard/wg0.conf",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_wg_quick_file_is_found_where_other_images_have_it(tmp_path: Path, place: str) -> None:
    """Docker's secrets, ours and linuxserver's folder, gluetun's."""
    put(tmp_path, place, QUICK)
    loaded = assemble.load({}, tmp_path)
    assert shown_from(loaded, "WIREGUARD_PRIVATE_KEY", f"{place} line 2")


def test_of_several_places_the_first_wins_and_the_others_are_reported(tmp_path: Path) -> None:
    """Files in two places are never mixed."""
    for number, place in enumerate(PLACES):
        put(tmp_path, place, QUICK.replace(OTHER_PRIVATE, made_up_key(40 + number)))
    loaded = assemble.load({}, tmp_path)
    assert [tunnel.private_key for tunnel in loaded.config.tunnels] == [Secret(made_up_key(40))]
    for place in PLACES[1:]:
        assert f"{place}: is not used, because /run/secrets/wg0.conf exists" in reported(loaded)
    put(tmp_path, "/mine.conf", QUICK)
    named = assemble.load({"WIREGUARD_CONF_SECRETFILE": "/mine.conf"}, tmp_path)
    assert named.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)


@pytest.mark.parametrize("folder", ["/config", "/config/wg_confs"])
def test_several_files_in_the_folder_are_candidates_in_order(tmp_path: Path, folder: str) -> None:
    """`wg0.conf` first, then by name; each with its own key and its own resolvers."""
    for number, name in enumerate(["b.conf", "wg0.conf", "a.conf"]):
        text = QUICK.replace(OTHER_PRIVATE, made_up_key(50 + number))
        put(
            tmp_path,
            f"{folder}/{name}",
            text.replace("DNS = 10.2.0.1", f"DNS = 10.2.0.{number + 5}"),
        )
    config = assemble.load({}, tmp_path).config
    assert [tunnel.private_key for tunnel in config.tunnels] == [
        Secret(made_up_key(number)) for number in (51, 52, 50)
    ]
    assert [str(tunnel.dns[0]) for tunnel in config.tunnels] == ["10.2.0.6", "10.2.0.7", "10.2.0.5"]
    found = problems({"WIREGUARD_PRESHARED_KEY": PRESHARED}, tmp_path)
    assert found == [
        "WIREGUARD_PRESHARED_KEY: does not say which of the 3 wg-quick files it is for; remove it"
    ]


def test_several_endpoints_are_candidates_in_order(tmp_path: Path) -> None:
    """`WIREGUARD_ENDPOINTS` instead of one address and one port."""
    environ = {name: text for name, text in COMPLETE.items() if "ENDPOINT" not in name}
    environ["WIREGUARD_ENDPOINTS"] = f"203.0.113.1:1,[2001:db8::2]:2@{OTHER_PUBLIC}"
    tunnels = assemble.load(environ, tmp_path).config.tunnels
    assert [(str(t.endpoints[0]), t.peers[0].public_key) for t in tunnels] == [
        ("203.0.113.1:1", PUBLIC),
        ("[2001:db8::2]:2", OTHER_PUBLIC),
    ]
    assert {tunnel.private_key for tunnel in tunnels} == {Secret(PRIVATE)}
    (problem,) = problems({**environ, "WIREGUARD_ENDPOINT_PORT": "1"}, tmp_path)
    assert "in addition to WIREGUARD_ENDPOINTS" in problem


def test_endpoints_with_a_key_each_need_no_common_key(tmp_path: Path) -> None:
    """And a file's endpoint gives way to the list."""
    environ = {
        n: t for n, t in COMPLETE.items() if "ENDPOINT" not in n and n != "WIREGUARD_PUBLIC_KEY"
    }
    endpoints = f"203.0.113.1:1@{PUBLIC},203.0.113.2:2@{OTHER_PUBLIC}"
    tunnels = assemble.load({**environ, "WIREGUARD_ENDPOINTS": endpoints}, tmp_path).config.tunnels
    assert [tunnel.peers[0].public_key for tunnel in tunnels] == [PUBLIC, OTHER_PUBLIC]
    (problem,) = problems(
        {**environ, "WIREGUARD_ENDPOINTS": f"{endpoints},203.0.113.3:3"}, tmp_path
    )
    assert problem.startswith("WIREGUARD_PUBLIC_KEY: is not set")
    put(tmp_path, "/config/wg0.conf", QUICK)
    loaded = assemble.load({"WIREGUARD_ENDPOINTS": "203.0.113.3:3"}, tmp_path)
    assert str(loaded.config.tunnels[0].endpoints[0]) == "203.0.113.3:3"
    assert "taken from environment; /config/wg0.conf line 9 has a different value" in reported(
        loaded
    )


def test_a_directory_in_place_of_the_file_is_explained(tmp_path: Path) -> None:
    """Docker makes one when the file to mount is not there on the host."""
    (tmp_path / "config" / "wg0.conf").mkdir(parents=True)
    (problem,) = problems({}, tmp_path)
    assert problem.startswith("/config/wg0.conf: is a directory; Docker creates one")


def test_the_log_is_set_up_even_when_the_rest_is_wrong() -> None:
    """Wrong values of its own variables count as not set here; load refuses them."""
    assert early.log_settings({}) == early.LogSettings("info", "text")
    assert early.log_settings({"LOG_LEVEL": "WARN", "LOG_FORMAT": "json", "VPN_TYPE": "x"}) == (
        early.LogSettings("warning", "json")
    )
    assert early.log_settings({"LOG_LEVEL": "loud", "LOG_FORMAT": "xml"}) == early.LogSettings()


def test_the_health_address_is_known_even_when_the_rest_is_wrong() -> None:
    """For `gateway status`, which asks a gateway that is running."""
    assert early.health_address({}) == HostPort("127.0.0.1", 9999)
    assert early.health_address({"HEALTH_SERVER_ADDRESS": ":80"}) == HostPort("", 80)
    assert early.health_address({"HEALTH_SERVER_ADDRESS": "x"}) == HostPort("127.0.0.1", 9999)


def test_without_a_resolver_the_remedy_is_reported(tmp_path: Path) -> None:
    """With the gateway's own resolver switched off, none is chosen: it would see every name."""
    environ = {name: text for name, text in COMPLETE.items() if name != "DNS_ADDRESS"}
    assert "no names resolve" not in reported(assemble.load(environ, tmp_path)), "control"
    loaded = assemble.load({**environ, "DNS_SERVER": "off"}, tmp_path)
    assert loaded.config.tunnels[0].dns == ()
    assert "DNS_ADDRESS: is not set, so no names resolve" in reported(loaded)


def test_a_server_may_have_a_name_which_is_reported(tmp_path: Path) -> None:
    """In each of the variables; who answers the question for it learns it."""
    named = {**COMPLETE, "WIREGUARD_ENDPOINT_IP": "vpn.example.com"}
    loaded = assemble.load(named, tmp_path)
    assert loaded.config.tunnels[0].peers[0].endpoint == NamedEndpoint("vpn.example.com", 51820)
    assert "the server's name 'vpn.example.com' is looked up outside the tunnel" in reported(loaded)
    several = {name: text for name, text in COMPLETE.items() if "ENDPOINT" not in name}
    several["WIREGUARD_ENDPOINTS"] = "a.example.com:1,203.0.113.1:2"
    names = [tunnel.names for tunnel in assemble.load(several, tmp_path).config.tunnels]
    assert names == [("a.example.com",), ()]


def test_a_probe_outside_the_tunnel_is_refused(tmp_path: Path) -> None:
    """Its answer would say nothing of the tunnel."""
    environ = {"HEALTH_PROBE": "icmp:192.168.1.1", "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24"}
    (problem,) = problems({**COMPLETE, **environ}, tmp_path)
    assert problem.startswith("HEALTH_PROBE: 192.168.1.1 is in FIREWALL_OUTBOUND_SUBNETS")


def test_a_secret_file_of_a_servers_address_wins_over_the_wg_quick_file(tmp_path: Path) -> None:
    """As for keys; the port stays the file's, whatever a mere variable says."""
    put(tmp_path, "/config/wg0.conf", QUICK)
    put(tmp_path, "/run/secrets/wireguard_endpoint_ip", "203.0.113.50")
    loaded = assemble.load({"WIREGUARD_ENDPOINT_PORT": "1"}, tmp_path)
    assert str(loaded.config.tunnels[0].endpoints[0]) == "203.0.113.50:51820"
    assert shown_from(loaded, "WIREGUARD_ENDPOINT_IP", "/run/secrets/wireguard_endpoint_ip")
    assert shown_from(loaded, "WIREGUARD_ENDPOINT_PORT", "/config/wg0.conf line 9")
    for line in (
        "WIREGUARD_ENDPOINT_IP: taken from /run/secrets/wireguard_endpoint_ip; /config/wg0.conf",
        "WIREGUARD_ENDPOINT_PORT: taken from /config/wg0.conf line 9; environment has a different",
    ):
        assert line in reported(loaded)


def test_a_preshared_key_that_the_file_has_not_is_reported(tmp_path: Path) -> None:
    """It may belong to another provider, and then no handshake succeeds."""
    put(tmp_path, "/config/wg0.conf", QUICK)
    loaded = assemble.load({"WIREGUARD_PRESHARED_KEY": PRESHARED}, tmp_path)
    assert loaded.config.tunnels[0].peers[0].preshared_key == Secret(PRESHARED)
    assert "WIREGUARD_PRESHARED_KEY: is added to the peer of /config/wg0.conf" in reported(loaded)


def test_a_resolver_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    """Resolvers are few, and the same one again answers no better."""
    loaded = assemble.load({**COMPLETE, "DNS_ADDRESS": "10.64.0.1,10.64.0.2,10.64.0.1"}, tmp_path)
    assert [str(one) for one in loaded.config.tunnels[0].dns] == ["10.64.0.1", "10.64.0.2"]
    assert "DNS_ADDRESS: 10.64.0.1 is listed twice; once is enough" in reported(loaded)


@pytest.mark.parametrize(
    ("written", "is_whole"),
    [
        ("10.2.0.0/24", True),
        ("fd7d::/64", True),
        ("10.2.0.2/24", False),
        ("10.2.0.0/32", False),
        ("10.2.0.0/31", False),
    ],
)
def test_a_network_in_place_of_an_address_is_reported(
    tmp_path: Path, written: str, *, is_whole: bool
) -> None:
    """A tunnel with it connects, and no answer arrives."""
    lines = reported(assemble.load({**COMPLETE, "WIREGUARD_ADDRESSES": written}, tmp_path))
    assert ("is a whole network" in lines) is is_whole
