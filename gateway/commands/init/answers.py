"""What the user wants, from options or from questions on a terminal."""

import argparse
import getpass
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from gateway.model import Secret
from gateway.model.frozen import frozen
from gateway.providers import catalog
from gateway.providers.server import Provider
from gateway.settings.fields import login
from gateway.settings.values import safe_quote, secret_key

T = TypeVar("T")

PORT: Final = re.compile(r"(?:(?P<host>\d{1,5}):)?(?P<port>\d{1,5})(?:/(?P<kind>tcp|udp))?")
LARGEST: Final = 1 << 16
"""Bytes of a provider's file or of a key file that are read."""
ATTEMPTS: Final = 3
"""How often a question is asked whose answer cannot be right."""


class WrongAnswerError(ValueError):
    """An option or an answer that cannot be right; the message says which, and what to do."""


@frozen
class Answers:
    """What the compose file is made of.

    `variables` are those of the gateway. `secrets` are the contents of the secret files by name.
    `ports` are what the anchor publishes, as Compose writes it. `source` is the provider's file.
    """

    variables: Mapping[str, str]
    secrets: Mapping[str, Secret]
    ports: tuple[str, ...] = ()
    image: str = "portcullis"
    workload: str = "nginx"
    source: Path | None = None


@dataclass
class _Given:
    """The options, completed by answers."""

    provider: str = ""
    file: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)


def from_options(asked: argparse.Namespace) -> Answers:
    """Return what the options ask for. Raises WrongAnswerError and OSError."""
    given = _Given(asked.provider or "", asked.file)
    for option, name in (
        (asked.countries, "SERVER_COUNTRIES"),
        (asked.addresses, "WIREGUARD_ADDRESSES"),
        (asked.dns, "DNS_ADDRESS"),
        (asked.public_key, "WIREGUARD_PUBLIC_KEY"),
    ):
        if option:
            given.variables[name] = option
    for path, name in (
        (asked.private_key_file, "wireguard_private_key"),
        (asked.preshared_key_file, "wireguard_preshared_key"),
    ):
        if path:
            given.secrets[name] = Secret(_read(path).strip() + "\n")
    if asked.endpoint:
        _set_endpoint(given, asked.endpoint)
    given.ports = asked.port
    if given.file is None and not given.provider and not asked.endpoint:
        raise WrongAnswerError(
            "nothing to write: give --file wg0.conf, the file from your provider, or --provider "
            "NAME; on a terminal, `gateway init` alone asks"
        )
    return _finished(given, asked)


def from_questions(asked: argparse.Namespace) -> Answers:
    """Ask on the terminal, and return the answers. Raises WrongAnswerError and OSError."""
    given = _Given()
    names = ", ".join([*(one.name for one in catalog.PROVIDERS if one.url), catalog.CUSTOM])
    print(f"Providers: {names}. For any other one, give the WireGuard file that it made for you.")
    source = _ask("Provider, or path of its file [wg0.conf]: ", _provider_or_file)
    if isinstance(source, Path):
        given.file = source
    else:
        given.provider = source.name if source else catalog.CUSTOM
        _ask_for_keys(given, source)
        _ask_for_server(given, source)
    port = input("Port of your container that your network may reach (empty: none): ").strip()
    given.ports = [port] if port else []
    return _finished(given, asked)


def _ask_for_keys(given: _Given, provider: Provider | None) -> None:
    if provider and provider.keys:
        user = _ask("User name (of your account): ", login)
        password = _ask("Password (is not shown): ", login, hidden=True)
        given.secrets["openvpn_user"] = Secret(user.reveal() + "\n")
        given.secrets["openvpn_password"] = Secret(password.reveal() + "\n")
        return
    key = _ask("Private key (is not shown): ", secret_key, hidden=True)
    given.secrets["wireguard_private_key"] = Secret(key.reveal() + "\n")
    if provider and provider.needs_preshared_key:
        key = _ask("Preshared key (is not shown): ", secret_key, hidden=True)
        given.secrets["wireguard_preshared_key"] = Secret(key.reveal() + "\n")
    if not (provider and provider.addresses):
        given.variables["WIREGUARD_ADDRESSES"] = input(
            "Your address in the tunnel, such as 10.64.0.2/32: "
        ).strip()


