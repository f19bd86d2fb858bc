"""Checking compose and env files before anything is started."""

from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.commands.check.envfile import read_env_file
from gateway.commands.check.explain import explain
from gateway.commands.check.interpolate import interpolated
from gateway.errors import ConfigError
from gateway.model import Secret
from gateway.settings.assemble import Loaded
from tests.configurations import (
    COMPLETE,
    OTHER_PRIVATE,
    PRIVATE,
    PUBLIC,
    QUICK,
    load_service,
    put,
    reported,
)

SERVICE = f"""\
x-vpn: &vpn
  WIREGUARD_PRIVATE_KEY: {PRIVATE}
  WIREGUARD_PUBLIC_KEY: {PUBLIC}
services:
  gateway:
    image: portcullis
    cap_add: [NET_ADMIN]
    environment:
      <<: *vpn
      WIREGUARD_ADDRESSES: 10.64.1.2/32
      WIREGUARD_ENDPOINT_IP: ${{SERVER:-203.0.113.7}}
      WIREGUARD_ENDPOINT_PORT: 51820
      DNS_ADDRESS: "10.64.0.1"
  app:
    network_mode: service:gateway
"""


def load(folder: Path, text: str, shell: dict[str, str] | None = None) -> Loaded:
    """Check the service `gateway` of a compose file."""
    put(folder, "compose.yml", text)
    return load_service(folder / "compose.yml", "gateway", shell or {})


def problems(folder: Path, text: str, service: str = "gateway") -> list[str]:
    """Return the problems of a compose file that must be refused."""
    put(folder, "compose.yml", text)
    with pytest.raises(ConfigError) as caught:
        load_service(folder / "compose.yml", service, {})
    return [str(problem) for problem in caught.value.problems]


def test_a_service_is_read_as_compose_would(tmp_path: Path) -> None:
    """Anchors and merge keys, numbers as they are written, variables with defaults."""
    loaded = load(tmp_path, SERVICE)
    (tunnel,) = loaded.config.tunnels
    assert tunnel.private_key == Secret(PRIVATE)
    assert str(tunnel.endpoints[0]) == "203.0.113.7:51820"
    shell = load(tmp_path, SERVICE, {"SERVER": "203.0.113.8"})
    assert str(shell.config.tunnels[0].endpoints[0]) == "203.0.113.8:51820"


def test_the_shell_wins_over_the_env_file_next_to_the_compose_file(tmp_path: Path) -> None:
    """As Compose does it."""
    put(tmp_path, ".env", "SERVER=203.0.113.9\n")
    assert "203.0.113.9" in explain(load(tmp_path, SERVICE))
    assert "203.0.113.8" in explain(load(tmp_path, SERVICE, {"SERVER": "203.0.113.8"}))


def test_words_that_yaml_takes_for_truth_stay_words(tmp_path: Path) -> None:
    """`off` is off, not False; octal and sexagesimal numbers are texts."""
    for word in ("off", "no"):
        (problem,) = problems(
            tmp_path, SERVICE.replace("DNS_ADDRESS", f"FIREWALL: {word}\n      DNS_ADDRESS")
        )
        assert problem.startswith("FIREWALL: the firewall cannot be switched off")


def test_a_list_takes_variables_from_the_shell(tmp_path: Path) -> None:
    """`- NAME` without a value; quotes in a list stay in the value and do not count."""
    text = SERVICE.partition("    environment:")[0] + "\n".join(
        [
            "    environment:",
            "      - WIREGUARD_PRIVATE_KEY",
            f'      - WIREGUARD_PUBLIC_KEY="{PUBLIC}"',
            "      - WIREGUARD_ADDRESSES=10.64.1.2/32",
            "      - WIREGUARD_ENDPOINT_IP=203.0.113.7",
            "      - WIREGUARD_ENDPOINT_PORT=51820",
        ]
    )
    loaded = load(tmp_path, text, {"WIREGUARD_PRIVATE_KEY": OTHER_PRIVATE})
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)


