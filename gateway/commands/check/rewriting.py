"""Changes parts of a YAML text and leaves every other character as it is, comments included.

PyYAML's marks say where each node is in the text. An edit replaces a part of it; a node that is
shared by an anchor, or is elsewhere in the file, is not changed.
"""

from bisect import bisect_right
from collections.abc import Sequence

import yaml

from gateway.commands.check.document import children

Pair = tuple[yaml.Node, yaml.Node]


class Rewriter:
    """The edits of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.edits: list[tuple[int, int, str]] = []

    def result(self) -> str:
        """Return the text with all edits; of two that overlap, the one that begins first.

        Of lines that are added at one place, those of the deepest block that ends there come first.
        """
        done, at = "", 0
        for begin, end, new in sorted(self.edits, key=_order):
            if begin >= at:
                done += self.text[at:begin]
                is_line = begin == end and new.endswith(self.newline)
                done += self.newline if is_line and done and done[-1] not in "\r\n" else ""
                done, at = done + new, end
        return done + self.text[at:]

    def replace(self, node: yaml.Node, new: str) -> None:
        """Replace the text of a node; a text in a block ends after its last line."""
        begin, end = node.start_mark.index, node.end_mark.index
        self.edits.append((begin, begin + len(self.text[begin:end].rstrip()), new))

    def remove_lines(self, first: yaml.Node, last: yaml.Node) -> None:
        """Remove the lines from one node to the end of another."""
        self.edits.append((*self._lines(first, last), ""))

    def comment_out(self, first: yaml.Node, last: yaml.Node, reason: str) -> None:
        """Turn these lines into comments, with a reason above them if there is one."""
        begin, end = self._lines(first, last)
        lines = self.text[begin:end].splitlines(keepends=True)
        indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
        said = f"{indent}# {reason}{self.newline}" if reason else ""
        self.edits.append((begin, end, said + "".join(_commented(line, indent) for line in lines)))

    def empty(self, key: yaml.Node) -> None:
        """Give a key an empty mapping, because nothing is left below it but comments."""
        at = self.text.index(":", key.end_mark.index) + 1
        self.edits.append((at, at, " {}"))

    def insert_after(self, node: yaml.Node, lines: Sequence[str]) -> None:
        """Add lines below a node, with the indent that they have."""
        at = self.starts[min(self._last_line(node) + 1, len(self.starts) - 1)]
        self.edits.append((at, at, "".join(f"{line}{self.newline}" for line in lines)))

    def rebuild(self, node: yaml.Node, entries: Sequence[str]) -> None:
        """Write a collection in brackets again, with `entries` as they are."""
        opening, closing = "{}" if isinstance(node, yaml.MappingNode) else "[]"
        self.replace(node, opening + ", ".join(entries) + closing)

    def source(self, first: yaml.Node, last: yaml.Node | None = None) -> str:
        """Return the text of a node, or of all from one node to the end of another."""
        return self.text[first.start_mark.index : (last or first).end_mark.index].strip()

    def is_own(self, node: yaml.Node) -> bool:
        """Whether no anchor lets others use a node or a part of it, and it is not used from others.

        A node with an anchor or a tag begins with that, also where it is used again.
        """
        begin = node.start_mark.index
        is_plain = self.text[begin : begin + 1] not in ("&", "!")
        return is_plain and all(map(self.is_own, children(node)))

    def _lines(self, first: yaml.Node, last: yaml.Node) -> tuple[int, int]:
        end = min(self._last_line(last) + 1, len(self.starts) - 1)
        return self.starts[first.start_mark.line], self.starts[end]

    def _last_line(self, node: yaml.Node) -> int:
        """Return the line on which a node ends; a block ends before its trailing comments."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            for child in (*reversed(children(node)),)[:2]:
                if node.start_mark.index <= child.start_mark.index < node.end_mark.index:
                    return self._last_line(child)
        before = self.text[node.start_mark.index : node.end_mark.index].rstrip()
        end = node.start_mark.index + max(len(before) - 1, 0)
        return bisect_right(self.starts, end) - 1


def _order(edit: tuple[int, int, str]) -> tuple[int, int, int, bool]:
    """Return where an edit belongs; an entry of a list may have the indent of the list's key."""
    begin, end, new = edit
    line = new.lstrip(" ")
    return begin, end, len(line) - len(new), not line.startswith("- ")


def _commented(line: str, indent: str) -> str:
    rest = line.removeprefix(indent)
    return f"{indent}# {rest}" if rest.strip() else line
