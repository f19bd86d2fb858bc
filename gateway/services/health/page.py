"""The status page, for a browser that asks for `/`: one file, which asks for the rest as JSON.

The page shows what `/livez` and `/history` answer to everyone, and nothing else. It is read from
the disk for each request, and this module is imported for the first one.
"""

from pathlib import Path

from gateway.services.health.board import OK, Answer

FAILED = 500
FILE = Path(__file__).with_name("status.html")

SCRIPT = "sha256-OxgS9sQqt7k6qDbz3FPNKdzTCdrCcSlRV48pCXm6gq4="
STYLE = "sha256-SwoUUISNrUq0pYu9XUWQ2VyV879DUU3ywDMBFzLr2B4="
"""The hashes of the page's script and style; tests/unit/test_page.py compares them."""

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src '{SCRIPT}'",
            f"style-src '{STYLE}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept",
}
"""What a browser may do with the page (CSP3, section 6): run its one script, and ask its host."""


def answer() -> Answer:
    """Return the page, or why it cannot be read."""
    try:
        return OK, "text/html; charset=utf-8", FILE.read_bytes()
    except OSError as err:
        text = f"cannot read the status page ({err.strerror}); /healthz has the state\n"
        return FAILED, "text/plain; charset=utf-8", text.encode()