def test_env_files_stand_under_the_services_own_variables(tmp_path: Path) -> None:
    """Several, in order; optional ones may be missing."""
    put(tmp_path, "one.env", 'export DNS_ADDRESS=10.64.0.9 # mine\nLOG_LEVEL="debug"\n')
    put(tmp_path, "two.env", "LOG_LEVEL=error\nFIREWALL_OUTBOUND_SUBNETS=${NET:-10.1}.0.0/16\n")
    text = SERVICE.replace(
        "    environment:",
        "    env_file:\n      - one.env\n      - path: two.env\n      - path: none.env\n"
        "        required: false\n    environment:",
    )
    loaded = load(tmp_path, text)
    assert loaded.log.level == "error"
    assert [str(one) for one in loaded.config.tunnels[0].dns] == ["10.64.0.1"]
    assert [str(one) for one in loaded.config.outbound_subnets] == ["10.1.0.0/16"]
    (problem, *_) = problems(
        tmp_path, SERVICE.replace("    environment:", "    env_file: none\n    environment:")
    )
    assert "none: cannot be read" in problem


MOUNTS = {
    "a file": "volumes: ['./vpn/wg0.conf:/config/wg0.conf:ro']",
    "a folder": "volumes: ['./vpn:/config']",
    "a file in a folder": "volumes: ['./empty:/config', './vpn/wg0.conf:/config/wg0.conf']",
    "long form": "volumes: [{type: bind, source: ./vpn, target: /config/wg_confs}]",
    "gluetun's place": "volumes: ['./vpn/wg0.conf:/gluetun/wireguard/wg0.conf']",
    "gluetun's folder": "volumes: ['./vpn:/gluetun/wireguard:ro']",
    "a zip file": "volumes: ['./any.zip:/config/mine.zip']",
    "a folder with a zip file": "volumes: ['./zips:/gluetun/wireguard']",
    "a secret": "secrets: [wg0.conf]",
    "a secret under another name": "secrets: [{source: other, target: wg0.conf}]",
    "a config": "configs: [{source: plain, target: /config/wg0.conf}]",
}
TOP = """
secrets:
  wg0.conf: {file: ./vpn/wg0.conf}
  other: {file: ./vpn/wg0.conf}
configs:
  plain: {file: ./vpn/wg0.conf}
"""


@pytest.mark.parametrize("mount", MOUNTS)
def test_mounted_files_are_read_where_the_container_has_them(tmp_path: Path, mount: str) -> None:
    """Binds, secrets and configs, in short and long form, one inside the other."""
    put(tmp_path, "vpn/wg0.conf", QUICK)
    (tmp_path / "zips").mkdir()
    for name in ("any.zip", "zips/x.zip"):
        with ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("wg0.conf", QUICK)
    (tmp_path / "empty").mkdir()
    text = f"services:\n  gateway:\n    cap_add: [NET_ADMIN]\n    {MOUNTS[mount]}\n{TOP}"
    loaded = load(tmp_path, text)
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
    assert list((tmp_path / "empty").iterdir()) == []
    assert [path.name for path in (tmp_path / "vpn").iterdir()] == ["wg0.conf"]


@pytest.mark.parametrize(
    "mounts",
    [
        "volumes: ['./wg0.conf:/config/wg0.conf']",
        "volumes: ['./my.conf:/config/wg_confs/my.conf']",
        "volumes: ['./my.zip:/gluetun/wireguard/my.zip']",
        "volumes: ['./x:/vpn/x']\n    environment: {WIREGUARD_CONF_SECRETFILE: '\"/vpn/x\"'}",
        "secrets: [wg0.conf]",
        "configs: [{source: plain, target: /config/wg0.conf}]",
    ],
)
def test_a_mounted_file_that_is_not_there_is_reported(tmp_path: Path, mounts: str) -> None:
    """Docker would make a directory of it."""
    found = problems(tmp_path, f"services:\n  gateway:\n    {mounts}\n{TOP}")
    assert any("but it does not exist; correct the path" in problem for problem in found)


