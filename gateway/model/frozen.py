"""`frozen`: a frozen dataclass that takes a tenth of the time to define.

`dataclasses.dataclass` writes five methods of each class as text and compiles them. The gateway
has loaded 190 such classes at rest, which took nearly half of the time of its imports and 1.5 MiB.
Here the classes share their methods, and `__init__` is compiled when a class is first used, which
many are not: most states, events and limits never occur.
"""

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, InitVar, dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Return `cls` as `dataclass(frozen=True)` would make it.

    `fields`, `replace`, `asdict`, `match` and pickle work. A method that the class defines itself
    stays. A class may inherit from others made here, but not from those of `dataclass`, nor they
    from it. That raises TypeError, and so does a kind of field that nothing here uses.
    """
    # Where a class defines __eq__, Python has set __hash__ to None.
    own = {
        name for name, value in vars(cls).items() if value is not None or "__eq__" not in vars(cls)
    }
    dataclass(init=False, repr=False, eq=False)(cls)
    _refuse_unknown(cls)
    shared = {"__init__": _init_of(cls), "__repr__": _repr, "__eq__": _eq, "__hash__": _hash}
    for name, method in shared.items():
        if name not in own:
            setattr(cls, name, method)
    for name, method in {"__setattr__": _setattr, "__delattr__": _delattr}.items():
        if name in own:
            raise TypeError(f"{cls.__qualname__}: frozen() sets {name} itself")
        setattr(cls, name, method)
    return cls


def _refuse_unknown(cls: Any) -> None:
    """Raise TypeError for a kind or name of field that `_compiled_init` does not know."""
    known = fields(cls)
    if any(not each.init or each.hash is not None for each in known):
        raise TypeError(
            f"{cls.__qualname__}: frozen() knows no field(init=...) and field(hash=...)"
        )
    if any(isinstance(each.type, InitVar) for each in vars(cls)["__dataclass_fields__"].values()):
        raise TypeError(f"{cls.__qualname__}: frozen() knows no InitVar")
    if any(each.name.startswith("_") for each in known):  # as its own names in __init__ do
        raise TypeError(f"{cls.__qualname__}: frozen() knows no field that begins with _")


def _getter_of(cls: Any) -> Callable[[object], Any]:
    """Return what returns the values, as a tuple, that instances of `cls` are compared by."""
    names = [each.name for each in fields(cls) if each.compare]
    if not names:
        return lambda _: ()
    return attrgetter(*names, names[-1])  # of one name alone it would return no tuple


_compared: Callable[[Any], Callable[[object], Any]] = cache(_getter_of)


def _setattr(_self: object, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _repr(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: object) -> Any:
    if self is other:  # as most that are compared at rest
        return True
    compared = _compared(type(self))
    return compared(self) == compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(type(self))(self))


def _init_of(cls: Any) -> Callable[..., None]:
    """Return an `__init__` that puts the compiled one in its place, and does its work."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - its name in errors
        cls.__init__ = compiled = _compiled_init(cls)
        compiled(self, *args, **kwargs)

    return __init__


def _compiled_init(cls: Any) -> Callable[..., None]:
    """Compile the `__init__` that `dataclass(frozen=True)` would give to `cls`."""
    names: dict[str, Any] = {"_set": object.__setattr__, "_missing": MISSING}
    positional, by_name, body = ["_self"], ["*"], ["pass"]
    for each in fields(cls):
        parameter, value = each.name, each.name
        if each.default is not MISSING:
            names[f"_of_{each.name}"] = each.default
            parameter = f"{each.name}=_of_{each.name}"
        elif each.default_factory is not MISSING:
            names[f"_of_{each.name}"] = each.default_factory
            parameter = f"{each.name}=_missing"
            value = f"_of_{each.name}() if {each.name} is _missing else {each.name}"
        (by_name if each.kw_only else positional).append(parameter)
        body.append(f"_set(_self, {each.name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("_self.__post_init__()")
    parameters = ", ".join(positional + (by_name if len(by_name) > 1 else []))
    exec(f"def __init__({parameters}):\n " + "\n ".join(body), names)  # noqa: S102 - names of fields
    compiled: Callable[..., None] = names["__init__"]
    compiled.__qualname__ = f"{cls.__qualname__}.__init__"
    return compiled
