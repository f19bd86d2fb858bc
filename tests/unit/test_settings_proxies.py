"""The variables of proxies: who may use them, from where, and what is reported."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.errors import ConfigError
from gateway.model import HostPort, Secret
from gateway.model.proxies import HERE, Account, HttpProxy, SocksProxy
from gateway.settings.assemble import Loaded, load
from tests.configurations import COMPLETE


def loaded(tmp_path: Path, **environ: str) -> Loaded:
    """Return a configuration with these variables."""
    return load({**COMPLETE, **environ}, tmp_path)


def said(tmp_path: Path, **environ: str) -> str:
    """Return what is reported about these variables."""
    try:
        return "\n".join(map(str, loaded(tmp_path, **environ).notices))
    except ConfigError as err:
        return str(err)


def test_none_is_on_by_default(tmp_path: Path) -> None:
    """Also if other variables of proxies are set."""
    given = {"HTTPPROXY_LOG": "on", "SOCKS5_USER": "a", "SOCKS5_PASSWORD": "b"}
    config = loaded(tmp_path, **given).config
    assert config.http_proxy is config.socks_proxy is None


def test_without_anything_else_only_workloads_may_use_them(tmp_path: Path) -> None:
    """And the lines to paste are reported, those for the ports and those for clients."""
    both = {"HTTPPROXY": "on", "SOCKS5_ENABLED": "on", "FIREWALL_INPUT_PORTS": "80/tcp"}
    config = loaded(tmp_path, **both).config
    assert config.http_proxy == HttpProxy(HostPort("", 8888), None, HERE)
    assert config.socks_proxy == SocksProxy(HostPort("", 1080), None, HERE)
    text = said(tmp_path, **both)
    assert "FIREWALL_INPUT_PORTS=80/tcp,8888/tcp" in text
    assert "FIREWALL_INPUT_PORTS=80/tcp,1080/tcp" in text
    assert "SOCKS5_ALLOWED_SUBNETS=127.0.0.0/8,192.168.0.0/16" in text


@pytest.mark.parametrize(
    "more",
    [
        {"FIREWALL_INPUT_PORTS": "8000-9000", "HTTPPROXY_ALLOWED_SUBNETS": "192.168.1.0/24"},
        {"FIREWALL_INPUT_PORTS": "8888", "HTTPPROXY_USER": "a", "HTTPPROXY_PASSWORD": "b"},
        {"HTTPPROXY_LISTENING_ADDRESS": "127.0.0.1:8888"},
        {"HTTPPROXY_LISTENING_ADDRESS": "[::1]:8888"},
    ],
)
def test_nothing_is_reported_where_nothing_is_missing(tmp_path: Path, more: dict[str, str]) -> None:
    """A listed port and a way to know clients; or clients of the namespace alone."""
    assert "HTTPPROXY" not in said(tmp_path, HTTPPROXY="on", **more)


def test_an_account_lets_everyone_in_unless_subnets_are_listed(tmp_path: Path) -> None:
    """With both, both count. The password may be in a file, and is never shown."""
    account = {"SOCKS5_ENABLED": "on", "SOCKS5_USER": "me", "SOCKS5_PASSWORD": "p: @/é"}
    known = Account("me", Secret("p: @/é"))
    proxy = loaded(tmp_path, **account).config.socks_proxy
    assert proxy == SocksProxy(HostPort("", 1080), known, None)
    assert "p: @" not in repr(proxy)
    subnets = {"SOCKS5_ALLOWED_SUBNETS": "10.0.0.0/8, fd00::/8,192.168.1.5"}
    listed = loaded(tmp_path, **account, **subnets).config.socks_proxy
    assert listed
    assert listed.subnets == tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.168.1.5/32")))
    none = loaded(tmp_path, **account, SOCKS5_ALLOWED_SUBNETS=",").config.socks_proxy
    assert none
    assert none.subnets is None, "a list of nothing is none"
    secrets = tmp_path / "run/secrets"
    secrets.mkdir(parents=True)
    (secrets / "httpproxy_password").write_text("from-a-file\n")
    (secrets / "httpproxy_password").chmod(0o600)
    http = loaded(tmp_path, HTTPPROXY="on", HTTPPROXY_USER="me").config.http_proxy
    assert http
    assert http.account == Account("me", Secret("from-a-file"))


def test_check_shows_who_may_use_them_and_no_password(tmp_path: Path) -> None:
    """Only of those that are on, each value with its origin."""
    account = {"SOCKS5_USER": "me", "SOCKS5_PASSWORD": "staple"}
    found = loaded(tmp_path, HTTPPROXY="on", SOCKS5_ENABLED="on", **account)
    lines = [" ".join(it.split()) for it in explain(found).splitlines()]
    assert "HTTPPROXY_ALLOWED_SUBNETS 127.0.0.0/8, ::1/128 default" in lines
    assert "HTTPPROXY_PASSWORD none default" in lines
    assert "SOCKS5_PASSWORD set environment" in lines
    assert "SOCKS5_ALLOWED_SUBNETS everyone default" in lines
    assert "SOCKS5_LISTENING_ADDRESS :1080 default" in lines
    assert "staple" not in explain(found)
    assert "SOCKS5" not in explain(loaded(tmp_path, HTTPPROXY="on"))


def test_older_names_and_words_of_other_images_work(tmp_path: Path) -> None:
    """A port alone, and a level of a log."""
    older = {
        "PROXY": "on",
        "TINYPROXY_PORT": "8080",
        "PROXY_USER": "me",
        "PROXY_PASSWORD": "secret",
        "PROXY_LOG_LEVEL": "Info",
    }
    config = loaded(tmp_path, **older, HTTPPROXY_STEALTH="on").config
    account = Account("me", Secret("secret"))
    assert config.http_proxy == HttpProxy(HostPort("", 8080), account, None, log=True, stealth=True)
    quiet = loaded(tmp_path, HTTPPROXY="on", TINYPROXY_LOG="Critical").config.http_proxy
    assert quiet
    assert not quiet.log


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"HTTPPROXY": "maybe"}, "HTTPPROXY: must be"),
        ({"HTTPPROXY_USER": "a"}, "HTTPPROXY_USER: has no password; set HTTPPROXY_PASSWORD"),
        ({"SOCKS5_PASSWORD": "a"}, "SOCKS5_PASSWORD: has no user name; set SOCKS5_USER"),
        (
            {"HTTPPROXY_USER": "a", "HTTPPROXY_PASSWORD": "a@b"},
            "HTTPPROXY_PASSWORD: may have letters, digits, '.', '_' and '-' only",
        ),
        ({"SOCKS5_USER": "a", "SOCKS5_PASSWORD": "x" * 256}, "at most 255 bytes"),
        ({"HTTPPROXY_ALLOWED_SUBNETS": "home"}, "HTTPPROXY_ALLOWED_SUBNETS:"),
        (
            {"SOCKS5_ALLOWED_SUBNETS": ",".join(f"10.0.{n}.0/24" for n in range(65))},
            "more than 64 subnets",
        ),
        (
            {"HTTPPROXY": "on", "SOCKS5_ENABLED": "on", "SOCKS5_LISTENING_ADDRESS": ":8888"},
            "port 8888 is that of the HTTP proxy",
        ),
        (
            {"HTTPPROXY": "on", "HTTPPROXY_LISTENING_ADDRESS": ":9999"},
            "port 9999 is that of the health server",
        ),
        (
            {"HTTP_CONTROL_SERVER_ADDRESS": ":1080", "SOCKS5_ENABLED": "on"},
            "port 1080 is that of the control server",
        ),
        ({"SOCKS5_ENABLED": "on", "SOCKS5_LISTENING_ADDRESS": "53"}, "that of the resolver"),
        ({"HTTPPROXY_PASWORD": "x"}, "did you mean HTTPPROXY_PASSWORD?"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, environ: dict[str, str], reason: str) -> None:
    """Once, with what to write, and without the password."""
    text = said(tmp_path, **environ)
    assert reason in text
    assert "a@b" not in text
    assert text.count("has no password") <= 1


def test_variables_of_other_programs_are_not_misspellings(tmp_path: Path) -> None:
    """Engines give containers the proxy of their own configuration, in both cases."""
    for name in ("HTTP_PROXY", "https_proxy", "NO_PROXY"):
        assert loaded(tmp_path, **{name: "http://192.0.2.1:3128"}).config.http_proxy is None


def test_a_switch_of_shadowsocks_never_stops_a_start(tmp_path: Path) -> None:
    """It is answered with an alternative."""
    set_there = {"SHADOWSOCKS": "on", "SHADOWSOCKS_PASSWORD": "x", "SHADOWSOCKS_CIPHER": "y"}
    text = said(tmp_path, **set_there)
    assert "SHADOWSOCKS: not supported: use SOCKS5_ENABLED=on, or a Shadowsocks server" in text
