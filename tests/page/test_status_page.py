"""The status page in a browser, against the gateway's own server: what people see in each state.

The statuses are the test's; tests/promises/test_status_page.py has a running gateway.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from gateway import __version__
from gateway.model.lease import Lease
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.remedies import REMEDIES
from gateway.policy.report import Hole, HoleKind, Status
from gateway.policy.reports import ResolverReport, ServiceReport
from gateway.policy.states import Reason
from tests.browser import Browser
from tests.page.looks import contrasts, is_too_wide, too_faint, violations
from tests.page.proxy import PREFIX, Proxy
from tests.page.served import CONNECTED, Gateway, outage

STARTING = replace(outage(0), reason=Reason.STARTING, detail="", attempts=0)
SILENT = replace(
    CONNECTED, healthy=False, reason=Reason.RESOLVER_SILENT, detail="10.64.0.1 is silent"
)
STATES: dict[str, tuple[Status, str, str]] = {
    "connected": (CONNECTED, "ok", "Connected"),
    "starting": (STARTING, "wait", "Connecting"),
    "resolving": (replace(STARTING, state="resolving"), "wait", "Looking up the server"),
    "no handshake": (outage(23), "bad", "No connection"),
    "locked": (replace(STARTING, state="locked", reason=Reason.FIREWALL), "bad", "Closed"),
    "resolver silent": (SILENT, "bad", "Connected, with a fault"),
    "hung": (replace(CONNECTED, healthy=False, reason=Reason.HUNG), "bad", "Not responding"),
    "paused": (replace(STARTING, state="paused", reason=Reason.PAUSED), "bad", "Paused"),
    "stopping": (replace(STARTING, state="stopping", reason=Reason.STOPPING), "wait", "Stopping"),
}
"""A status of each kind, the tone of the page, and its headline."""
TONES = ["connected", "starting", "no handshake"]
FASTER = """
const slow = setTimeout, limit = AbortSignal.timeout.bind(AbortSignal);
window.setTimeout = (work, ms) => slow(work, ms / 20);
AbortSignal.timeout = (ms) => limit(ms / 5);
"""
"""Makes the page's time between two questions twenty times as short, for an answer five times."""
TAB, ENTER = ("Tab", 9), ("Enter", 13)


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    """Return a gateway with an hour behind it."""
    made = Gateway()
    made.live_an_hour()
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a browser."""
    with Browser() as made:
        yield made


@pytest.fixture
def fast() -> Iterator[Browser]:
    """Yield a browser in which the page asks more often."""
    with Browser() as made:
        made.call("Page.addScriptToEvaluateOnNewDocument", source=FASTER)
        yield made


def tone_is(browser: Browser, tone: str) -> None:
    """Wait until the page has this tone and has shown everything."""
    browser.until(f"document.documentElement.dataset.tone === '{tone}'")
    browser.until("document.querySelector('#changes').childElementCount > 0")


def show(browser: Browser, gateway: Gateway, name: str) -> None:
    """Open the page of a gateway in this state."""
    gateway.publish(STATES[name][0], state_age=125)
    browser.open(gateway.url)
    if STATES[name][1] == "wait":  # as the page is before the first answer
        browser.until("!document.documentElement.classList.contains('is-empty')")
    tone_is(browser, STATES[name][1])


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_said_in_words_and_by_a_shape_of_its_own(
    browser: Browser, gateway: Gateway, name: str
) -> None:
    """Not by colour alone; with reason, detail and since when; the title and the voice say it."""
    status, tone, headline = STATES[name]
    browser.show()
    show(browser, gateway, name)
    assert browser.text("h1") == headline
    assert browser.run("document.title") == f"{headline} · Portcullis"
    assert browser.text("[role=status]").startswith(f"{headline}. ")
    shapes = browser.run(
        "[...document.querySelectorAll('.said svg g')]"
        ".filter((it) => getComputedStyle(it).display !== 'none').map((it) => it.classList[0])"
    )
    assert shapes == [f"is-{tone}"]
    assert "2 min 5 s" in browser.text("#facts")
    assert "since " in browser.text("#facts")
    why = "" if status.healthy else browser.text("#why")
    remedy = REMEDIES[status.reason]
    assert bool(why) is not status.healthy
    assert browser.text("#detail" if status.detail else "#means")
    shown = browser.text("#remedy")
    assert shown.replace("`", "") == (f"What to do: {remedy}".replace("`", "") if remedy else "")


def test_what_is_open_is_drawn_with_a_word_for_each_way(browser: Browser, gateway: Gateway) -> None:
    """With a tunnel all that is listed, without one what is open then, and what was refused."""
    browser.show()
    show(browser, gateway, "connected")
    assert ways(browser) == {
        "Tunnel": "open",
        "Resolver": "open",
        "LAN subnets": "open",
        "Input ports": "open",
        "Ports in the tunnel": "open",
        "Everything else": "refused",
    }
    for text in ("192.168.1.0/24", "8080/tcp, 9999/tcp", "51413/udp", "16 packets refused so far"):
        assert text in browser.text("#ways")
    show(browser, gateway, "no handshake")
    assert [name for name, word in ways(browser).items() if word == "open"] == ["Input ports"]
    gateway.publish(replace(CONNECTED, holes=(Hole(HoleKind.LAN),), refused=()))
    browser.open(gateway.url)
    tone_is(browser, "ok")
    assert ways(browser)["LAN subnets"] == "closed"
    assert "none listed" in browser.text("#ways")
    assert "no packet refused so far" in browser.text("#ways")


def test_a_forwarded_port_and_optional_services_are_shown(
    browser: Browser, gateway: Gateway
) -> None:
    """With how long the lease lasts, and what does not work."""
    browser.show()
    until = gateway.clock() + 90
    gateway.publish(replace(CONNECTED, leases=(Lease(40123, 51413, until), Lease(2, 2, until))))
    works = ServiceReport("client", is_running=True, text="listens on 40123")
    failed = ServiceReport("proxy", problem=MARKUP, remedy="see the log")
    gateway.board.services = lambda: (works, failed)
    try:
        browser.open(gateway.url)
        tone_is(browser, "ok")
        assert ways(browser)["Forwarded port"] == "open"
        shown = browser.text("#ways")
        assert "40123, arrives at 51413" in shown
        assert "unless it is renewed" in shown
        details = browser.run("document.querySelector('#details').textContent")
    finally:
        gateway.board.services = lambda: ()
    assert "clientworkslistens on 40123" in details
    assert f"proxydoes not work{MARKUP}" in details
    assert __version__ in details


def ways(browser: Browser) -> dict[str, str]:
    """Return the word of each way by its name."""
    found = browser.run(
        "[...document.querySelectorAll('#ways li')].map((it) =>"
        " [it.querySelector('h3').innerText, it.querySelector('b').innerText])"
    )
    return dict(found)


def test_graphs_and_changes_show_the_hour_also_to_those_who_do_not_see_them(
    browser: Browser,
) -> None:
    """Each graph has a description, and its numbers as a table; each change its time and reason."""
    gateway = Gateway()
    gateway.live_an_hour()
    browser.show()
    show(browser, gateway, "connected")
    described = browser.run(
        "[...document.querySelectorAll('svg[role=img]')].map((it) => it.getAttribute('aria-label'))"
    )
    assert len(described) == 2
    assert described[0].startswith("Age of the last handshake over the last hour: at most 2 min")
    assert "received and" in described[1]
    assert "not healthy" in browser.text("#ages .key")
    assert browser.run("document.querySelectorAll('#ages-numbers tbody tr').length") >= 58
    assert browser.run("document.querySelectorAll('#rates-numbers thead th').length") == 3
    drawn = browser.run("document.querySelector('#rates path.one').getAttribute('d')")
    assert drawn.count("L") > 50
    changes = browser.text("#changes")
    for text in ("Not healthy, connecting: no handshake", "for 2 min 30 s", "until now"):
        assert text in changes


def test_limits_come_with_their_remedies(browser: Browser, gateway: Gateway) -> None:
    """What can be pasted is set apart; without a limit the page says so."""
    browser.show()
    show(browser, gateway, "connected")
    assert "Remedy: give workloads" in browser.text("#limits")
    assert browser.text("#limits code") == "cap_drop: [NET_RAW]"
    gateway.publish(replace(CONNECTED, limits=()))
    browser.open(gateway.url)
    tone_is(browser, "ok")
    assert browser.text("#limits") == "None: this host can keep every promise."


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", TONES)
def test_it_can_be_read_by_everyone(
    browser: Browser, gateway: Gateway, name: str, *, dark: bool
) -> None:
    """Contrast as in WCAG AA, computed here and by axe-core, which looks at the rest too."""
    browser.show(dark=dark)
    show(browser, gateway, name)
    browser.run("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
    assert len(contrasts(browser)) > 60
    assert too_faint(browser) == []
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 60) is dark
    assert violations(browser) == []


def test_what_cannot_be_read_is_found(browser: Browser, gateway: Gateway) -> None:
    """Positive control: grey on grey, and a picture without a text."""
    browser.show()
    show(browser, gateway, "connected")
    browser.run("document.querySelector('h1').style.color = 'rgb(200, 215, 205)'")
    browser.run("document.body.append(document.createElement('img'))")
    assert [text for _, _, text in too_faint(browser)] == ["Connected"]
    found = {it.partition(":")[0] for it in violations(browser)}
    assert {"color-contrast", "image-alt"} <= found


@pytest.mark.parametrize("name", STATES)
def test_it_is_never_scrolled_sideways(browser: Browser, gateway: Gateway, name: str) -> None:
    """From a small telephone up, in every state. Control: what is wider is found."""
    show(browser, gateway, name)
    for width in (320, 390, 600, 768, 900, 1024, 1600):
        browser.show(width, 844)
        assert not is_too_wide(browser), width
    browser.run("document.querySelector('h1').style.width = '1700px'")
    browser.run("document.querySelector('.state').style.overflow = 'visible'")
    assert is_too_wide(browser)


def test_it_can_be_used_with_the_keyboard_alone(browser: Browser) -> None:
    """The order is that of the page, what has the focus is seen, and a key opens the numbers."""
    gateway = Gateway()
    gateway.live_an_hour()
    browser.show()
    show(browser, gateway, "connected")
    seen = []
    for _ in range(5):
        browser.press(*TAB)
        has_ring = browser.run("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        assert has_ring
        assert browser.run(
            "(() => { const it = document.activeElement.getBoundingClientRect();"
            " return it.top >= 0 && it.bottom <= innerHeight && it.width > 0; })()"
        )
        seen.append(browser.run("document.activeElement.innerText"))
        if seen[-1] == "Show the numbers" and len(seen) == 2:
            browser.press(*ENTER)
            assert browser.run("document.activeElement.parentElement.open") is True
    assert [it.splitlines()[0] for it in seen] == [
        "Skip to the state",
        "Show the numbers",
        "Time\tAge of the handshake",
        "Show the numbers",
        "healthz",
    ]
    browser.open(gateway.url)
    browser.press(*TAB)
    browser.press(*ENTER)
    assert browser.run("document.activeElement.id") == "main"


def test_the_focus_stays_where_it_is_when_the_page_is_drawn_again(
    fast: Browser, gateway: Gateway
) -> None:
    """And what was opened stays open, when there is a new history."""
    gateway.publish()
    fast.open(gateway.url)
    tone_is(fast, "ok")
    fast.press(*TAB)
    fast.press(*TAB)
    fast.press(*ENTER)
    gateway.publish(SILENT)
    tone_is(fast, "bad")
    fast.until("document.querySelector('#changes').innerText.includes('resolver silent')")
    assert fast.run("document.activeElement.innerText") == "Show the numbers"
    assert fast.run("document.activeElement.parentElement.open") is True


def test_nothing_moves_for_those_who_do_not_want_it(browser: Browser, gateway: Gateway) -> None:
    """Control: the sign of waiting moves for others."""
    moving = "document.getAnimations().length"
    browser.show()
    show(browser, gateway, "starting")
    assert browser.run(moving) > 0
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    browser.call("Emulation.setEmulatedMedia", features=[still])
    assert browser.run(moving) == 0


def test_the_browser_reports_nothing_and_asks_no_other_host(
    browser: Browser, gateway: Gateway
) -> None:
    """No violation of the policy, no error, no request but those for the gateway's own answers."""
    for number, name in enumerate(STATES):
        browser.show(dark=number % 2 == 0)
        show(browser, gateway, name)
        browser.wait(0.1)
        assert browser.messages() == []
        assert set(browser.requests()) == {gateway.url + path for path in ("", "livez", "history")}


