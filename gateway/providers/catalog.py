"""All providers by name."""

from difflib import get_close_matches

from gateway.providers.airvpn import AIRVPN
from gateway.providers.ivpn import IVPN
from gateway.providers.mullvad import MULLVAD
from gateway.providers.nordvpn import NORDVPN
from gateway.providers.private_internet_access import PRIVATE_INTERNET_ACCESS
from gateway.providers.protonvpn import PROTONVPN
from gateway.providers.server import Provider
from gateway.providers.surfshark import SURFSHARK
from gateway.providers.windscribe import WINDSCRIBE

CUSTOM = "custom"
"""What users write who name a server by themselves."""
PROVIDERS = (
    *(AIRVPN, IVPN, MULLVAD, NORDVPN, PRIVATE_INTERNET_ACCESS, PROTONVPN, SURFSHARK),
    WINDSCRIBE,
)
OTHERS = frozenset(
    (
        *("cyberghost", "expressvpn", "fastestvpn", "giganews", "hidemyass", "ipvanish"),
        *("perfectprivacy", "privado", "privadovpn", "privatevpn", "purevpn", "slickvpn"),
        *("torguard", "vpnsecure", "vpnunlimited", "vyprvpn", "wevpn"),
    )
)
"""Names of providers whose lists are not read, without blanks, as gluetun's users write them."""
_BY_NAME = {name: each for each in PROVIDERS for name in (each.name, *each.other_names)}


def find(name: str) -> Provider | None:
    """Return the provider that `name` means, whatever its case, None if there is none."""
    return _BY_NAME.get(" ".join(name.lower().split()))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def nearest(name: str) -> str | None:
    """Return the known name that is most like `name`, None if none is.

    Another provider has none: its name is not a mistake.
    """
    if _plain(name) in OTHERS:
        return None
    found = get_close_matches(name.lower(), [*_BY_NAME, CUSTOM], 1)
    return found[0] if found else None