def test_a_mounted_folder_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    """It may be empty where the service runs, and the configuration stand in variables."""
    text = SERVICE.replace("    environment:", "    volumes: ['./gone:/gluetun']\n    environment:")
    lines = reported(load(tmp_path, text))
    assert "mounts ./gone at /gluetun, but it does not exist; its contents are not checked" in lines
    put(tmp_path, "compose.yml", text.replace("203.0.113.7", "nowhere at all"))
    with pytest.raises(ConfigError) as caught:
        load_service(tmp_path / "compose.yml", "gateway", {})
    assert "mounts ./gone at /gluetun" in "\n".join(map(str, caught.value.notices))


def test_files_that_compose_makes_itself_are_read(tmp_path: Path) -> None:
    """`content` of a config, `environment` of a secret; nothing of them is left behind."""
    top = {
        "secrets": {"wireguard_private_key": {"environment": "WG_KEY"}},
        "configs": {"wg": {"content": QUICK.replace("10.2.0.1", "${DNS}")}},
    }
    service = {
        "secrets": ["wireguard_private_key"],
        "configs": [{"source": "wg", "target": "/config/wg0.conf"}],
    }
    text = yaml.safe_dump({"services": {"gateway": service}, **top})
    loaded = load(tmp_path, text, {"WG_KEY": PRIVATE, "DNS": "10.2.0.77"})
    assert loaded.config.tunnels[0].private_key == Secret(PRIVATE)
    assert [str(one) for one in loaded.config.tunnels[0].dns] == ["10.2.0.77"]
    assert "is readable by every user" not in reported(loaded)
    found = problems(tmp_path, text)
    assert any(
        "takes 'wireguard_private_key' from WG_KEY, which is not set" in one for one in found
    )


GROWING = {
    "itself": "services:\n  gateway: &a\n    foo: *a\n    environment: {A: x}\n",
    "itself, read": "services:\n  gateway:\n    environment: &a {A: *a}\n",
    "itself, merged": "services:\n  gateway: &a\n    <<: *a\n",
    "a bomb": "".join(
        f"x{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'lol'] * 9)}]\n" for n in range(9)
    )
    + "services:\n  gateway:\n    KEY: *a8\n",
    "a bomb elsewhere": "".join(
        f"x{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'lol'] * 9)}]\n" for n in range(9)
    )
    + "services:\n  gateway: {}\n  other: {network_mode: service:gateway, KEY: *a8}\n",
    "each in all": "services:\n  gateway:\n    KEY: &a [&b [*a, &c [*a, *b, &d [*a, *b, *c]]]]\n",
    "a merging bomb": "x0: &a0 {a: b}\n"
    + "".join(f"x{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10))
    + "services:\n  gateway: {environment: {<<: *a9}}\n",
    "variables": "services:\n  gateway:\n    env_file: bomb.env\n",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["foo", "volumes", "environment", "ports", "image", "command"])
@pytest.mark.parametrize("name", GROWING)
def test_what_grows_by_itself_is_refused(tmp_path: Path, name: str, key: str) -> None:
    """An anchor in itself, aliases of aliases, variables of variables: soon, and in words."""
    bomb = "\n".join(f"A{n + 1}={f'$A{n}' * 20}" for n in range(12))
    put(tmp_path, "bomb.env", f"A0=lollollol\n{bomb}\n")
    assert problems(tmp_path, GROWING[name].replace("KEY", key))


@pytest.mark.parametrize("tag", ["!!bool", "!!int", "!!float", "!!timestamp", "!!null"])
@pytest.mark.parametrize("text", ["1280", "x", '""'])
def test_tags_of_yaml_leave_the_text_as_it_is_written(tmp_path: Path, tag: str, text: str) -> None:
    """A number that is none is for the variable to refuse, as everywhere."""
    written = SERVICE.replace(
        "    environment:\n", f"    environment:\n      WIREGUARD_MTU: {tag} {text}\n"
    )
    if text == "x" and tag != "!!null":
        assert any(one.startswith("WIREGUARD_MTU") for one in problems(tmp_path, written))
    else:
        load(tmp_path, written)


def test_tags_of_compose_and_an_empty_service_are_known(tmp_path: Path) -> None:
    """`!override` and `!reset` are for merging; alone one changes nothing, one removes."""
    text = SERVICE.replace("cap_add: [", "cap_add: !override [").replace(
        "      DNS_ADDRESS",
        "      LOG_LEVEL: !reset loud\n      LOG_FORMAT: !reset null\n      DNS_ADDRESS",
    )
    text = text.replace("services:", "  LOG_FORMAT: shrill\nservices:", 1)
    (tmp_path / ".env").mkdir()
    loaded = load(tmp_path, text, {"LOG_LEVEL": "louder"})
    assert loaded.log.level == "info"
    assert "cap_add" not in reported(loaded)
    assert problems(tmp_path, "services:\n  gateway:\n")[0].startswith("WIREGUARD_PRIVATE_KEY")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (f"WIREGUARD_PRIVATE_KEY: {PRIVATE}", "not text: WIREGUARD_PRIVATE_KEY; write NAME=value"),
        (f"WIREGUARD_PRIVATE_KEY:{PRIVATE}", "an entry without a valid name; write NAME=value"),
        ("=x", "an entry without a valid name; write NAME=value"),
        ("two words", "an entry without a valid name; write NAME=value"),
        ("[a]", "has an entry that is not text: a list"),
    ],
)
def test_entries_of_a_list_are_names_with_values(tmp_path: Path, entry: str, expected: str) -> None:
    """What Compose takes for something else is not silently without effect."""
    found = problems(tmp_path, f"services:\n  gateway:\n    environment:\n      - {entry}\n")
    assert any(expected in problem for problem in found)


