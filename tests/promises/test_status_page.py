"""The status page of a running gateway, in a browser of a neighbour on the gateway's network."""

import json

import pytest

from gateway.services.health.board import COUNT_EVERY
from tests.browser import Browser
from tests.lab.internet import INTERNET, LAN_SUBNETS
from tests.lab.topology import Lab
from tests.page.looks import is_too_wide, too_faint
from tests.page.test_status_page import tone_is, ways
from tests.promises.stages import OWN4
from tests.promises.test_health import ask

pytestmark = [pytest.mark.lab]

PORT = 9999
URL = f"http://{OWN4}:{PORT}/"
VARIABLES = {
    "HEALTH_SERVER_ADDRESS": f":{PORT}",
    "FIREWALL_INPUT_PORTS": f"8080,{PORT}/tcp",
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(LAN_SUBNETS),
}


def looks_well(browser: Browser) -> None:
    """Check contrast and width in both schemes, and that the browser reports nothing."""
    for width, dark in ((390, True), (390, False), (1200, True), (1200, False)):
        browser.show(width, dark=dark)
        assert too_faint(browser) == []
        assert not is_too_wide(browser)
    assert browser.messages() == []
    asked = {it.removeprefix(URL) for it in browser.requests()}
    assert asked <= {"", "livez", "history"}


def test_the_page_follows_a_gateway_from_its_start_to_its_end(lab: Lab) -> None:
    """Connecting, red with the reason, connected, what is open and refused, and no answer."""
    lab.server.cut()
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES))
    gateway.wait_for_state("connecting")
    with Browser(lab.internet_namespace.command([])) as browser:
        browser.open(URL)
        tone_is(browser, "wait")
        assert browser.text("h1") == "Connecting"
        assert ways(browser)["Input ports"] == "open"
        assert ways(browser)["Tunnel"] == ways(browser)["LAN subnets"] == "closed"
        looks_well(browser)

        tone_is(browser, "bad")
        assert browser.text("h1") == "No connection"
        assert browser.text("#why") == "Reason: no handshake"
        assert f"{lab.server.endpoint.ipv4}:{lab.server.port}" in browser.text("#facts")
        looks_well(browser)

        lab.server.restore()
        tone_is(browser, "ok")
        health = gateway.wait_healthy().body
        assert browser.text("h1") == "Connected"
        assert {name for name, word in ways(browser).items() if word == "open"} == {
            *("Tunnel", "Resolver", "LAN subnets", "Input ports"),
        }
        for subnet in LAN_SUBNETS:
            assert subnet in browser.text("#ways")
        for limit in health["limits"]:
            assert limit["text"].lower() in browser.text("#limits").lower()
        assert "Not healthy" in browser.text("#changes")
        looks_well(browser)

        assert lab.workload.probe("udp", host=INTERNET[0].ipv4, device="eth0").failed_fast
        browser.wait(COUNT_EVERY + 0.2)  # the last count was for the page itself
        browser.open(URL)
        browser.until("document.querySelector('#ways').innerText.includes('to outside (IPv4)')")

        assert gateway.stop() == 0
        # Packets to a closed port are dropped, so an answer is given up after 8 s.
        browser.until("document.documentElement.dataset.tone === 'lost'", timeout=20)
        assert browser.text("h1").startswith("No answer since ")
        assert set(ways(browser).values()) == {"unknown"}


def test_a_program_gets_what_it_got_before(lab: Lab) -> None:
    """Only a client that names HTML gets the page; it has no more in it than the JSON."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES))
    gateway.wait_healthy()
    found = gateway.status("/")
    assert (found.code, found.state) == (200, "connected")
    answers = {}
    for accept in ("text/html", "*/*"):
        request = f"GET / HTTP/1.1\r\nHost: gateway\r\nAccept: {accept}\r\n\r\n"
        code, _, body = ask(lab, request.encode())
        assert code == 200
        answers[accept] = body.decode()
    assert answers["text/html"].startswith("<!doctype html>")
    assert set(json.loads(answers["*/*"])) == set(found.body)
    for secret in (gateway.client.private, lab.server.preshared_key, lab.server.keys.public):
        assert secret not in "".join(answers.values())
