"""A request to a host on the internet, as a frozen value (`gateway.model`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Errand:
    """What is requested of a VPN provider: `https://host:port` and `target` (RFC 9112).

    `provider` is empty where the host is another one.
    """

    provider: str
    host: str
    target: str
    port: int = 443

    @property
    def url(self) -> str:
        """Where it leads as one text."""
        port = "" if self.port == Errand.port else f":{self.port}"
        return f"https://{self.host}{port}{self.target}"
