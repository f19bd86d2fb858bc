"""A reverse proxy that serves a gateway under /gw/, and can stop doing so in several ways."""

import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

PREFIX = "/gw/"
LOGIN = b"<!doctype html><title>Log in</title>"


class Proxy:
    """Passes requests on to `upstream`; `mode` is what it does instead: hang, fail or login."""

    def __init__(self, upstream: str) -> None:
        """Listen on loopback."""
        self.mode = ""
        self.asked: list[tuple[float, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_GET(self) -> None:
                """Pass it on, or do what the mode says."""
                outer.asked.append((time.monotonic(), self.command, self.path))
                code, kind, body, headers = outer.answer(self.path, self.headers.get("Accept", ""))
                if not code:
                    return
                self.send_response(code)
                for name, value in {**headers, "Content-Type": kind}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Write nothing."""

        self._upstream = upstream
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = self.origin + PREFIX

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes, dict[str, str]]:
        """Return code, type, body and headers; code 0 for none."""
        if self.mode == "hang":
            time.sleep(60)
            return 0, "", b"", {}
        if self.mode == "fail":
            return 502, "text/plain", b"bad gateway", {}
        if self.mode == "login":
            return 200, "text/html", LOGIN, {}
        if not path.startswith(PREFIX):
            return 404, "text/plain", b"", {}
        request = urllib.request.Request(  # noqa: S310 - the gateway on loopback
            self._upstream + path.removeprefix(PREFIX), headers={"Accept": accept}
        )
        try:
            with urllib.request.urlopen(request) as given:  # noqa: S310
                kept = {
                    name: value
                    for name, value in given.headers.items()
                    if name in {"Content-Security-Policy", "X-Content-Type-Options"}
                }
                return given.status, given.headers["Content-Type"], given.read(), kept
        except urllib.error.HTTPError as err:
            with err:
                return err.code, "application/json", err.read(), {}

    def __enter__(self) -> Self:
        """Return the proxy itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
