"""The events that the gateway can log, read from its code."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gateway.errors import Weight
from gateway.log import LEVELS

GATEWAY = Path(__file__).resolve().parents[1] / "gateway"
LOGGER = re.compile(r"(?:_?log|logger|structlog\.get_logger\(\))$")
"""The expression before `.info(...)` and its like."""

Events = dict[str, tuple[set[str], set[str]]]
"""Levels and fields of each event."""


def called(tree: ast.AST) -> Iterator[tuple[str, str, set[str]]]:
    """Yield event, level and fields of each call of a logger in `tree`.

    An event has to be a literal, except for the one that `gateway.log` passes on.
    """
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        bound = {name for call in calls if is_logger(call, "bind") for name in fields_of(call)}
        for call in calls:
            if is_logger(call, *LEVELS, "critical"):
                assert isinstance(call.func, ast.Attribute)
                if isinstance(call.args[0], ast.Constant):
                    yield call.args[0].value, call.func.attr, fields_of(call) | bound
            elif is_logger(call, "log"):
                for weight in Weight:
                    yield ast.literal_eval(call.args[1]), weight.value, fields_of(call)


def is_logger(call: ast.Call, *methods: str) -> bool:
    """Return whether `call` is one of `methods` of a logger."""
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in methods
        and LOGGER.search(ast.unparse(call.func.value)) is not None
    )


def fields_of(call: ast.Call) -> set[str]:
    """Return the names of the keyword arguments of `call`."""
    return {keyword.arg for keyword in call.keywords if keyword.arg}


def passed_on(tree: ast.AST) -> Iterator[tuple[str, str, set[str]]]:
    """Yield the events of `gateway.system.applied`, and the one for lines that were dropped."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_pass_on":
            has_input = ast.unparse(node.args[2]) != "''"
            fields = {"command", "input"} if has_input else {"command"}
            yield ast.literal_eval(node.args[0]), "debug", fields
        elif isinstance(node, ast.Dict) and "'event'" in map(ast.unparse, filter(None, node.keys)):
            literal = {
                ast.unparse(key): value
                for key, value in zip(node.keys, node.values, strict=True)
                if key
            }
            names = {ast.literal_eval(key) for key in literal} - {"event"}
            yield ast.literal_eval(literal["'event'"]), "warning", names


@cache
def events() -> Events:
    """Return the events that the gateway can log."""
    found: Events = defaultdict(lambda: (set(), set()))
    for path in GATEWAY.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        handed_on = passed_on(tree) if path.name in {"applied.py", "log.py"} else ()
        for event, level, fields in (*called(tree), *handed_on):
            found[event][0].add(level)
            found[event][1].update(fields)
    return dict(found)