def test_what_is_listed_twice_is_reported(tmp_path: Path) -> None:
    """A key of a mapping is an error, as in Compose; of a list the last entry counts."""
    twice = "      DNS_ADDRESS: 10.64.0.2\n      DNS_ADDRESS"
    (problem,) = problems(tmp_path, SERVICE.replace("      DNS_ADDRESS", twice))
    assert "line 14: has the key DNS_ADDRESS twice; remove one of them" in problem
    entries = [f"{name}={text}" for name, text in COMPLETE.items()]
    service = {"environment": [*entries, "DNS_ADDRESS=10.64.0.9"]}
    loaded = load(tmp_path, yaml.safe_dump({"services": {"gateway": service}}))
    assert [str(one) for one in loaded.config.tunnels[0].dns] == ["10.64.0.9"]
    assert "environment has DNS_ADDRESS twice; the last one counts" in reported(loaded)


def test_what_cannot_be_looked_into_is_reported(tmp_path: Path) -> None:
    """Named volumes and secrets of a swarm hold files that cannot be seen from here."""
    text = SERVICE.replace(
        "    environment:", "    volumes: ['data:/config']\n    secrets: [far]\n    environment:"
    )
    lines = reported(load(tmp_path, text + "secrets:\n  far: {external: true}\n"))
    assert "the volume 'data' at /config cannot be checked" in lines
    assert "'far' at /run/secrets/far is not a local file and is not checked" in lines


def test_a_key_that_the_engine_has_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    """What else the service says is checked; the key itself is reported as not checked."""
    entries = {name: text for name, text in COMPLETE.items() if "PRIVATE" not in name}
    service = {"environment": entries, "secrets": ["wireguard_private_key"]}
    text = {
        "services": {"gateway": service},
        "secrets": {"wireguard_private_key": {"external": True}},
    }
    lines = reported(load(tmp_path, yaml.safe_dump(text)))
    assert "'wireguard_private_key' at /run/secrets/wireguard_private_key is not a local" in lines
    for known in ({}, {"wireguard_private_key": {}}):
        with pytest.raises(ConfigError, match="WIREGUARD_PRIVATE_KEY: is not set"):
            load(tmp_path, yaml.safe_dump(text | {"secrets": known}))


