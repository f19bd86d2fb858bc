"""Reading a compose file as YAML: scalars as they are written, and nothing that grows by itself."""

from pathlib import Path
from typing import Any, Final

import yaml

from gateway.settings.findings import Findings
from gateway.settings.values import named

_MOST_PAIRS: Final = 10_000
"""Keys of one mapping with all that it merges: aliases of aliases multiply."""


class _Refused(yaml.MarkedYAMLError):
    """What YAML allows and Compose, or we, do not; `problem` is fit to be shown."""


class _AsWritten(yaml.SafeLoader):
    """Knows merge keys and null only: `off` stays `off`, `0x10` stays `0x10`.

    `!override` and `!reset` say how Compose merges several files; in one, a value stands as it is,
    or not at all.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - how the library declares it
        first: [entry for entry in known if entry[0].endswith((":merge", ":null"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.seen: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve the merge keys of a mapping, once, and refuse keys that stand twice."""
        if id(node) in self.seen:
            return
        self.seen.add(id(node))
        own: dict[str, str] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in own:
                    told = f"has the key {named(key.value)} twice; remove one of them"
                    raise _Refused(problem=told, problem_mark=key.start_mark)
                own[key.value] = value.tag
        super().flatten_mapping(node)
        reset = {name for name, tag in own.items() if tag == "!reset"}
        node.value = [pair for pair in node.value if not _is_one_of(pair[0], reset)]
        if len(node.value) > _MOST_PAIRS:
            told = "merges more than a compose file holds; write it plainly"
            raise _Refused(problem=told, problem_mark=node.start_mark)

    def overriding(self, node: yaml.Node) -> Any:
        """Return the value of a node without its tag."""
        match node:
            case yaml.MappingNode():
                return self.construct_mapping(node, deep=True)
            case yaml.SequenceNode():
                return self.construct_sequence(node, deep=True)
            case _:
                return node.value


def _is_one_of(key: yaml.Node, names: set[str]) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value in names


_AsWritten.add_constructor("!override", _AsWritten.overriding)
_AsWritten.add_constructor("!reset", lambda _loader, _node: None)


def read_document(file: Path, findings: Findings) -> dict[str, Any]:
    """Return a compose file's content with every scalar as the text it is written in.

    Its parts may hold themselves, as YAML allows. Raises ConfigError when it is no compose file.
    """
    try:
        # A SafeLoader makes texts, lists and mappings, nothing else.
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_AsWritten)  # noqa: S506
    except OSError as err:
        findings.wrong(str(file), f"cannot be read ({err.strerror}); name a compose file")
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 0
        told = err.problem if isinstance(err, _Refused) else None
        findings.wrong(
            f"{file} line {line}", told or "is no YAML; `docker compose config` says more"
        )
    except (yaml.YAMLError, ValueError, RecursionError):
        findings.wrong(str(file), "is no YAML; `docker compose config` says more")
    else:
        if isinstance(content, dict):
            return content
        findings.wrong(str(file), "is no compose file: it has no services")
    raise findings.error()
