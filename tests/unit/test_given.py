"""The resolvers that the container was given, from its first start on."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.errors import NetworkError
from gateway.model import Secret
from gateway.system.given import Given
from gateway.system.kept import KeptFile
from gateway.system.resolv import ResolverFile
from tests.fakes.note import NoteInMemory

pytestmark = pytest.mark.promise("P10")

KEY, OTHER = Secret("one"), Secret("other")
OURS, CHOSEN = ip_address("192.0.2.1"), ip_address("198.51.100.66")
INSIDE = (ip_address("10.64.0.1"),)


class Box:
    """A container's resolver file and its layer, for one start of the gateway after the other."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "resolv.conf"
        self.layer = directory / "layer"
        self.note = NoteInMemory()
        self.file.write_text(f"nameserver {OURS}\n", "ascii")

    def given(self) -> Given:
        """Return what a gateway makes that starts now."""
        # A container's own layer is on a disk, and /tmp may be in memory.
        kept = KeptFile(self.layer, mounts=Path("/dev/null"))
        return Given(ResolverFile(self.file), kept, self.note)

    def attack(self) -> None:
        """Write to the file as a workload can."""
        self.file.write_text(f"nameserver {CHOSEN}\n", "ascii")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a container that has not been started."""
    return Box(tmp_path)


def test_the_first_start_counts_whatever_the_file_names_later(box: Box) -> None:
    """Also with a new key. Control: in a new container the file counts."""
    first = box.given()
    first.keep_first()
    first.take(KEY, first=True)
    first.write(INSIDE)
    assert (first.found, first.problem) == ((OURS,), "")
    for key in (KEY, OTHER):
        box.attack()
        again = box.given()
        again.keep_first()
        again.take(key, first=True)
        assert again.found == (OURS,)
    (box.layer / "resolvers").unlink()
    control = box.given()
    control.take(KEY, first=True)
    assert control.found == (CHOSEN,)


def test_a_start_that_ended_over_its_configuration_counts_as_the_first(box: Box) -> None:
    """The engine starts it again and again, and a workload may have joined meanwhile."""
    box.given().keep_first()
    box.attack()
    again = box.given()
    again.keep_first()
    again.take(KEY, first=True)
    assert again.found == (OURS,)


def test_what_can_be_kept_only_later_is_not_believed_then(box: Box) -> None:
    """As where the disk was full: it is not known who has written to the file meanwhile."""
    in_the_way = box.layer / "resolvers.new"
    in_the_way.mkdir(parents=True)
    first = box.given()
    first.keep_first()
    first.take(KEY, first=True)
    assert first.found == ()
    assert first.problem
    in_the_way.rmdir()
    first.write(INSIDE)
    box.attack()
    again = box.given()
    again.take(KEY, first=True)
    assert again.found == ()


def test_a_copy_that_others_can_write_is_not_believed_and_not_replaced(box: Box) -> None:
    """Something is mounted there; the seal in the file still counts."""
    box.layer.mkdir()
    copy = box.layer / "resolvers"
    copy.write_text(f"{CHOSEN}\n", "ascii")
    copy.chmod(0o666)
    given = box.given()
    given.take(KEY, first=True)
    given.write(INSIDE)
    assert given.found == ()
    assert "only we can write" in given.problem
    assert copy.read_text("ascii") == f"{CHOSEN}\n"


def test_a_file_that_cannot_be_read_does_not_matter_where_there_is_a_copy(box: Box) -> None:
    """A workload may have a lease on it. Without a copy it is reported."""
    box.given().keep_first()
    box.file.unlink()
    box.file.mkdir()
    given = box.given()
    given.take(KEY, first=True)
    assert given.found == (OURS,)
    (box.layer / "resolvers").unlink()
    with pytest.raises(NetworkError):
        box.given().take(KEY, first=True)


def test_what_hold_notes_counts_in_every_container_of_the_namespace(
    box: Box, tmp_path: Path
) -> None:
    """Even if the file has changed, and with either key. Control: without the note it does not."""
    anchor = box.given()
    anchor.keep_first()
    anchor.pass_on()
    for number, key in enumerate((KEY, OTHER)):
        box.attack()
        box.layer = tmp_path / f"layer{number}"
        gateway = box.given()
        gateway.take(key, first=False)
        gateway.write(INSIDE)
        assert (gateway.found, gateway.problem) == ((OURS,), "")
    box.note = NoteInMemory()
    box.attack()
    control = box.given()
    control.take(KEY, first=False)
    assert control.found == ()


def test_hold_in_a_container_without_a_layer_notes_dockers_resolver_alone(box: Box) -> None:
    """A file that workloads may have written to is believed no further."""
    box.layer = Path("/proc/none")
    for named, noted in ((CHOSEN, None), ("127.0.0.11", "127.0.0.11")):
        box.file.write_text(f"nameserver {named}\n", "ascii")
        box.given().pass_on()
        assert box.note.read() == noted
