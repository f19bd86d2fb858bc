"""Frozen values: what `frozen` makes is what `dataclass(frozen=True)` would make."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from gateway.model.frozen import frozen

EITHER = pytest.mark.parametrize("decorate", [frozen, dataclass(frozen=True)], ids=["ours", "std"])

Decorate = Callable[[type], Any]


@frozen
class Point:
    """Two numbers, for pickle."""

    x: int
    y: int = 0


@EITHER
def test_arguments_are_those_of_the_fields(decorate: Decorate) -> None:
    """By position or name, with defaults, as long as none is missing, unknown or given twice."""

    class Made:
        """Each kind of field."""

        a: int
        b: str = "b"
        c: list[int] = field(default_factory=list)
        d: int = field(kw_only=True)
        e: int = field(default=5, kw_only=True)

    made = decorate(Made)
    first, second = made(1, d=4), made(1, d=4)
    assert (first.a, first.b, first.c, first.d, first.e) == (1, "b", [], 4, 5)
    assert first.c is not second.c
    assert made(a=1, b="x", c=[1], d=4, e=6) == made(1, "x", [1], d=4, e=6)
    for args, kwargs in [((), {"d": 4}), ((1,), {}), ((1, "b", [], 4), {}), ((1,), {"f": 1})]:
        with pytest.raises(TypeError, match=r"__init__\(\)"):
            made(*args, **kwargs)
    with pytest.raises(TypeError, match="multiple values for argument 'a'"):
        made(1, a=1, d=4)


@EITHER
def test_a_wrong_first_use_changes_nothing(decorate: Decorate) -> None:
    """The class is compiled by then, and can be used."""

    class Made:
        """One field."""

        a: int

    made = decorate(Made)
    with pytest.raises(TypeError):
        made()
    assert made(1).a == 1


@EITHER
def test_fields_cannot_be_changed(decorate: Decorate) -> None:
    """Neither set nor deleted, nor can others be added."""

    class Made:
        """One field."""

        a: int

    one = decorate(Made)(1)
    for name in ("a", "b"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(one, name, 2)
        with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
            delattr(one, name)
    assert one.a == 1


@EITHER
def test_equal_are_values_of_one_class_with_equal_fields(decorate: Decorate) -> None:
    """Equal values have equal hashes. A field that is not compared does not count."""

    class Made:
        """One field is not compared."""

        a: object
        b: int = field(default=0, compare=False)

    class Same(Made):
        """A subclass that adds nothing."""

    made, same, bare = decorate(Made), decorate(Same), decorate(type("Bare", (), {"__doc__": "-"}))
    assert made(1) == made(1, 2)
    assert hash(made(1)) == hash(made(1, 2))
    assert made(1) != made(2)
    assert made(1) != same(1)
    assert made(1) != 1
    assert bare() == bare()
    assert hash(bare()) == hash(bare())
    with pytest.raises(TypeError, match="unhashable"):
        hash(made([]))


@EITHER
def test_what_is_not_to_be_shown_is_not(decorate: Decorate) -> None:
    """The representation has the other fields, with their names."""

    class Made:
        """One field is hidden."""

        a: str
        b: str = field(default="secret", repr=False)

    made = decorate(Made)
    assert repr(made("x")).endswith("Made(a='x')")


@EITHER
def test_subclasses_inherit_fields(decorate: Decorate) -> None:
    """In the order of the classes; a subclass may give a field another default."""

    @decorate
    class Base:
        """Two fields."""

        a: int
        b: int = 2

    @decorate
    class Derived(Base):  # type: ignore[misc]
        """A third field, and another default."""

        c: int = 3
        b: int = 4

    class Plain(Derived):  # type: ignore[misc]
        """Not decorated itself."""

    for made in (Derived, Plain):
        one = made(1)
        assert [each.name for each in fields(one)] == ["a", "b", "c"]
        assert (one.a, one.b, one.c) == (1, 4, 3)
        assert one == made(1, 4, 3)


@EITHER
def test_own_methods_stay(decorate: Decorate) -> None:
    """`__post_init__` is called, and what a class defines is not replaced."""

    class Made:  # noqa: PLW1641 - that is the case
        """All of its own, but without a hash."""

        a: int

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("negative")

        def __eq__(self, other: object) -> bool:
            return other == "equal"

        def __repr__(self) -> str:
            return "shown"

    class Hashed:
        """Its own hash."""

        a: int

        def __hash__(self) -> int:
            return 7

    class Bare:
        """Says that it has none."""

        a: int
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="unhashable"):
        hash(decorate(Bare)(1))
    made = decorate(Made)
    with pytest.raises(ValueError, match="negative"):
        made(-1)
    assert made(1) == "equal"
    assert repr(made(1)) == "shown"
    assert hash(made(1)) == hash(made(1))  # Python sets none in a class that defines __eq__
    assert hash(decorate(Hashed)(1)) == 7


def test_the_tools_for_dataclasses_work() -> None:
    """`replace`, `asdict`, `match`, copies and pickle."""
    point = Point(1, y=2)
    assert replace(point, x=3) == Point(3, 2)
    assert asdict(point) == {"x": 1, "y": 2}
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == point  # noqa: S301 - ours
    match point:
        case Point(x, 2):
            assert x == 1
        case _:
            pytest.fail("no match")


def test_what_it_does_not_know_is_refused() -> None:
    """At the definition: kinds of fields, methods, and bases that are frozen in another way."""

    class Unset:
        """A field without an argument."""

        a: int = field(init=False)

    class Hashed:
        """A field with a hash of its own."""

        a: int = field(hash=False)

    class Handed:
        """A parameter alone, without a field."""

        a: InitVar[int]

    class Named:
        """A name that `__init__` has for something else."""

        _set: int

    class Listed:
        """A default that all instances would share."""

        a: list[int] = []  # noqa: RUF012 - that is what is refused

    class Setting:
        """A method that `frozen` sets."""

        def __setattr__(self, name: str, value: object) -> None:
            """Do nothing."""

    for cls in (Unset, Hashed, Handed, Named, Setting):
        with pytest.raises(TypeError, match=cls.__name__):
            frozen(cls)
    with pytest.raises(ValueError, match="mutable default"):
        frozen(Listed)
    with pytest.raises(TypeError, match="inherit"):
        dataclass(frozen=True)(type("Derived", (Point,), {}))
