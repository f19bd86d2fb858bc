"""Names of variables: ours, misspelt ones, and those of other images."""

from pathlib import Path

import pytest

from gateway.settings import assemble
from gateway.settings.compat import ELSEWHERE, MEANT
from gateway.settings.schema import FIELDS, OLDER_NAMES
from tests.configurations import COMPLETE, problems, reported


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("WIREGUARD_ENDPIONT_IP", "WIREGUARD_ENDPOINT_IP"),
        ("WIREGUARD_PRIVATEKEY", "WIREGUARD_PRIVATE_KEY"),
        ("WIREGUARD_PRIVATE_KEY_SECRET_FILE", "WIREGUARD_PRIVATE_KEY_SECRETFILE"),
        ("WIREGUARD_ALLOWEDIPS", "WIREGUARD_ALLOWED_IPS"),
        ("FIREWALL_OUTBOUND_SUBNET", "FIREWALL_OUTBOUND_SUBNETS"),
        ("FIREWALL_INPUT_PORT", "FIREWALL_INPUT_PORTS"),
        ("DNS_ADDRESSES", "DNS_ADDRESS"),
        ("HEALTH_SERVER_ADDRES", "HEALTH_SERVER_ADDRESS"),
        ("LOG_LEVLE", "LOG_LEVEL"),
        ("VPN_SERVICE_PROVDER", "VPN_SERVICE_PROVIDER"),
        ("WIREGAURD_PRIVATE_KEY", "WIREGUARD_PRIVATE_KEY"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(
    tmp_path: Path, written: str, meant: str
) -> None:
    """Also where the prefix itself is misspelt, as long as it is near enough."""
    assert problems({**COMPLETE, written: "x"}, tmp_path) == [
        f"{written}: unknown; did you mean {meant}?"
    ]


@pytest.mark.parametrize("written", sorted(MEANT))
def test_a_name_that_people_expect_is_refused_with_the_one_that_is_meant(
    tmp_path: Path, written: str
) -> None:
    """The nearest in spelling would mislead."""
    assert MEANT[written].lower() in FIELDS
    assert problems({**COMPLETE, written: "x"}, tmp_path) == [
        f"{written}: unknown; did you mean {MEANT[written]}?"
    ]


@pytest.mark.parametrize(
    "name", ["VPN_REMOTE", "FIREWALL_RULES", "WIREGUARD_SECRET", "VPN_CLIENTS", "LOG_FILE"]
)
def test_no_name_that_only_looks_a_little_alike_is_suggested(tmp_path: Path, name: str) -> None:
    """Nor is it refused."""
    assert f"{name}: unknown and without effect" in reported(
        assemble.load({**COMPLETE, name: "x"}, tmp_path)
    )


def test_the_current_name_is_suggested_for_one_that_is_near_an_older_one(tmp_path: Path) -> None:
    """And no name of a file."""
    (problem,) = problems({**COMPLETE, "VPN_ENDPOINT_IPS": "x"}, tmp_path)
    assert problem.endswith("did you mean WIREGUARD_ENDPOINT_IP?")


def test_small_letters_are_refused_with_the_right_name(tmp_path: Path) -> None:
    """The environment is case-sensitive."""
    (problem,) = problems({**COMPLETE, "wireguard_mtu": "1400"}, tmp_path)
    assert problem == "wireguard_mtu: unknown; variables are written in capitals: WIREGUARD_MTU"
    (problem,) = problems({**COMPLETE, "vpn_endpoint_ip": "203.0.113.7"}, tmp_path)
    assert problem.endswith("variables are written in capitals: VPN_ENDPOINT_IP")


@pytest.mark.parametrize("name", ["city", "Region", "COUNTRIES", "CITYS"])
def test_a_word_that_any_program_may_use_is_not_taken_for_ours(tmp_path: Path, name: str) -> None:
    """Older names of other images are plain words."""
    assert name not in reported(assemble.load({**COMPLETE, name: "x"}, tmp_path))


@pytest.mark.parametrize(
    "name", ["GATEWAY_QZX", "WIREGUARD_NETWORK_SUBNET", "HEALTH_ENABLED", "VPN_TRAFFIC_GROUP"]
)
def test_an_unknown_name_that_only_begins_like_ours_is_reported(tmp_path: Path, name: str) -> None:
    """An env file may have the variables of several programs, so it stops nothing."""
    loaded = assemble.load({**COMPLETE, name: "1"}, tmp_path)
    said = f"{name}: unknown and without effect; docs/configuration.md lists all variables"
    assert said in reported(loaded)


def test_other_variables_of_a_container_are_ignored(tmp_path: Path) -> None:
    """What images, shells, systemd and Kubernetes put there."""
    surroundings = {
        "PATH": "/usr/bin",
        "HOME": "/root",
        "HOSTNAME": "gateway",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "LOGNAME": "root",
        "PYTHON_VERSION": "3.13",
        "INVOCATION_ID": "0",
        "container": "podman",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "GATEWAY_SERVICE_HOST": "10.96.0.7",
        "GATEWAY_SERVICE_PORT_HTTP": "9999",
        "GATEWAY_PORT": "tcp://10.96.0.7:9999",
        "VPN_PORT_9999_TCP_ADDR": "10.96.0.7",
        "IPTABLES_LIBDIR": "/opt",
    }
    loaded = assemble.load({**COMPLETE, **surroundings}, tmp_path)
    assert not any(notice.where in surroundings for notice in loaded.notices)


@pytest.mark.parametrize("pattern", sorted(ELSEWHERE))
def test_each_variable_of_another_image_is_reported_once_and_stops_nothing(
    tmp_path: Path, pattern: str
) -> None:
    """With one line: not needed because, or not supported: use."""
    name = pattern.replace("[0-9CM]", "C").replace("[SHI]", "S").replace("[1-5]", "1")
    name = name.replace("*", "X") if pattern.endswith("_*") else name.replace("*", "")
    loaded = assemble.load({**COMPLETE, name: "something"}, tmp_path)
    lines = [notice.message for notice in loaded.notices if notice.where == name]
    assert lines == [ELSEWHERE[pattern]]
    assert lines[0].startswith(("not needed: ", "not supported: use "))


def test_names_of_other_images_do_not_hide_our_own() -> None:
    """A pattern that matched a variable of ours would switch it off."""
    ours = {field.upper() for field in FIELDS} | set(OLDER_NAMES)
    assert not ours & set(ELSEWHERE)


@pytest.mark.parametrize(
    "name", ["FIREWALL", "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT"]
)
def test_the_firewall_cannot_be_switched_off(tmp_path: Path, name: str) -> None:
    """`on` is what it is; `off` is an error, not a silent no."""
    assert f"{name}: not needed: the firewall is always on" in reported(
        assemble.load({**COMPLETE, name: "on"}, tmp_path)
    )
    for word in ("off", '"off"'):
        (problem,) = problems({**COMPLETE, name: word}, tmp_path)
        assert "cannot be switched off" in problem
    assemble.load({**COMPLETE, name: ""}, tmp_path)


def test_metrics_of_another_image_lead_to_our_own(tmp_path: Path) -> None:
    """They are there without a variable, at the address of the health server."""
    loaded = assemble.load({**COMPLETE, "METRICS_ENABLED": "on"}, tmp_path)
    assert "METRICS_ENABLED: not needed: GET /metrics on HEALTH_SERVER_ADDRESS" in reported(loaded)