def test_what_the_policy_forbids_is_noticed(browser: Browser, gateway: Gateway) -> None:
    """Positive control: markup, a style, a picture and a request of another origin are stopped."""
    browser.show()
    show(browser, gateway, "connected")
    assert browser.run(
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return false; }"
        " catch (err) { return err instanceof TypeError; } })()"
    )
    browser.run(
        "(() => { const it = new Image(); it.src = 'http://127.0.0.1:9/x'; })();"
        "fetch('http://127.0.0.1:9/').catch(() => 0)"
    )
    browser.run("document.body.append(document.createElement('style'))")
    browser.run("document.querySelector('style:last-of-type').textContent = 'body {}'")
    browser.wait(0.2)
    stopped = " ".join(browser.messages())
    for directive in ("img-src", "connect-src", "style-src"):
        assert directive in stopped


MARKUP = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"
HOSTILE = f"{MARKUP}\u202e\x1b[2J\u2066{'é' * 5000}`code`&lt;"


def test_hostile_text_is_only_text(browser: Browser, gateway: Gateway) -> None:
    """Names of servers, details, reasons, limits, lists: whatever others can write."""
    browser.show(390, 844)
    gateway.publish(
        replace(
            CONNECTED,
            healthy=False,
            reason=Reason.RESOLVER_SILENT,
            endpoint=HOSTILE,
            detail=HOSTILE,
            firewall=HOSTILE,
            tunnel=HOSTILE,
            reconnects=((HOSTILE, 3), ("__proto__", 1)),
            refused=((MARKUP, "out", 3),),
            holes=(Hole(HoleKind.LAN, (HOSTILE, MARKUP), is_open=True),),
            limits=(Limit(LimitCode.NO_GUARD, HOSTILE, HOSTILE),),
        )
    )
    report = ResolverReport(asks=HOSTILE, answers=True, problem=HOSTILE)
    gateway.board.resolver = lambda: report
    try:
        browser.open(gateway.url)
        tone_is(browser, "bad")
        browser.until("document.body.innerText.includes('until now')")
    finally:
        gateway.board.resolver = lambda: None
    text = browser.run("document.querySelector('main').textContent")
    assert text.count(MARKUP) >= 8
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "\\u{202e}\\u{1b}[2J\\u{2066}" in text
    assert len(text) < 60000
    assert browser.run("document.querySelectorAll('img, main script, iframe').length") == 0
    assert browser.run("window.hit") is None
    assert not is_too_wide(browser)
    assert browser.messages() == []
    assert len(browser.requests()) == 3


