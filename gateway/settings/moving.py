"""Recognises the variables of another image as a whole, where nothing says how to connect.

One problem then says what to write in their place, and not which of our variables are missing.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.model.frozen import frozen
from gateway.settings.findings import joined
from gateway.settings.values import unquoted

_OURS: Final = (
    "WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRIVATE_KEY_SECRETFILE",
    "WIREGUARD_PUBLIC_KEY", "WIREGUARD_ENDPOINT_IP",
)  # fmt: skip
"""With one of them it is a set-up of ours, which may be wrong in another way."""

_FILE: Final = Path(__file__).with_name("other_set_ups.toml")


@frozen
class SetUp:
    """What one entry of `other_set_ups.toml` says about the variables that are set.

    `renamed` has those of them that get another name, and `added` what is to be set too.
    """

    image: str
    marks: tuple[str, ...]
    renamed: Mapping[str, str]
    added: Mapping[str, str]
    more: str

    @property
    def where(self) -> str:
        """The variables that it was recognised by."""
        return joined(self.marks)

    @property
    def message(self) -> str:
        """What is wrong and what to write."""
        several = "is a variable" if len(self.marks) == 1 else "are variables"
        renames = [f"{new} in place of {old}" for old, new in self.renamed.items()]
        written = joined([*renames, *(f"{name}={value}" for name, value in self.added.items())])
        parts = (f"Write {written}" if written else "", self.more)
        return f"{several} of {self.image}. " + ". ".join(filter(None, parts))


def recognized(environ: Mapping[str, str]) -> SetUp | None:
    """Return the set-up that the variables are of, None if they are of none that is known."""
    texts = {name: unquoted(text.strip()) for name, text in environ.items()}
    there = {name: text for name, text in texts.items() if text}
    if any(name in there for name in _OURS):
        return None
    known = tomllib.loads(_FILE.read_text("utf-8"))["set_up"]  # read only where it is needed
    return next((_set_up(one, there) for one in known if _fits(one, there)), None)


def _fits(one: Mapping[str, Any], there: Mapping[str, str]) -> bool:
    return (
        all(name in there for name in one["marks"])
        and not any(name in there for name in one.get("unless", ()))
        and all(there[name].casefold() == word for name, word in one.get("values", {}).items())
    )


def _set_up(one: Mapping[str, Any], there: Mapping[str, str]) -> SetUp:
    renamed = {
        old: new for old, new in one.get("rename", {}).items() if old in there and new not in there
    }
    added = {name: text for name, text in one.get("set", {}).items() if name not in there}
    return SetUp(one["image"], tuple(one["marks"]), renamed, added, one.get("message", ""))
