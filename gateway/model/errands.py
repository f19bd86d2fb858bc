"""A request to a host on the internet, as a frozen value (`gateway.model`)."""

import re
from typing import Final

from gateway.model.frozen import frozen

LONGEST_SHOWN: Final = 15
"""Characters of a value in a query that is shown; a token is longer."""
_FIELD: Final = re.compile(r"(?P<name>[^?&=]*)=(?P<value>[^&]+)")
_SECRET: Final = re.compile(r"KEY|PASS|USER|SECRET|TOKEN|AUTH|LOGIN|SIG|CREDENTIAL", re.IGNORECASE)


@frozen
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

    @property
    def shown(self) -> str:
        """The same for everyone to read: without what may be a token in the query."""
        place, mark, query = self.url.partition("?")
        return place + mark + _FIELD.sub(_hidden, query)


def _hidden(field: re.Match[str]) -> str:
    """Return a field of a query, without its value if that may be secret."""
    is_secret = len(field["value"]) > LONGEST_SHOWN or _SECRET.search(field["name"])
    return f"{field['name']}=(hidden)" if is_secret else field[0]
