"""A headless Chromium, driven by the DevTools protocol over two pipes: no port and no library.

The protocol is that of `--remote-debugging-pipe`: JSON objects, each one ended by a zero byte.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.conftest import skip_or_fail
from tests.lab.process import PATIENCE, eventually

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--remote-debugging-pipe",
)
ANSWER_WITHIN = 20.0


class Browser:
    """One page in a browser of its own; a context manager that ends it."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        """Start Chromium; `prefix` is what runs it elsewhere, such as in a namespace."""
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            skip_or_fail("no Chromium: scripts/test installs chromium-headless-shell")
        self._profile = tempfile.TemporaryDirectory(prefix="page-")
        reads, self._write = os.pipe()
        self._read, writes = os.pipe()
        # The pipes have to be descriptors 3 and 4 of the browser.
        self._child = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", *prefix),
                *(str(program), *OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"),
            ],
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reads)
        os.close(writes)
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(it["targetId"] for it in targets if it["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        """Return the browser itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End the browser and remove its profile."""
        group = self._child.pid
        os.killpg(group, signal.SIGKILL)
        self._child.wait()
        eventually(lambda: is_over(group), timeout=5, what="the end of the browser's processes")
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    # -- the protocol --------------------------------------------------------------------------

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events are kept meanwhile."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_WITHIN * PATIENCE
        while True:
            answer = self._message(deadline)
            if answer is None:
                raise TimeoutError(f"no answer to {method}")
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self, deadline: float) -> dict[str, Any] | None:
        """Return the next message, None if there is none until `deadline`; an event is kept."""
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def wait(self, seconds: float) -> None:
        """Let time pass, and keep the events."""
        deadline = time.monotonic() + seconds
        while self._message(deadline) is not None:
            pass

    def seen(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of each event of this kind until now."""
        self.wait(0)
        return [event["params"] for event in self.events if event["method"] == method]

    # -- the page ------------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Open an address, and wait until what it names is there."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + ANSWER_WITHIN * PATIENCE
        while not self.seen("Page.loadEventFired"):
            assert time.monotonic() < deadline, f"{url} does not load"
            self.wait(0.02)

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, awaited if it is a promise."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, *, timeout: float = 10, what: str = "") -> Any:
        """Wait until an expression in the page is true, and return it."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, what or script
            self.wait(0.05)
        return value

    def text(self, selector: str) -> str:
        """Return the text of an element as a reader sees it."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def show(self, width: int = 1200, height: int = 900, *, dark: bool = False) -> None:
        """Show the page in a window of this size, in a light or dark scheme."""
        scale = 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go, by its name and its virtual key code."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind, given in (("keyDown", text), ("keyUp", {})):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **given
            )

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page, with as many colours as it needs to look the same."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        reduce = ["pngquant", "--quality=70-95", "--speed=1", "--strip", "-"]
        done = subprocess.run(
            reduce, input=base64.b64decode(taken["data"]), capture_output=True, check=True
        )
        path.write_bytes(done.stdout)

    # -- what the browser says -----------------------------------------------------------------

    def messages(self) -> list[str]:
        """Return what the browser has logged: violations of the policy, errors of the script."""
        logged = [
            f"{it['entry']['source']}: {it['entry']['text']}" for it in self.seen("Log.entryAdded")
        ]
        thrown = [str(it["exceptionDetails"]) for it in self.seen("Runtime.exceptionThrown")]
        written = [str(it["args"]) for it in self.seen("Runtime.consoleAPICalled")]
        issues = [str(it["issue"]) for it in self.seen("Audits.issueAdded")]
        return [*logged, *thrown, *written, *issues]

    def requests(self) -> list[str]:
        """Return the address of each request since the page was opened."""
        return [it["request"]["url"] for it in self.seen("Network.requestWillBeSent")]


def is_over(group: int) -> bool:
    """Return whether all processes of a group have ended; a zombie has."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, in_group = status.read_text("utf-8").rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(in_group) == group and state not in {"Z", "X"}:
            return False
    return True
