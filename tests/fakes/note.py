"""A note of a network namespace that is not there."""

from gateway.errors import NetworkError
from gateway.system.link_alias import LONGEST_ALIAS


class NoteInMemory:
    """As `gateway.system.note.Note`: at most LONGEST_ALIAS bytes, the title not counted."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._text: str | None = None

    def read(self) -> str | None:
        """Return its text, None if there is none."""
        return self._text

    def write(self, text: str) -> None:
        """Replace it by `text`; raises NetworkError if it is too long."""
        if len(text) > LONGEST_ALIAS:
            raise NetworkError("longer than an alias", "lo")
        self._text = text
