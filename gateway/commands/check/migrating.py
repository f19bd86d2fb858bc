"""`gateway check --migrate`: rewrites a service of a compose file for this image.

Only what has to change is changed: the image, variables that mean something else or nothing here,
ports, and keys that break the gateway. Comments and all other services stay as they are.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import yaml

from gateway.commands.check.advice import Advice
from gateway.commands.check.interpolate import Interpolator
from gateway.commands.check.ports import as_written
from gateway.commands.check.project import Source
from gateway.commands.check.rewriting import Pair, Rewriter
from gateway.commands.check.service import for_service
from gateway.settings.compat import KILL_SWITCH, KNOWN, elsewhere
from gateway.settings.findings import Findings
from gateway.settings.values import safe_text

IMAGE: Final = "portcullis"

_BY_HAND: Final = "cannot be changed here, because it is shared, in one line, or in another file"


def migrated(text: str, advice: Advice, source: Source, findings: Findings) -> str:
    """Return the text of a compose file with the service changed; report what was not changed.

    `source` is the same file, as it was read.
    """
    where = source.where
    change = _Change(text, advice, source, findings)
    own, owner = advice.service.name, advice.service.owner.name
    for name in dict.fromkeys((own, owner)):
        service = _service(change.root, name)
        if service is None or service.flow_style:
            findings.warn(where, f"service {safe_text(name)} {_BY_HAND}")
        else:
            change.service(service, own=name == own, owner=name == owner)
    return change.rewriter.result()


def _service(root: yaml.Node | None, name: str) -> yaml.MappingNode | None:
    node = root
    for key in ("services", name):
        found = [value for known, value in _pairs(node) if known.value == key]
        node = found[0] if found else None
    return node if isinstance(node, yaml.MappingNode) else None


def _pairs(node: yaml.Node | None) -> Sequence[Pair]:
    return node.value if isinstance(node, yaml.MappingNode) else ()


class _Change:
    """The changes of one file."""

    def __init__(self, text: str, advice: Advice, source: Source, findings: Findings) -> None:
        self.rewriter = Rewriter(text)
        self.root = yaml.compose(text, Loader=yaml.SafeLoader)
        self.advice = advice
        self.source = source
        self.findings = findings

    def service(self, node: yaml.MappingNode, *, own: bool, owner: bool) -> None:
        """Change the service that becomes the gateway, or the one that owns its network."""
        pairs = {key.value: (key, value) for key, value in node.value}
        if own:
            self._image(pairs.get("image"))
            self._environment(node, pairs.get("environment"))
            self._capabilities(node, pairs.get("cap_add"))
        if owner and self.advice.ports:
            self._ports(pairs.get("ports"))
        for key in self.advice.keys:
            belongs = owner if key == "network_mode" else own
            if belongs and key in pairs and self.rewriter.is_own(pairs[key][1]):
                self.rewriter.remove_lines(*pairs[key])
            elif belongs:
                self._by_hand(key)

    def _by_hand(self, what: str) -> None:
        self.findings.warn(self.source.where, f"{what} {_BY_HAND}; the advice has what to write")

    def _image(self, pair: Pair | None) -> None:
        if pair and isinstance(pair[1], yaml.ScalarNode) and self.rewriter.is_own(pair[1]):
            self.rewriter.replace(pair[1], IMAGE)
        else:
            self._by_hand("image")

    def _environment(self, service: yaml.MappingNode, pair: Pair | None) -> None:
        wanted = dict(self.advice.variables)
        if pair is None:
            if wanted:
                indent = " " * service.start_mark.column
                added = [f"{indent}  {name}: {_quoted(value)}" for name, value in wanted.items()]
                self.rewriter.insert_after(service, [f"{indent}environment:", *added])
            return
        node = pair[1]
        if not isinstance(node, yaml.CollectionNode) or not self._is_editable(node):
            self._by_hand("environment")
        elif node.flow_style:
            self._brackets(node, wanted)
        elif node.value:
            self._block(pair, node, wanted)

    def _is_editable(self, node: yaml.CollectionNode) -> bool:
        """Whether variables can be changed one by one: what is merged into them stays."""
        own = [
            pair
            for pair in node.value
            if not (isinstance(pair, tuple) and pair[0].value == "<<" and not node.flow_style)
        ]
        alone = type(node)(node.tag, own, node.start_mark, node.end_mark)
        return self.rewriter.is_own(alone)

    def _block(self, pair: Pair, node: yaml.CollectionNode, wanted: dict[str, str]) -> None:
        """Change variables that are written one a line."""
        listed = isinstance(node, yaml.SequenceNode)
        left = bool(set(wanted))
        commented = ""
        for first, last, name in _variables(node):
            reason = self._why_not(name)
            if name in wanted:
                value = wanted.pop(name)
                self.rewriter.replace(last, f"{name}={value}" if listed else _quoted(value))
            elif name in self.advice.renamed:
                self.rewriter.replace(first, self._renamed(first, name))
                left = True
            elif not reason:
                left = True
            elif reason.startswith("not supported"):
                said = for_service(reason, self.advice.service)
                self.rewriter.comment_out(first, last, said if said != commented else "")
                commented = said
            else:
                self.rewriter.remove_lines(first, last)
        if wanted:
            indent = " " * node.start_mark.column
            form = "- {}={}" if listed else "{}: {}"
            lines = [
                indent + form.format(name, value if listed else _quoted(value))
                for name, value in wanted.items()
            ]
            self.rewriter.insert_after(node, lines)
        elif not left and commented:
            self.rewriter.empty(pair[0])
        elif not left:
            self.rewriter.remove_lines(*pair)

    def _brackets(self, node: yaml.CollectionNode, wanted: dict[str, str]) -> None:
        """Change variables that are written in brackets."""
        listed = isinstance(node, yaml.SequenceNode)
        kept: list[str] = []
        for first, last, name in _variables(node):
            source = self.rewriter.source(first, last)
            if name in self.advice.renamed:
                kept.append(source.replace(name, self.advice.renamed[name], 1))
            elif name not in wanted and not self._why_not(name):
                kept.append(source)
        form = '"{}={}"' if listed else '{}: "{}"'
        kept += [form.format(name, value) for name, value in wanted.items()]
        self.rewriter.rebuild(node, kept)

    def _why_not(self, name: str) -> str | None:
        """Return why a variable has no effect here, None if it has one."""
        if name in self.advice.unset or name in KILL_SWITCH:
            return "not needed"
        return None if name in KNOWN else elsewhere(name)

    def _renamed(self, node: yaml.Node, name: str) -> str:
        """Return the text of a name, or of NAME=value, with the new name."""
        return self.rewriter.source(node).replace(name, self.advice.renamed[name], 1)

    def _capabilities(self, service: yaml.MappingNode, pair: Pair | None) -> None:
        """Add capabilities that are needed, and remove the others."""
        added, gone = self.advice.capabilities, self.advice.needless
        if not added and not gone:
            return
        if pair is None:
            if not added:
                self._by_hand("cap_add")
                return
            indent = " " * service.start_mark.column
            lines = [f"{indent}cap_add:", *(f"{indent}  - {name}" for name in added)]
            self.rewriter.insert_after(service, lines)
            return
        node = pair[1]
        if not isinstance(node, yaml.SequenceNode) or not self.rewriter.is_own(pair[1]):
            self._by_hand("cap_add")
            return
        left = [one for one in node.value if _capability(one) not in gone]
        if not left and not added:
            self.rewriter.remove_lines(*pair)
            return
        if node.flow_style:
            self.rewriter.rebuild(node, [*map(self.rewriter.source, left), *added])
            return
        for one in node.value:
            if one not in left:
                self.rewriter.remove_lines(one, one)
        indent = " " * node.start_mark.column
        if added:
            self.rewriter.insert_after(node, [f"{indent}- {name}" for name in added])

    def _ports(self, pair: Pair | None) -> None:
        """Remove entries of `ports`, and the key with the last of them."""
        node = pair[1] if pair else None
        if not pair or not isinstance(node, yaml.SequenceNode) or not self.rewriter.is_own(pair[1]):
            self._by_hand("ports")
            return
        gone = [one for one in node.value if self._written(one) in self.advice.ports]
        if len(gone) == len(node.value):
            self.rewriter.remove_lines(*pair)
        elif node.flow_style:
            kept = [self.rewriter.source(one) for one in node.value if one not in gone]
            self.rewriter.rebuild(node, kept)
        else:
            for one in gone:
                self.rewriter.remove_lines(one, one)

    def _written(self, entry: yaml.Node) -> str:
        """Return an entry of `ports` as the advice has it."""
        value = (
            {key.value: item.value for key, item in entry.value}
            if isinstance(entry, yaml.MappingNode)
            else entry.value
        )
        quiet = Findings()
        return as_written(Interpolator("", self.source.shell, quiet).value(value, "ports"))


def _variables(node: yaml.CollectionNode) -> Iterator[tuple[yaml.Node, yaml.Node, str]]:
    """Yield the first and the last node of each variable, and its name."""
    for entry in node.value:
        if isinstance(entry, tuple):
            yield entry[0], entry[1], str(entry[0].value)
        else:
            yield entry, entry, str(entry.value).partition("=")[0].strip()


def _capability(node: yaml.Node) -> str:
    """Return the name of a capability in capitals, without its prefix."""
    return str(node.value).upper().removeprefix("CAP_")


def _quoted(value: str) -> str:
    """Return a value of a mapping, in quotes where YAML would read something else."""
    return f'"{value}"'