def _ask_for_server(given: _Given, provider: Provider | None) -> None:
    if provider:
        countries = input("Countries, comma-separated (empty: any): ").strip()
        if countries:
            given.variables["SERVER_COUNTRIES"] = countries
        return
    _set_endpoint(given, input("Server, as ADDRESS:PORT: ").strip())
    given.variables["WIREGUARD_PUBLIC_KEY"] = input("Public key of the server: ").strip()
    given.variables["DNS_ADDRESS"] = input("Resolver in the tunnel, such as 10.64.0.1: ").strip()


def _ask(question: str, read: Callable[[str], T], *, hidden: bool = False) -> T:
    """Ask until `read` accepts the answer, ATTEMPTS times. Raises WrongAnswerError."""
    for _ in range(ATTEMPTS - 1):
        try:
            return read((getpass.getpass if hidden else input)(question).strip())
        except ValueError as err:
            print(f"The answer {err}", file=sys.stderr)
    try:
        return read((getpass.getpass if hidden else input)(question).strip())
    except ValueError as err:
        raise WrongAnswerError(f"the answer {err}") from err


def _provider_or_file(text: str) -> Path | Provider | None:
    """Return a file that is there, a provider with a list, or None for a server of one's own."""
    path = Path(text or "wg0.conf")
    if path.is_file():
        return path
    provider = catalog.find(text)
    if provider and provider.url is None:
        raise ValueError(f"is {provider.title}, whose files it needs: {provider.remark}")
    if provider is None and text.lower() != catalog.CUSTOM:
        what = safe_quote(str(path))
        raise ValueError(f"is neither a provider in the list nor a file that is there: {what}")
    return provider


def _set_endpoint(given: _Given, text: str) -> None:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise WrongAnswerError(
            f"--endpoint: {safe_quote(text)} is not ADDRESS:PORT, such as 192.0.2.10:51820"
        )
    given.variables["WIREGUARD_ENDPOINT_IP"] = host.strip("[]")
    given.variables["WIREGUARD_ENDPOINT_PORT"] = port


def _finished(given: _Given, asked: argparse.Namespace) -> Answers:
    variables = dict(given.variables)
    if given.file:
        given.secrets["wg0.conf"] = Secret(_read(given.file))
    if given.provider and given.provider.lower() != catalog.CUSTOM:
        provider = catalog.find(given.provider)
        name = provider.name if provider else given.provider
        variables = {"VPN_SERVICE_PROVIDER": name, **variables}
    ports = [_port(text) for text in given.ports]
    if ports:
        variables["FIREWALL_INPUT_PORTS"] = ",".join(inside for _, inside in ports)
    if asked.lan:
        variables["FIREWALL_OUTBOUND_SUBNETS"] = asked.lan
    published = tuple(outside for outside, _ in ports)
    return Answers(variables, given.secrets, published, asked.image, asked.workload, given.file)


def _port(text: str) -> tuple[str, str]:
    """Return what is published, and the port that the gateway has to open."""
    found = PORT.fullmatch(text)
    if not found:
        raise WrongAnswerError(
            f"--port: {safe_quote(text)} is not [HOST:]PORT[/udp], such as 8080 or 8080:80"
        )
    port, kind = found["port"], found["kind"] or "tcp"
    return f"{found['host'] or port}:{port}/{kind}", f"{port}/{kind}"


def _read(path: Path) -> str:
    """Return the text of a file, `-` for standard input. Raises OSError and WrongAnswerError."""
    try:
        if path == Path("-"):
            text = sys.stdin.read(LARGEST + 1)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(LARGEST + 1)
    except UnicodeDecodeError as err:
        raise WrongAnswerError(f"{path}: is not a text") from err
    if len(text) > LARGEST:
        raise WrongAnswerError(f"{path}: is larger than {LARGEST} bytes; this is another file")
    return text
