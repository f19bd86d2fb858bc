"""Reads a compose file as YAML: scalars stay as written, and aliases cannot grow without limit."""

from itertools import islice
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.settings.findings import Findings
from gateway.settings.values import safe_name

LARGEST: Final = 1024 * 1024
"""The largest file, in bytes: a hundred times the size of a large compose file."""

_MOST_DOCUMENTS: Final = 200
"""Documents of a file after which the rest is not looked at."""

_MOST_NODES: Final = 1_000_000
"""Most values of one document, each alias counted as all that it is for."""

_MOST_PAIRS: Final = 10_000
"""Most keys of one mapping including merged ones: aliases of aliases multiply."""


class Reset:
    """The value of a key with `!reset`: removes the key from the files below."""


RESET: Final = Reset()


class OverridingList(list[Any]):
    """A list with `!override`: replaces the list of the files below."""


class OverridingMapping(dict[Any, Any]):
    """A mapping with `!override`: replaces the mapping of the files below."""


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that Compose or this reader refuses; `problem` can be shown."""


class _AsWritten(yaml.SafeLoader):
    """Resolves merge keys and null only: `off` stays `off`, `0x10` stays `0x10`."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - how the library declares it
        first: [entry for entry in known if entry[0].endswith((":merge", ":null"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.seen: dict[int, yaml.Node] = {}  # the nodes, so that no other one gets their number

    def compose_document(self) -> yaml.Node | None:
        """Return the next document; refuse one that is in itself, or far too large."""
        document = super().compose_document()
        if document is not None:
            _count(document, {})
        return document

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve the merge keys of a mapping once, and refuse duplicate keys."""
        if id(node) in self.seen:
            return
        self.seen[id(node)] = node
        own: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in own:
                    fault = f"has the key {safe_name(key.value)} twice; remove one of them"
                    raise _Refused(problem=fault, problem_mark=key.start_mark)
                own.add(key.value)
        super().flatten_mapping(node)
        if len(node.value) > _MOST_PAIRS:
            fault = "merges too many keys; simplify it"
            raise _Refused(problem=fault, problem_mark=node.start_mark)

    def text(self, node: yaml.Node) -> Any:
        """Return a scalar as it is written, also where a tag calls it a number."""
        return self.construct_scalar(node)  # type: ignore[arg-type]  # it refuses others itself

    def overriding(self, node: yaml.Node) -> Any:
        """Return the value of a node with `!override`."""
        match node:
            case yaml.MappingNode():
                return OverridingMapping(self.construct_mapping(node, deep=True))
            case yaml.SequenceNode():
                return OverridingList(self.construct_sequence(node, deep=True))
            case _:
                return node.value


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node means; `known` has the counts, 0 for what is not done."""
    if id(node) in known:
        count = known[id(node)]
    else:
        known[id(node)] = 0
        count = known[id(node)] = 1 + sum(_count(child, known) for child in children(node))
    if not 0 < count <= _MOST_NODES:
        fault = "contains itself, or far more than a file needs; simplify it"
        raise _Refused(problem=fault, problem_mark=node.start_mark)
    return count


def children(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes directly below a node, of a mapping its keys and values."""
    match node:
        case yaml.MappingNode():
            return [child for pair in node.value for child in pair]
        case yaml.SequenceNode():
            return list(node.value)
        case _:
            return []


for _kind in ("bool", "float", "int", "timestamp"):
    _AsWritten.add_constructor(f"tag:yaml.org,2002:{_kind}", _AsWritten.text)
_AsWritten.add_constructor("!override", _AsWritten.overriding)
_AsWritten.add_constructor("!reset", lambda _loader, _node: RESET)


def read_text(path: Path) -> str:
    """Return the text of a file. Raises OSError, or ValueError with what is wrong with it."""
    with path.open("rb") as stream:
        return text_of(stream.read(LARGEST + 1))


def text_of(raw: bytes) -> str:
    """Return the text of a file's first `LARGEST` + 1 bytes; raises ValueError with the reason."""
    if len(raw) > LARGEST:
        raise ValueError(f"has more than {LARGEST // 1024} KiB; name another file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text; save it as plain text") from None


def parse(text: str, where: str, findings: Findings) -> dict[str, Any]:
    """Return a compose file's content with every scalar as the text that was written.

    Raises ConfigError if it is not a compose file.
    """
    contents = parse_all(text, where, findings)
    if len(contents) == 1 and isinstance(contents[0], dict):
        return contents[0]
    findings.problem(where, "is not a compose file: it has no services")
    raise findings.to_error()


def parse_all(text: str, where: str, findings: Findings) -> list[Any]:
    """Return the documents of a YAML file as `parse` does. Raises ConfigError if it is not YAML."""
    try:
        # A SafeLoader makes texts, lists and mappings, nothing else.
        return list(islice(yaml.load_all(text, Loader=_AsWritten), _MOST_DOCUMENTS))
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 0
        fault = err.problem if isinstance(err, _Refused) else None
        findings.problem(
            f"{where} line {line}", fault or "is not valid YAML; `docker compose config` says more"
        )
    except (yaml.YAMLError, ValueError, RecursionError):
        findings.problem(where, "is not valid YAML; `docker compose config` says more")
    raise findings.to_error()
