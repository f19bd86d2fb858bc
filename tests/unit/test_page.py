"""The status page as a file and as an answer; tests/page has it in a browser."""

import base64
import hashlib
import http.client
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.services.health import page
from tests.page.served import Gateway

PROJECT = Path(__file__).parents[2]
TEXT = page.FILE.read_text("utf-8")
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Tags(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.found.append((tag, dict(attrs)))


def tags() -> list[tuple[str, dict[str, str | None]]]:
    """Return the tags of the status page."""
    parser = Tags()
    parser.feed(TEXT)
    return parser.found


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    """Return a gateway that is connected."""
    made = Gateway()
    made.publish()
    return made


def ask(
    gateway: Gateway, accept: str | None, path: str = "/", method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask as a client with this header; return code, headers and body."""
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=5)
    connection.request(method, path, headers={} if accept is None else {"Accept": accept})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize(
    "accept",
    [FIREFOX, "text/html", "TEXT/HTML;Q=0.5", "application/json;q=0.1, text/html"],
)
def test_a_browser_gets_the_page(gateway: Gateway, accept: str) -> None:
    """It names HTML, and does not like JSON better."""
    code, headers, body = ask(gateway, accept)
    assert code == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert body == page.FILE.read_bytes()


@pytest.mark.parametrize(
    "accept",
    [
        *(None, "*/*", "application/json", "text/*", "text/html;q=0", "text/html;q=none"),
        *("application/json, text/html", "application/json, text/html;q=0.5", "text/plain"),
    ],
)
def test_every_other_client_gets_what_it_got_before(gateway: Gateway, accept: str | None) -> None:
    """A tool such as curl takes anything, and scripts read JSON."""
    code, headers, body = ask(gateway, accept)
    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body)["state"] == "connected"


def test_only_the_root_is_the_page_and_only_get_and_head_are_answered(gateway: Gateway) -> None:
    """HEAD without a body; a browser that opens another path sees what is there."""
    code, headers, body = ask(gateway, FIREFOX, method="HEAD")
    assert (code, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(TEXT.encode())
    for path in ("/healthz", "/livez", "/history"):
        assert ask(gateway, FIREFOX, path)[1]["Content-Type"] == "application/json"
    assert ask(gateway, FIREFOX, "/?theme=dark")[1]["Content-Type"].startswith("text/html")
    for method in ("POST", "PUT", "DELETE"):
        assert ask(gateway, FIREFOX, method=method)[0] == 405


def test_the_page_may_do_nothing_but_run_its_script_and_ask_its_host(gateway: Gateway) -> None:
    """The hashes are those of what is in the file, and no address of another host is allowed."""
    _, headers, _ = ask(gateway, FIREFOX)
    policy = dict(it.split(" ", 1) for it in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'{hash_of('script')}'",
        "style-src": f"'{hash_of('style')}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def hash_of(tag: str) -> str:
    """Return the hash of the only element of this kind in the page, as CSP writes it."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def test_the_page_has_no_handler_no_foreign_address_and_nothing_to_press() -> None:
    """Nothing on it changes the gateway, or asks another host."""
    found = tags()
    assert {"html", "main", "header", "footer", "script"} <= {tag for tag, _ in found}
    for tag, attributes in found:
        assert tag not in {"form", "button", "input", "select", "textarea", "iframe", "base"}
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in ("src", "href"):
            given = urlsplit(attributes.get(name) or "")
            assert (given.scheme in {"", "data"}, given.netloc) == (True, ""), tag
    assert set(re.findall(r"https?://[^\s\"'`]+", TEXT)) == {"http://www.w3.org/2000/svg"}


def test_values_are_put_in_as_text_alone() -> None:
    """The script has nothing that makes markup or code of a text."""
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "setHTML",
        "createContextualFragment",
        "srcdoc",
    ):
        assert name not in TEXT, name


def test_a_page_that_cannot_be_read_is_an_answer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, and where the state is; the server continues."""
    monkeypatch.setattr(page, "FILE", PROJECT / "missing.html")
    code, headers, body = ask(gateway, FIREFOX)
    assert code == 500
    assert headers["Content-Type"].startswith("text/plain")
    assert body == (
        b"cannot read the status page (No such file or directory); /healthz has the state\n"
    )
    assert ask(gateway, None)[0] == 200


def test_the_page_costs_nothing_until_a_browser_asks() -> None:
    """Neither the module nor the text is there, whatever other clients have asked for."""
    script = """
import http.client, sys
from urllib.parse import urlsplit
from tests.page.served import Gateway
gateway = Gateway()
gateway.publish()
for accept in ("*/*", "text/html"):
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=5)
    connection.request("GET", "/", headers={"Accept": accept})
    connection.getresponse().read()
    print("gateway.services.health.page" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(("path", "asked"), [("/history", 1), ("/metrics", 1), ("/livez", 0)])
def test_the_history_has_refused_packets_counted_as_the_metrics_have(path: str, asked: int) -> None:
    """The page asks for it each minute, and shows what was refused."""
    gateway = Gateway()
    gateway.publish()
    calls: list[str] = []
    gateway.board.ask_to_count = lambda: calls.append(path)
    assert ask(gateway, None, path)[0] == 200
    assert len(calls) == asked
