"""The set-ups that people come from start on an engine with nothing changed but the image's name.

The site plays the provider: its list over TLS, its WireGuard on its port, its preshared key.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.set_up import Kind, SetUp, remove
from tests.docker.site import EXIT, HOST, UPLINK, Site

pytestmark = pytest.mark.docker

SEEDS = Path(__file__).parent / "seeds"

PRIVATE = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
PRESHARED = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
PINGED = "1.1.1.1"
"""What a seed's own health check pings."""


def all_of(site: Site) -> dict[str, Kind]:
    """Return the seeds by name. All servers of AirVPN have one key, which is the site's here."""
    own_key = {"WIREGUARD_PUBLIC_KEY": site.server_keys.public}
    account = {"WG_PRIVATE_KEY": PRIVATE, "WG_PRESHARED_KEY": PRESHARED, "VPN_SERVERS": "Alchiba"}
    return {
        "mullvad-countries": Kind(
            "gluetun", "client", PRIVATE, "10.64.7.21", provider="mullvad",
        ),
        "airvpn-names": Kind(
            "gluetun", "client", PRIVATE, "10.191.4.14", 1637, PRESHARED,
            "airvpn", variables=account, environment=own_key,
        ),
        "linuxserver-script": Kind("wireguard", "tracker", PRIVATE, "10.64.114.7"),
    }  # fmt: skip


@pytest.fixture(params=["mullvad-countries", "airvpn-names", "linuxserver-script"])
def set_up(
    request: pytest.FixtureRequest, site: Site, providers: None, tmp_path: Path
) -> Iterator[SetUp]:
    """Yield each set-up, before it is started."""
    del providers
    name = request.param
    made = SetUp(site, all_of(site)[name], SEEDS / name, tmp_path)
    site.server.exec("ip", "addr", "replace", f"{PINGED}/32", "dev", "lo")
    with made.admitted():
        yield made
        remove(site, made.boxes)


def test_a_set_up_starts_with_another_image(set_up: SetUp) -> None:
    """The workload waits for a healthy gateway, and leaves by the server.

    The uplink carries the encrypted flow, the connection for the list, and nothing else of it.
    """
    capture = set_up.site.capture_network(UPLINK)
    set_up.up()
    assert set_up.gateway.health == "healthy"
    assert set_up.workload.state == "running"
    seen = set_up.workload.probe("tcp", host=HOST.ipv4)
    assert seen.seen == EXIT.ipv4, set_up.gateway.logs()
    assert set_up.leaks(capture.frames()) == []
