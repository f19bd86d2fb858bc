"""The mutants of a Python file: small wrong programs that its tests should notice.

Each mutant changes one place. Not changed: docstrings, annotations, and what people read (the
arguments of `raise` and of the log), because a test for each of their words would only repeat them.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
ANNOTATIONS = {"annotation", "returns", "type_comment", "decorator_list", "bases", "type_params"}
WIDTH = 120
"""Characters of a mutant's code that are shown as they are."""
AROUND = 30
"""Characters that are shown around the difference of longer ones."""
LOGGERS = {"log", "_log", "logger"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    `code` is the text of its first line without indentation, and `function` the name of the
    function that it is in, such as `Class.method`; empty where it runs at the import.
    """

    file: str
    number: int
    line: int
    last_line: int
    code: str
    function: str
    change: str


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Return what may stand in the place of an expression or statement."""
    yield from changed_operators(node)
    yield from changed_values(node)
    yield from changed_statements(node)


def changed_operators(node: ast.AST) -> Iterator[ast.AST]:
    """Return the expression with another operator."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other = COMPARISONS[type(node.ops[0])]()
        yield ast.Compare(node.left, [other, *node.ops[1:]], node.comparators)
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)


def changed_values(node: ast.AST) -> Iterator[ast.AST]:
    """Return another constant, a display without an element, a call without a keyword."""
    if isinstance(node, ast.Constant):
        yield from constants(node.value)
    if isinstance(node, ast.List | ast.Tuple | ast.Set) and len(node.elts) > 1:
        for number in range(len(node.elts)):
            shorter = copy.deepcopy(node)
            del shorter.elts[number]
            yield shorter
    if isinstance(node, ast.Call):
        for number, keyword in enumerate(node.keywords):
            if keyword.arg not in {None, "why"}:
                fewer = copy.deepcopy(node)
                del fewer.keywords[number]
                yield fewer


def constants(value: object) -> Iterator[ast.AST]:
    """Return other constants in the place of one."""
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str):
        yield ast.Constant(f"{value}-mutant" if value else "mutant")


def changed_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Return other statements in the place of one."""
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare | ast.BoolOp):
        made = copy.deepcopy(node)
        made.test = ast.UnaryOp(ast.Not(), node.test)
        yield made
    if isinstance(node, ast.Return) and not is_false(node.value):
        yield ast.Return(ast.Constant(None))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield ast.Pass()
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield ast.Pass()
    if isinstance(node, ast.AugAssign):
        yield ast.Pass()
    if isinstance(node, ast.Break):
        yield ast.Continue()
    if isinstance(node, ast.Continue):
        yield ast.Break()


def is_false(node: ast.expr | None) -> bool:
    """Return whether a result is None, or a constant that conditions treat the same."""
    return node is None or (isinstance(node, ast.Constant) and not node.value)


def is_for_people(node: ast.AST) -> bool:
    """Return whether a node only makes a message."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    written_to = getattr(node.value.func, "value", None)
    if isinstance(written_to, ast.Call):  # structlog.get_logger()
        return getattr(written_to.func, "attr", "") == "get_logger"
    return getattr(written_to, "attr", getattr(written_to, "id", "")) in LOGGERS


Place = tuple[ast.AST, str, int | None]
"""A parent, the field of it, and the number in that field where it is a list."""


def places(
    node: ast.AST, scope: str = "", function: str = ""
) -> Iterator[tuple[Place, ast.AST, str]]:
    """Return each node that may change, its place, and the function that it is in.

    `scope` is the name of what `node` is in: a function or a class.
    """
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        scope = f"{scope}.{node.name}" if scope else node.name
    for field, value in ast.iter_fields(node):
        if field in ANNOTATIONS or is_name_list(node, field):
            continue
        body = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside = (scope or "lambda") if body and field == "body" else function
        for number, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not is_for_people(child):
                yield (node, field, number), child, inside
                yield from places(child, scope, inside)


def is_name_list(node: ast.AST, field: str) -> bool:
    """Return whether a field holds names of types or targets: no behaviour of its own."""
    if isinstance(node, ast.Subscript) and field == "slice":
        return isinstance(node.value, ast.Name) and node.value.id in {
            *("Callable", "Mapping", "Sequence", "dict", "list", "tuple", "frozenset", "set"),
            *("Iterator", "Iterable", "Literal", "type", "Final", "Protocol"),
        }
    if isinstance(node, ast.Assign) and field == "value":
        return isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    return isinstance(node, ast.Assign | ast.For) and field in {"targets", "target"}


def variants(tree: ast.Module) -> Iterator[tuple[Place, ast.AST, ast.AST, str]]:
    """Return each change: its place, the node, the other node, and the function that it is in."""
    for place, child, function in list(places(tree)):
        for changed in changes(child):
            yield place, child, ast.copy_location(changed, child), function


def mutants_of(file: str, text: str) -> Iterator[Mutant]:
    """Return every mutant of the module `text`, in the order of its lines."""
    lines = text.splitlines()
    for number, (place, child, changed, function) in enumerate(variants(ast.parse(text))):
        line = getattr(child, "lineno", getattr(place[0], "lineno", 1))
        last = getattr(child, "end_lineno", line) if isinstance(child, ast.expr) else line
        change = " -> ".join(shortened(one_line(child), one_line(changed)))
        code = lines[line - 1].strip()
        yield Mutant(file, number, line, last or line, code, function, change)


def source_of(text: str, number: int) -> str:
    """Return the text of a module with the change of the mutant `number`."""
    tree = ast.parse(text)
    parent, field, index = next(islice(variants(tree), number, None))[0]
    changed = next(islice(variants(ast.parse(text)), number, None))[2]
    if index is None:
        setattr(parent, field, changed)
    else:
        getattr(parent, field)[index] = changed
    return ast.unparse(ast.fix_missing_locations(tree))


def one_line(node: ast.AST) -> str:
    """Return a node as one line of code."""
    return " ".join(ast.unparse(node).split())


def common_start(one: str, other: str) -> int:
    """Return with how many equal characters two texts begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def shortened(before: str, after: str) -> tuple[str, str]:
    """Return two texts, or the part in which they differ where one is longer than WIDTH."""
    if max(len(before), len(after)) <= WIDTH:
        return before, after
    start = common_start(before, after)
    end = common_start(before[start:][::-1], after[start:][::-1])
    first = max(0, start - AROUND)
    shown = [text[first : len(text) - max(0, end - AROUND)] for text in (before, after)]
    head, tail = "…" if first else "", "…" if end > AROUND else ""
    return f"{head}{shown[0]}{tail}", f"{head}{shown[1]}{tail}"
