"""The configuration of tinyproxy, the program of the HTTP proxy (tinyproxy.conf(5))."""

from collections.abc import Iterator

from gateway.model.proxies import HttpProxy

MOST_CLIENTS = 256
"""Each has a thread; others are hung up on."""
IDLE_SECONDS = 300
"""For how long nothing may move in either direction, and how long a client may pause between two
lines of a request."""


def configuration(proxy: HttpProxy) -> str:
    """Return the text of the configuration for `proxy`; it has the password.

    It needs no user or group: it runs as its own from the start. It writes no file.
    """
    return "".join(f"{line}\n" for line in _lines(proxy))


def _lines(proxy: HttpProxy) -> Iterator[str]:
    yield f"Port {proxy.listening.port}"
    if proxy.listening.host:
        yield f"Listen {proxy.listening.host}"
    yield f"MaxClients {MOST_CLIENTS}"
    yield f"Timeout {IDLE_SECONDS}"
    yield f"LogLevel {'Connect' if proxy.log else 'Notice'}"
    yield f"DisableViaHeader {'Yes' if proxy.stealth else 'No'}"
    yield 'ViaProxyName "proxy"'
    if proxy.account:
        yield f"BasicAuth {proxy.account.user} {proxy.account.password.reveal()}"
    for subnet in proxy.subnets or ():
        # Without any, everyone may use it.
        yield f"Allow {subnet}"
