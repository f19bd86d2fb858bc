"""The compose files in docs/recipes are accepted as they are, and every page can be found."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.commands.check.trial import Trial, try_compose
from gateway.errors import Weight
from gateway.providers import catalog
from tests.configurations import PRESHARED, PRIVATE, QUICK

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
RECIPES = DOCS / "recipes"
PAGES = sorted(path for path in RECIPES.rglob("*.md") if path.name != "README.md")

BLOCK = re.compile(r"^```yaml\n(services:\n.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
CONTENTS = {
    "wg0.conf": QUICK,
    "wireguard_private_key": PRIVATE + "\n",
    "wireguard_preshared_key": PRESHARED + "\n",
    "openvpn_user": "p1234567\n",
    "openvpn_password": "two words\n",
    "forwarded_port_client_password": "two other words\n",
}
"""What the secrets of the recipes have in them."""

FILES = [
    pytest.param(text, id=f"{path.relative_to(RECIPES)} {number}")
    for path in PAGES
    for number, text in enumerate(BLOCK.findall(path.read_text("utf-8")), 1)
]


def checked(text: str, folder: Path) -> Trial:
    """Return what `gateway check` says of a compose file in `folder`, whose secrets are there."""
    (folder / "secrets").mkdir(exist_ok=True)
    for name, content in CONTENTS.items():
        path = folder / "secrets" / name
        path.write_text(content)
        path.chmod(0o600)
    (folder / "compose.yml").write_text(text)
    return try_compose(folder / "compose.yml", "gateway", {"VPN_FOLDER": str(folder)})


def document(text: str) -> dict[str, Any]:
    """Return the services of a compose file."""
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


@pytest.mark.parametrize("text", FILES)
def test_a_recipe_is_accepted_with_nothing_to_change(text: str, tmp_path: Path) -> None:
    """No problem, no warning, no advice; every secret that it has is one of a provider."""
    trial = checked(text, tmp_path)
    assert trial.problems == ()
    assert [str(it) for it in trial.notices if it.weight is Weight.WARNING] == []
    assert trial.advice is not None
    assert list(trial.advice.lines()) == []


@pytest.mark.parametrize("text", FILES)
def test_workloads_of_a_recipe_are_in_the_gateways_network_and_have_no_rights(text: str) -> None:
    """They wait for the gateway, publish nothing, and may neither change rules nor send raw."""
    services = document(text)
    for name, service in services.items():
        if service.get("network_mode") == "service:anchor" and name != "gateway":
            assert service["depends_on"] == {"gateway": {"condition": "service_healthy"}}, name
            assert service["cap_drop"] == ["NET_RAW"], name
            assert not service.keys() & {"ports", "cap_add", "privileged"}, name
    assert services["anchor"]["command"] == "hold"
    assert "environment" not in services["anchor"]


def test_a_recipe_with_a_fault_is_noticed(tmp_path: Path) -> None:
    """Control: a port that is not listed, and a key that is not there."""
    text = next(param.values[0] for param in FILES if "qbittorrent" in str(param.id))
    closed = checked(
        text.replace("FIREWALL_INPUT_PORTS: 8080", "FIREWALL_INPUT_PORTS: 80"), tmp_path
    )
    assert any("8080/tcp" in str(notice) for notice in closed.notices)
    assert checked(text.replace("secrets: [wg0.conf, ", "secrets: ["), tmp_path).problems


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_page_says_what_was_tried_and_its_links_lead_somewhere(path: Path) -> None:
    """Its third line, so that a reader sees it before the file."""
    text = path.read_text("utf-8")
    tried = text.splitlines()[2]
    assert tried.startswith("*Tried: ")
    assert "tests/unit/test_recipes.py" in tried
    assert BLOCK.search(text)
    for target in LINK.findall(text):
        assert (path.parent / target).exists(), target


def test_every_page_is_listed() -> None:
    """Each recipe in the list of recipes, each other document in that of documents."""
    recipes = {(RECIPES / it).resolve() for it in LINK.findall((RECIPES / "README.md").read_text())}
    assert set(PAGES) - recipes == set()
    documents = {(DOCS / it).resolve() for it in LINK.findall((DOCS / "README.md").read_text())}
    own = {path for path in DOCS.glob("*.md") if path.name != "README.md"}
    assert own | {RECIPES / "README.md"} <= documents
    assert all(path.exists() for path in recipes | documents)


@pytest.mark.parametrize("provider", catalog.PROVIDERS, ids=lambda provider: provider.name)
def test_every_provider_has_a_page_with_its_values(provider: Any) -> None:
    """Ports, addresses and resolvers are those of the code; filters too."""
    text = (RECIPES / "providers" / f"{provider.name.replace(' ', '-')}.md").read_text("utf-8")
    said = {str(it) for it in (*provider.addresses, *provider.resolvers, *provider.ports)}
    if provider.url is None:
        said -= {str(port) for port in provider.ports}
    assert [it for it in sorted(said) if it not in text] == []
    assert ("wireguard_preshared_key" in text) == provider.needs_preshared_key
    fields = {"country": "COUNTRIES", "region": "REGIONS", "city": "CITIES", "name": "NAMES",
              "hostname": "HOSTNAMES", "categories": "CATEGORIES"}  # fmt: skip
    chosen = set(re.findall(r"`SERVER_(\w+)`", text))
    if provider.url:
        assert chosen == {fields[it] for it in provider.filters if it in fields}
