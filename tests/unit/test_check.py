"""`gateway check`: what it prints, where, and its exit code."""

import json
from pathlib import Path

import pytest

from gateway import cli
from tests.configurations import COMPLETE, QUICK, put


def env_file(root: Path, **changed: str) -> str:
    """Write an env file that is complete but for what is `changed`, and return its path."""
    lines = [f"{name}={text}" for name, text in {**COMPLETE, **changed}.items()]
    put(root, "gateway.env", "\n".join(lines))
    return str(root / "gateway.env")


def test_problems_and_notices_go_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both: a notice often says of a problem where it comes from."""
    code = cli.main(["check", "--env-file", env_file(tmp_path, WIREGUARD_MTU="9", PUID="1")])
    said = capsys.readouterr()
    assert code == 2
    assert not said.out
    assert "WIREGUARD_MTU: must be 576 to 65535 bytes, got '9'\n" in said.err
    assert "  info: PUID: not needed" in said.err


@pytest.mark.parametrize("syntax", ["iptables", "nftables"])
@pytest.mark.parametrize("server", ["203.0.113.7", "2001:db8::7"])
def test_the_rules_admit_the_server_in_either_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: str, syntax: str
) -> None:
    """The container of the example has both."""
    file = env_file(tmp_path, WIREGUARD_ENDPOINT_IP=server)
    assert cli.main(["check", "--env-file", file, "--rules", syntax]) == 0
    said = capsys.readouterr().out
    rules = [line for line in said.splitlines() if "P3 " in line]
    assert any(server in line for line in rules)
    assert "Looking up" not in said
    assert "represents" not in said


@pytest.mark.parametrize("syntax", ["iptables", "nftables"])
def test_the_rules_with_a_vault_are_those_of_both_namespaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], syntax: str
) -> None:
    """The server is admitted outside, the tunnel in the vault, and addresses are translated."""
    file = env_file(tmp_path, FIREWALL_INPUT_PORTS="80/tcp")
    assert cli.main(["check", "--env-file", file, "--rules", syntax, "--vault"]) == 0
    said = capsys.readouterr().out
    outside, _, rest = said.partition("# Connected\n")[2].partition("# Connected: the vault\n")
    inside, _, translated = rest.partition("the translation of addresses")
    assert ("P3 " in outside, "wg0" in outside) == (True, False)
    assert ("P3 " in inside, "wg0" in inside) == (False, True)
    assert "table inet portcullis {" in inside
    assert "dnat ip to" in translated


@pytest.mark.parametrize("syntax", ["iptables", "nftables"])
def test_the_rules_show_which_questions_are_redirected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], syntax: str
) -> None:
    """On the way to the tunnel and in it. Control: without the variable nothing is."""
    file = env_file(tmp_path, DNS_HIJACK="on", DNS_SERVER="on")
    assert cli.main(["check", "--env-file", file, "--rules", syntax]) == 0
    said = capsys.readouterr().out
    assert said.count("table inet portcullis_names {") == said.count(": questions for other") == 2
    assert "redirect to :53853 comment" in said
    file = env_file(tmp_path, DNS_SERVER="on")
    assert cli.main(["check", "--env-file", file, "--rules", syntax]) == 0
    assert "portcullis_names" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("resolver", "asked"), [("", "127.0.0.11"), ("192.168.1.1", "192.168.1.1")]
)
def test_a_servers_name_has_a_state_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], resolver: str, asked: str
) -> None:
    """The question for it passes, and a line says what the placeholder is."""
    file = env_file(
        tmp_path,
        WIREGUARD_ENDPOINT_IP="vpn.example.com",
        WIREGUARD_ENDPOINT_RESOLVER=resolver,
    )
    assert cli.main(["check", "--env-file", file, "--rules", "nftables"]) == 0
    said = capsys.readouterr().out
    assert "192.0.2.1 represents the address that a server's name resolves to" in said
    looking_up = said.partition("# Looking up the server's name")[2].partition("\n# ")[0]
    assert asked in looking_up
    assert "192.0.2.1" not in looking_up
    assert "192.0.2.1" in said.partition("# Connecting")[2]


def test_every_value_of_every_peer_has_its_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two peers each has its own lines; port and mark have theirs."""
    second = "\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.0/16\nEndpoint = 198.51.100.10:2\n"
    text = QUICK.replace("0.0.0.0/0", "10.8.0.0/16").replace("DNS", "ListenPort = 4000\nDNS")
    put(tmp_path, "wg0.conf", text + second.format(COMPLETE["WIREGUARD_PUBLIC_KEY"]))
    put(
        tmp_path,
        "compose.yml",
        "services: {gateway: {volumes: ['./wg0.conf:/config/wg0.conf']}}",
    )
    assert cli.main(["check", "--compose", str(tmp_path / "compose.yml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, value, origin in [
        ("(ListenPort)", "4000", "/config/wg0.conf line 4"),
        ("WIREGUARD_ENDPOINT_IP", "198.51.100.9", "/config/wg0.conf line 10"),
        ("WIREGUARD_ENDPOINT_PORT", "2", "/config/wg0.conf line 15"),
        ("WIREGUARD_ALLOWED_IPS", "10.9.0.0/16", "/config/wg0.conf line 14"),
        ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "25s", "default"),
    ]:
        assert any(line.split(maxsplit=2) == [name, value, origin] for line in lines), name


def test_the_only_service_with_an_image_of_a_gateway_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a name. Control: of two, and next to one called `gateway`, it is not."""
    vpn = {"image": "qmcgaw/gluetun:v3", "environment": dict(COMPLETE)}
    services: dict[str, object] = {"app": {"image": "nginx"}, "vpn": vpn}
    file = str(tmp_path / "compose.yml")
    put(tmp_path, "compose.yml", json.dumps({"services": services}))
    assert cli.main(["check", "--compose", file]) == 0
    for name, code in (("vpn2", 2), ("gateway", 0)):
        more = {**services, name: {**vpn, "environment": {**COMPLETE, "LOG_LEVEL": "debug"}}}
        put(tmp_path, "compose.yml", json.dumps({"services": more}))
        capsys.readouterr()
        assert cli.main(["check", "--compose", file]) == code
        said = capsys.readouterr()
        assert ("has no service 'gateway'" in said.err) == (code == 2)
        assert (" debug " in said.out) == (code == 0)


def test_json_has_all_that_the_text_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: values with their origins, notices, and what to change; and no key."""
    service = {"environment": {**COMPLETE, "PUID": "1"}, "ports": ["80:80", "6881:6881"]}
    put(tmp_path, "compose.yml", json.dumps({"services": {"gateway": service}}))
    file = str(tmp_path / "compose.yml")
    assert cli.main(["check", "--compose", file, "--json"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert found["accepted"]
    assert found["problems"] == []
    assert {"name": "DNS_ADDRESS", "value": "10.64.0.1", "origin": "environment"} in found["values"]
    assert found["tunnels"][0][0]["name"] == "WIREGUARD_PRIVATE_KEY"
    assert {one["where"]: one["weight"] for one in found["notices"]}["PUID"] == "info"
    assert found["change"] == {
        "set": {"FIREWALL_INPUT_PORTS": "80/tcp"},
        "unset": [],
        "rename": {},
        "add_capabilities": ["NET_ADMIN"],
        "remove_capabilities": [],
        "remove_ports": ["6881:6881"],
        "remove_keys": [],
    }
    assert COMPLETE["WIREGUARD_PRIVATE_KEY"] not in text


def test_json_has_the_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, as all of it; also when the file itself cannot be read."""
    assert cli.main(["check", "--env-file", env_file(tmp_path, WIREGUARD_MTU="9"), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert not found["accepted"]
    assert [one["where"] for one in found["problems"]] == ["WIREGUARD_MTU"]
    assert found["change"] is None
    assert cli.main(["check", "--compose", str(tmp_path / "none"), "--json"]) == 2
    assert "cannot be read" in json.loads(capsys.readouterr().out)["problems"][0]["message"]