def test_a_volume_for_lists_of_servers_is_not_reported(tmp_path: Path) -> None:
    """Nothing that the check could look into is there."""
    text = SERVICE.replace(
        "    environment:", "    volumes: ['a:/config/servers']\n    environment:"
    )
    assert "cannot be checked" not in reported(load(tmp_path, text))


def test_nothing_is_laid_out_outside_the_folder_made_for_it(tmp_path: Path) -> None:
    """A target that climbs is left out."""
    put(tmp_path, "vpn/wg0.conf", QUICK)
    climbing = "volumes: ['./vpn/wg0.conf:/config/../../../tmp/portcullis-climbed']"
    text = SERVICE.replace("    environment:", f"    {climbing}\n    environment:")
    load(tmp_path, text)
    assert not Path("/tmp/portcullis-climbed").is_symlink()  # noqa: S108 - must not be there


def test_published_ports_that_stay_closed_are_reported(tmp_path: Path) -> None:
    """The one thing that everybody forgets when moving over."""
    ports = "ports: ['8080:80', '127.0.0.1:53:53/udp', {target: 90, published: 91}, '1-5:1-5']"
    text = SERVICE.replace("    environment:", f"    {ports}\n    environment:")
    text = text.replace(
        "      DNS_ADDRESS", "      FIREWALL_INPUT_PORTS: 80/tcp\n      DNS_ADDRESS"
    )
    lines = reported(load(tmp_path, text))
    assert (
        "ports 53/udp, 90/tcp, 1-5/tcp are published but stay closed until FIREWALL_INPUT_PORTS "
        "lists them"
    ) in lines


ANCHOR = """
  anchor:
    command: {command}
    ports: ['8080:80', '91:90']
"""


def test_ports_that_the_anchor_publishes_are_compared_too(tmp_path: Path) -> None:
    """They belong to the service that owns the network, whose rules this service writes.

    One that runs `hold` needs NET_ADMIN for that. Control: another one does not.
    """
    text = SERVICE.replace("    environment:", "    network_mode: service:anchor\n    environment:")
    text = text.replace(
        "      DNS_ADDRESS", "      FIREWALL_INPUT_PORTS: 80/tcp\n      DNS_ADDRESS"
    )
    for command, warned in (("hold", True), ("[gateway, hold]", True), ("pause", False)):
        anchor = ANCHOR.format(command=command)
        lines = reported(load(tmp_path, text.replace("services:\n", f"services:{anchor}", 1)))
        assert "port 80/tcp" not in lines
        assert "port 90/tcp is published but stays closed" in lines
        assert ("cap_add of anchor lacks NET_ADMIN" in lines) == warned
        given = anchor + "    cap_add: [net_admin]\n"
        lines = reported(load(tmp_path, text.replace("services:\n", f"services:{given}", 1)))
        assert "cap_add of anchor" not in lines


def test_an_anchor_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """Compose would refuse the file as well."""
    text = SERVICE.replace("    environment:", "    network_mode: service:anchor\n    environment:")
    assert any("has no service 'anchor'" in line for line in problems(tmp_path, text))


def test_the_example_is_read_with_the_ports_of_its_anchor(tmp_path: Path) -> None:
    """It is complete: only the key and the server's key have to be filled in."""
    example = (Path(__file__).parents[2] / "compose.example.yml").read_text("utf-8")
    put(tmp_path, "secrets/wireguard_private_key", QUICK.partition("PrivateKey = ")[2][:44])
    text = example.replace("A" * 43 + "=", QUICK.partition("PublicKey = ")[2][:44])
    assert "published but" not in reported(load(tmp_path, text))
    closed = text.replace("FIREWALL_INPUT_PORTS: 80/tcp", "FIREWALL_INPUT_PORTS: 81/tcp")
    assert "port 80/tcp is published but stays closed" in reported(load(tmp_path, closed))