@pytest.mark.parametrize("mode", ["hang", "fail", "login"])
def test_a_gateway_that_no_longer_answers_is_never_shown_as_green(
    fast: Browser, gateway: Gateway, mode: str
) -> None:
    """The page says since when, and that nothing is known; once there is an answer, it is back."""
    gateway.publish()
    with Proxy(gateway.url) as proxy:
        fast.open(proxy.url)
        tone_is(fast, "ok")
        proxy.mode = mode
        tone_is(fast, "lost")
        assert fast.text("h1").startswith("No answer since ")
        assert "not known" in fast.text("#means")
        assert fast.text("#updated").startswith("No answer for ")
        assert set(ways(fast).values()) == {"unknown"}
        assert too_faint(fast) == []
        assert violations(fast) == []
        proxy.mode = ""
        gateway.publish()
        tone_is(fast, "ok")
        assert fast.text("h1") == "Connected"
        assert set(ways(fast).values()) == {"open", "refused"}


def test_a_gateway_that_does_not_answer_is_asked_less_and_less(
    fast: Browser, gateway: Gateway
) -> None:
    """Twice as seldom each time, and at least once a minute; here twenty times as fast."""
    gateway.publish()
    with Proxy(gateway.url) as proxy:
        fast.open(proxy.url)
        tone_is(fast, "ok")
        proxy.mode = "fail"
        tone_is(fast, "lost")
        first = len(proxy.asked)
        fast.wait(8)
        times = [at for at, _, _ in proxy.asked[first - 1 :]]
        between = [after - before for before, after in pairwise(times)]
        assert [round(it * 20 / 10) * 10 for it in between[:4]] == [10, 20, 40, 60]
        assert {method for _, method, _ in proxy.asked} == {"GET"}


