"""A value that knows where it came from, from its source until the configuration is complete."""

from collections.abc import Callable
from dataclasses import field
from enum import Enum, auto
from typing import Any, Final, Generic, TypeVar

from pydantic import PlainValidator

from gateway.model import Secret
from gateway.model.frozen import frozen

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Kind(Enum):
    """The kinds of sources."""

    DEFAULT = auto()
    VARIABLE = auto()
    SECRET_FILE = auto()
    """A file that holds one variable."""
    WG_QUICK = auto()


@frozen
class Origin:
    """Where a value came from.

    `text` describes the source, as `gateway check` shows it. `where` is the name that a message
    begins with: the variable or the file that the user has to change.
    """

    text: str
    where: str
    kind: Kind


@frozen
class Sourced(Generic[T_co]):
    """A value and its origin. It may be part of a secret, so it is not in the representation."""

    value: T_co = field(repr=False)
    origin: Origin


_DEFAULT: Final = "default"


def default(value: T, variable: str) -> Sourced[T]:
    """Return a default value; `variable` would set it."""
    return Sourced(value, Origin(_DEFAULT, variable, Kind.DEFAULT))


def origin_text(sourced: Sourced[object] | None) -> str:
    """Return the text of an origin; None means the default."""
    return sourced.origin.text if sourced else _DEFAULT


@frozen
class Refused:
    """A text that could not be read, and why.

    Validators return this instead of raising ValueError. A ValidationError would hold every problem
    too, but none of the fields that are right, and the rest of the configuration is checked with
    those in the same pass.
    """

    origin: Origin
    message: str


def read_with(parse: Callable[[str], T | None]) -> Any:
    """Return the pydantic validator that reads a text with its origin by `parse`.

    The field becomes a `Sourced` value, `Refused`, or None where the text means "not set".
    """

    def validate(text: Sourced[Secret]) -> Sourced[T] | Refused | None:
        try:
            value = parse(text.value.reveal())
        except ValueError as err:
            return Refused(text.origin, str(err))
        return None if value is None or value == () else Sourced(value, text.origin)

    return PlainValidator(validate)