def test_of_a_published_range_the_rest_is_reported(tmp_path: Path) -> None:
    """What the listed ports leave of it, on either side and in between."""
    text = SERVICE.replace("    environment:", "    ports: ['10-30:10-30']\n    environment:")
    listed = "      FIREWALL_INPUT_PORTS: 10-12/tcp,20/tcp,29-99/tcp\n      DNS_ADDRESS"
    lines = reported(load(tmp_path, text.replace("      DNS_ADDRESS", listed)))
    assert "ports 13-19/tcp, 21-28/tcp are published but stay closed" in lines


def test_the_port_of_wireguard_itself_need_not_be_published(tmp_path: Path) -> None:
    """Servers publish it, and people keep the line; this is a client."""
    text = SERVICE.replace("    environment:", "    ports: ['1:51820/udp']\n    environment:")
    lines = reported(load(tmp_path, text))
    assert "port 51820/udp is published, but only a WireGuard server needs that" in lines
    assert "FIREWALL_INPUT_PORTS" not in lines


def test_a_missing_capability_is_reported(tmp_path: Path) -> None:
    """Without NET_ADMIN the gateway can do nothing but say so."""
    assert "cap_add lacks NET_ADMIN" in reported(
        load(tmp_path, SERVICE.replace("[NET_ADMIN]", "[]"))
    )
    assert "cap_add" not in reported(load(tmp_path, SERVICE))
    assert "cap_add" not in reported(load(tmp_path, SERVICE.replace("NET_", "CAP_NET_")))
    lines = reported(load(tmp_path, SERVICE.replace("cap_add: [NET_ADMIN]", "privileged: true")))
    assert "privileged gives it full access to the host; remove it" in lines
    assert "cap_add lacks" not in lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("services: [", "is not valid YAML"),
        ("- a\n- b\n", "is not a compose file"),
        ("", "is not a compose file"),
        ("services:\n  other: {}\n", "has no service 'gateway'; its services are: other"),
        (
            "services:\n  gateway: {extends: {service: other}}\n",
            "has no service 'other', which another service extends",
        ),
        (
            "include: [a.yml]\nservices:\n  gateway: {}\n",
            "include names a.yml, which cannot be read",
        ),
        ("services:\n  gateway: {environment: ['A=${']}\n", "has a ${ without a closing }"),
        (
            "services:\n  gateway: {environment: ['A=${B:?secret message}']}\n",
            "requires B, which is not set",
        ),
        ("? [a, b]\n: !reset c\nservices:\n  gateway: {}\n", "is not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_what_is_wrong_with_the_file_itself_is_reported(
    tmp_path: Path, text: str, expected: str
) -> None:
    """With the file, and without repeating what is in it."""
    found = problems(tmp_path, text)
    assert any(expected in problem for problem in found)
    assert "secret message" not in "".join(found)