def test_a_hidden_page_asks_nothing_and_a_page_after_sleep_is_not_green(
    fast: Browser, gateway: Gateway
) -> None:
    """It asks at once when it is seen again, and shows what it had as old until then."""
    gateway.publish()
    with Proxy(gateway.url) as proxy:
        fast.open(proxy.url)
        tone_is(fast, "ok")
        hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
        turn = "document.dispatchEvent(new Event('visibilitychange'))"
        fast.run(hide % "true" + turn)
        fast.wait(0.3)
        before = len(proxy.asked)
        fast.wait(1.5)
        assert len(proxy.asked) == before
        proxy.mode = "hang"
        fast.run("{ const now = Date.now; Date.now = () => now() + 60000; }")
        fast.run(hide % "false" + turn)
        assert fast.run("document.documentElement.dataset.tone") == "lost"
        for _ in range(40):
            if len(proxy.asked) > before:
                break
            fast.wait(0.05)
        assert len(proxy.asked) == before + 1


def test_it_works_behind_a_reverse_proxy_under_a_path(browser: Browser, gateway: Gateway) -> None:
    """Its addresses are relative."""
    gateway.publish()
    browser.show()
    with Proxy(gateway.url) as proxy:
        browser.open(proxy.url)
        tone_is(browser, "ok")
        assert browser.messages() == []
        assert {path for _, _, path in proxy.asked} == {
            PREFIX + path for path in ("", "livez", "history")
        }


def test_without_scripts_it_says_where_the_state_is(browser: Browser, gateway: Gateway) -> None:
    """And never that all is well."""
    gateway.publish()
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(gateway.url)
        time.sleep(0.2)
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    said = " ".join(str(it.get("name", {}).get("value", "")) for it in tree)
    assert "This page needs JavaScript." in said
    assert "Connected" not in said
