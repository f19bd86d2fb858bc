"""A torrent client gets the forwarded port, listens there, and cannot do anything to the gateway.

With real clients; most tests need neither a gateway nor a tunnel, only a link with its name.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.services.port_client.messages import LOOK_TIME
from tests.lab.namespace import Namespace, connect
from tests.lab.process import Household, eventually
from tests.lab.server import CLIENT
from tests.lab.torrent import CLIENTS, Client, Looks, QBittorrent

pytestmark = pytest.mark.lab

PORT, OTHER = 51500, 51501
WRONG = "not-that-one"
KINDS = pytest.mark.parametrize("kind", sorted(CLIENTS))


class Place:
    """A namespace with a link wg0 that has the tunnel's addresses, and a peer behind it."""

    def __init__(self) -> None:
        self.household = Household("client")
        self.here, self.peer = (Namespace(f"client{it}") for it in ("-a", "-b"))
        self.here.create()
        self.peer.create()
        connect(self.here, "wg0", self.peer, "there")
        self.here.ip(
            f"addr add {CLIENT.ipv4}/24 dev wg0",
            f"addr add {CLIENT.ipv6}/64 dev wg0 nodad",
            "link set wg0 up",
        )
        self.peer.ip("addr add 10.64.0.77/24 dev there", "link set there up")
        self.looks = Looks(self.here, self.household, [CLIENT.ipv4])

    def close(self) -> None:
        """Remove it."""
        self.household.close()
        self.here.delete()
        self.peer.delete()

    def reached(self, port: int) -> bool:
        """Return whether a peer can connect to `port` of the tunnel."""
        with closing(self.peer.socket(socket.AF_INET, socket.SOCK_STREAM)) as channel:
            channel.settimeout(2)
            return channel.connect_ex((CLIENT.ipv4, port)) == 0

    def take(self, port: int) -> socket.socket:
        """Have another program listen at `port`."""
        taken = self.here.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.bind(("0.0.0.0", port))
        taken.listen()
        return taken


@pytest.fixture
def place() -> Iterator[Place]:
    """Yield a place without a client."""
    with closing(Place()) as place:
        yield place


@KINDS
def test_a_client_listens_at_the_port_whatever_happens_to_it(place: Place, kind: str) -> None:
    """It is given the port, keeps it, gets it back from its user, and after a new start."""
    client: Client = CLIENTS[kind](place.here, place.household)
    looks = place.looks
    assert looks.look(client, PORT)["outcome"] == "absent"
    client.start()
    assert not place.reached(PORT), "control"
    first = eventually(
        lambda: it if (it := looks.look(client, PORT))["outcome"] != "no_daemon" else None,
        timeout=10,
        what="the daemon of Deluge",
        interval=0.2,
    )
    assert (first["outcome"], first["changed"]) == ("listening", True), first
    assert place.reached(PORT)
    again = looks.look(client, PORT)
    assert (again["outcome"], again["changed"]) == ("listening", False)
    assert again["seconds"] < 1

    assert looks.look(client, OTHER)["outcome"] == "listening"
    assert place.reached(OTHER)
    assert not place.reached(PORT)

    client.kill()
    assert looks.look(client, OTHER)["outcome"] == "absent"
    client.write_settings(6881)
    client.start()
    assert not place.reached(OTHER), "control"
    assert looks.look(client, OTHER)["changed"]
    assert place.reached(OTHER)
    assert looks.look(client, OTHER)["starts"] == 1


@KINDS
def test_a_taken_port_is_noticed_and_had_once_it_is_free(place: Place, kind: str) -> None:
    """Though the client says that all is well: all of them do."""
    login = kind == "deluge"  # the others can do without
    given = {} if login else {"user": "", "password": ""}
    client = CLIENTS[kind](place.here, place.household, login=login).start()
    looks, taken = place.looks, place.take(PORT)
    assert looks.look(client, PORT, **given)["outcome"] == "taken"
    assert looks.look(client, PORT, **given)["outcome"] == "taken"
    taken.close()
    assert looks.look(client, PORT, **given)["outcome"] == "listening"
    assert place.reached(PORT)


@KINDS
def test_a_wrong_password_is_tried_once(place: Place, kind: str) -> None:
    """And again when the client was started again, or when it is time."""
    client, looks = CLIENTS[kind](place.here, place.household).start(), place.looks
    refused = looks.look(client, PORT, password=WRONG)
    assert refused["outcome"] == "refused", refused
    waits = {"password": WRONG, "unless": refused["seen"]}
    assert "outcome" not in looks.look(client, PORT, **waits)
    client.kill()
    assert looks.look(client, PORT, **waits)["outcome"] == "absent"
    client.start()
    assert looks.look(client, PORT, **(waits | {"unless": refused["seen"]}))["outcome"] == "refused"
    assert looks.look(client, PORT)["outcome"] == "listening"


HOSTILE = str(Path(__file__).parents[1] / "lab/hostile_client.py")
WHAT_CAME = {
    "endless": ("odd", "larger than"),
    "heads": ("odd", "not HTTP"),
    "redirect": ("odd", "redirection"),
    "deep": ("odd", "not JSON"),
    "number": ("odd", "not JSON"),
    "types": ("odd", "listen_port"),
    "garbage": ("odd", "not HTTP"),
    "control": ("odd", "HTTP 500"),
    "forbidden": ("banned", ""),
    "agrees": ("silent", ""),
    "slow": ("absent", "no answer"),
}
MOST_KIB = 64 << 10


def test_what_answers_there_cannot_do_any_harm(place: Place) -> None:
    """Each look ends in time, whatever the answer, and the process stays small and the same.

    The control is a real client behind the last of them.
    """
    argv = place.here.command([sys.executable, "-I", "-S", HOSTILE, "8080"])
    hostile = place.household.start(argv, "hostile")
    hostile.wait_for("ready")
    client, looks = QBittorrent(place.here, place.household), place.looks
    found = {}
    for manner in WHAT_CAME:
        hostile.send(manner)
        hostile.wait_for(f"as {manner}")
        looked = looks.look(client, PORT)
        assert looked["seconds"] < LOOK_TIME + 1, manner
        found[manner] = (looked["outcome"], looked["detail"])
    for manner, (outcome, detail) in WHAT_CAME.items():
        assert found[manner][0] == outcome, (manner, found)
        assert detail in found[manner][1], (manner, found)
    status = Path(f"/proc/{looks.pid()}/status").read_text("ascii")
    most = int(status.partition("VmHWM:")[2].split()[0])
    assert most < MOST_KIB
    hostile.close()
    client.start()
    last = looks.look(client, PORT)
    assert (last["outcome"], last["starts"]) == ("listening", 1)


def test_the_process_reaches_nothing_by_itself(place: Place) -> None:
    """It has no rights, and no way to open a socket: the kernel refuses the calls.

    The control is the look that it takes by a socket which it was given.
    """
    client, looks = QBittorrent(place.here, place.household).start(), place.looks
    assert looks.look(client, PORT)["outcome"] == "listening"
    status = Path(f"/proc/{looks.pid()}/status").read_text("ascii")
    for line in ("Uid:\t65534\t65534", "CapEff:\t0000000000000000", "Seccomp:\t2"):
        assert line in status
    descriptors = [it.readlink() for it in Path(f"/proc/{looks.pid()}/fd").iterdir()]
    assert len([it for it in descriptors if "socket" in str(it)]) <= 2