def test_a_compose_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_service(tmp_path / "none.yml", "gateway", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_env_file(tmp_path / "none.env")


def test_env_files_are_read_as_people_write_them(tmp_path: Path) -> None:
    """Comments, export, quotes, empty lines, a byte order mark."""
    put(tmp_path, "a.env", '\ufeff# mine\nexport A=1\n\nB="two words" # said\nC=\nD=${A}x\r\n')
    assert read_env_file(tmp_path / "a.env") == {"A": "1", "B": "two words", "C": "", "D": "1x"}


def test_env_files_are_read_as_compose_reads_them(tmp_path: Path) -> None:
    """A colon for the equals sign, and single quotes around what is to stay as it is."""
    text = "A=1\nB: 2\nC:3\nD='$A ${'\nE=$A\nF\nG: '$A'\n"
    put(tmp_path, "a.env", text)
    assert read_env_file(tmp_path / "a.env") == {
        "A": "1",
        "B": "2",
        "C": "3",
        "D": "$A ${",
        "E": "1",
        "F": "",
        "G": "$A",
    }


@pytest.mark.parametrize("line", ["BAD LINE", 'A="open', "=x", "a b=c", "a/b=1", "A='x' y"])
def test_a_line_of_an_env_file_that_cannot_be_read_is_reported(tmp_path: Path, line: str) -> None:
    """With the file and the line, and without repeating it."""
    put(tmp_path, "a.env", f"# mine\n\n\nA=1\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_env_file(tmp_path / "a.env")
    (problem,) = map(str, caught.value.problems)
    assert problem.endswith("a.env line 5: cannot be read; write NAME=value, and close every quote")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$SET and ${SET}", "value and value"),
        ("$$SET", "$SET"),
        ("${NONE}", ""),
        ("${NONE:-a}${NONE-b}${EMPTY:-c}${EMPTY-d}", "abc"),
        ("${SET:-a}${SET-b}", "valuevalue"),
        ("${SET:+a}${EMPTY:+b}${EMPTY+c}${NONE+d}", "ac"),
        ("${NONE:-${SET}}", "value"),
        ("${NONE:-${NONE:-deep}}!", "deep!"),
        ("${SET:?must be}", "value"),
        ("100%", "100%"),
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, expected: str) -> None:
    """The Compose specification, Interpolation."""
    assert interpolated(text, {"SET": "value", "EMPTY": ""}) == expected


@pytest.mark.parametrize(
    "text", ["$", "${", "${SET", "$1", "${1}", "${SET!x}", "${NONE?x}", "${EMPTY:?x}"]
)
def test_what_compose_would_refuse_is_refused(text: str) -> None:
    """In words, without the text."""
    with pytest.raises(ValueError, match=r"\$|requires|uses"):
        interpolated(text, {"SET": "value", "EMPTY": ""})


@given(st.text(alphabet="${}:-?+AB_1 ", max_size=30))
def test_no_text_makes_another_error(text: str) -> None:
    """Only ValueError, whatever is written."""
    with suppress(ValueError):
        interpolated(text, {"A": "x"})


STRANGE = [
    *(
        "",
        "/config",
        "./x:/config/wg0.conf",
        "~no-such-user/x:/config",
        "~/x:/config",
        "a\0b",
        "/",
    ),
    *("/a\0b:/config", "/a:/b\0c", "..", "$", "${A", "/x:/", "/x:/config/../../y", "x" * 300),
    *("/run/secrets:/run/secrets", "80:80", "A=1", "WIREGUARD_MTU=1", f"/x:/{'y' * 5000}"),
]
"""Texts that are paths, ports or variables, or nearly."""


def documents() -> st.SearchStrategy[object]:
    """Return services that are nearly right: known keys, any values."""
    texts = st.sampled_from(STRANGE)
    leaves = st.none() | st.booleans() | st.integers() | texts
    names = st.sampled_from(["source", "target", "type", "path", "file", "required", "A"]) | texts
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    )
    values = values | st.lists(texts, min_size=1, max_size=3)
    keys = st.sampled_from(
        ["environment", "env_file", "volumes", "secrets", "configs", "ports", "cap_add", "extends"]
    )
    services = st.fixed_dictionaries({"gateway": st.dictionaries(keys, values, max_size=4)})
    return st.fixed_dictionaries(
        {"services": services}, optional={"secrets": values, "configs": values, "x-more": values}
    )


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_no_document_makes_a_traceback(tmp_path: Path, document: object) -> None:
    """A configuration, or problems in words."""
    put(tmp_path, "compose.yml", yaml.safe_dump(document))
    with suppress(ConfigError):
        load_service(tmp_path / "compose.yml", "gateway", {})


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.text(alphabet="services:gateway\n -{}[]&*<>!?|'\"#%@`\t\0a1,", max_size=60) | st.binary()
)
def test_no_bytes_make_a_traceback(tmp_path: Path, raw: str | bytes) -> None:
    """Neither as a compose file nor as an env file."""
    put(tmp_path, "compose.yml", raw)
    with suppress(ConfigError):
        load_service(tmp_path / "compose.yml", "gateway", {})
    with suppress(ConfigError):
        read_env_file(tmp_path / "compose.yml")
