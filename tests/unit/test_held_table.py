"""A table of nftables on a kernel in memory: put, read back, compared, with its twin."""

import re

import pytest

from gateway.errors import FirewallError, ProcessError
from gateway.firewall.nft.program import TIMEOUT, Nft
from gateway.firewall.nft.table import REMEMBERED, HeldTable

BODY = """\
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\taccept comment "a"
\t}
"""
OTHER = BODY.replace('"a"', '"b"')
MORE = BODY + BODY.replace("input", "output") + BODY.replace("input", "forward")
TABLE, TWIN = "inet t", "inet t_wanted"
LOADS = ("--debug=netlink", "-f", "-")
"""The arguments of nft that load a table, and show its instructions."""


class Kernel:
    """The part of nft that a table needs, and the tables that it has made.

    `calls` are the arguments and the input of each run. `spelling` changes what is listed, as
    another version of nft might; `refuses` is what makes the next transactions fail.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, list[str]]] = {}
        self.calls: list[tuple[str, ...]] = []
        self.limits: list[float] = []
        self.spelling: tuple[str, str] | None = None
        self.refuses: list[str] = []

    def __call__(self, argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        """Run nft."""
        self.calls.append((*argv[1:], *([stdin] if stdin else [])))
        self.limits.append(timeout)
        match argv[1:]:
            case words if words == LOADS:
                if self.refuses and self.refuses[0] in (stdin or ""):
                    self.refuses.pop(0)
                    raise ProcessError("nft", "exit code 1", "Error: no")
                self._load(stdin or "")
                found = re.findall(r"^table (\S+ \S+) {", stdin or "", re.MULTILINE)
                return "".join(self._code(name, blocks(stdin or "")) for name in found)
            case ("-c", "--debug=netlink", "-f", "-"):
                (name,) = re.findall(r"^table (\S+ \S+) {", stdin or "", re.MULTILINE)
                return self._code(name, blocks(stdin or ""))
            case ("--debug=netlink", "list", "table", family, name):
                return self._listing(f"{family} {name}")
            case ("list", "tables"):
                return "".join(f"table {name}\n" for name in self.tables)
            case _:
                raise AssertionError(argv)

    def _load(self, text: str) -> None:
        for line in text.splitlines():
            match line.split():
                case ["add", "table", family, name]:
                    self.tables.setdefault(f"{family} {name}", {})
                case ["flush", "table", family, name]:
                    held = self.tables[f"{family} {name}"]
                    for block in held:
                        held[block] = held[block][:1]
                case ["delete", "table", family, name]:
                    del self.tables[f"{family} {name}"]
                case ["delete", "chain", family, name, chain]:
                    del self.tables[f"{family} {name}"][f"chain {chain}"]
                case ["table", family, name, "{"]:
                    self.tables.setdefault(f"{family} {name}", {}).update(blocks(text))

    def _code(self, name: str, held: dict[str, list[str]]) -> str:
        return "".join(
            f"{name} {block.split()[1]} {number}\n  [ {line} ]\n"
            for block, lines in held.items()
            if block
            for number, line in enumerate(lines[1:], 5)
        )

    def _listing(self, name: str) -> str:
        if name not in self.tables:
            raise ProcessError("nft", "exit code 1", "Error: No such file or directory")
        held = self.tables[name]
        inside = "".join(f"\t{line}\n" for line in held.get("", ())) + "".join(
            f"\t{block} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
            for block, lines in held.items()
            if block
        )
        text = f"{self._code(name, held)}table {name} {{\n{inside}}}\n"
        return text.replace(*self.spelling) if self.spelling else text


def blocks(text: str) -> dict[str, list[str]]:
    """Return the lines of each block of a table, those outside of any under the empty name."""
    found: dict[str, list[str]] = {}
    block = ""
    for line in map(str.strip, text.partition(" {\n")[2].splitlines()):
        if line.endswith("{"):
            block = line.removesuffix(" {")
            found[block] = []
        elif line == "}":
            block = ""
        elif line:
            found.setdefault(block, []).append(line.removesuffix(";") if not block else line)
    return found


@pytest.fixture
def kernel() -> Kernel:
    """Return a kernel without tables."""
    return Kernel()


@pytest.fixture
def table(kernel: Kernel) -> HeldTable:
    """Return a table that has not been put yet."""
    return HeldTable(TABLE, Nft(kernel))


def test_what_was_put_is_there_and_reads_as_wanted(kernel: Kernel, table: HeldTable) -> None:
    """In one transaction, which is read back; no twin is needed where the code is the same."""
    table.put(BODY)
    assert table.differences(BODY) == ()
    assert kernel.tables == {TABLE: blocks(f"table {TABLE} {{\n{BODY}}}")}
    assert table.held("input") == (
        "chain input {",
        "type filter hook input priority filter; policy drop;",
        'accept comment "a"',
    )
    assert table.held("forward") == ()
    assert not [call for call in kernel.calls if TWIN in call[-1]]
    assert set(kernel.limits) == {TIMEOUT} == {10.0}


def test_another_body_replaces_the_rules(kernel: Kernel, table: HeldTable) -> None:
    """The chains stay on their hooks."""
    table.put(BODY)
    table.put(OTHER)
    assert table.differences(OTHER) == ()
    assert table.differences(BODY) == (
        'chain input: missing: accept comment "a"',
        'chain input: not ours: accept comment "b"',
    )
    assert not [call for call in kernel.calls if f"delete table {TABLE}\n" in call[-1]]


def test_a_chain_of_another_program_in_the_table_is_removed(
    kernel: Kernel, table: HeldTable
) -> None:
    """It would decide about packets as well."""
    table.put(MORE)
    table.put(BODY)
    assert list(kernel.tables[TABLE]) == ["chain input"]
    both = f"delete chain {TABLE} forward\ndelete chain {TABLE} output\n"
    assert (*LOADS, both) in kernel.calls


def test_a_table_whose_chains_cannot_be_kept_is_made_again(
    kernel: Kernel, table: HeldTable
) -> None:
    """Another program has put a chain of ours on another hook."""
    kernel.refuses = ["flush table"]
    table.put(BODY)
    assert kernel.refuses == []
    assert any(f"delete table {TABLE}\n" in call[-1] for call in kernel.calls)
    assert table.differences(BODY) == ()


def test_rules_that_are_refused_are_an_error(kernel: Kernel, table: HeldTable) -> None:
    """Also the second time."""
    kernel.refuses = ["flush table", "delete table"]
    with pytest.raises(FirewallError, match=r"^loading a table: nft: exit code 1"):
        table.put(BODY)


def test_what_does_not_read_back_as_put_is_an_error(kernel: Kernel, table: HeldTable) -> None:
    """The difference is in the message."""
    table.put(BODY)
    kernel.spelling = (
        f"{TABLE} {{\n\tchain input {{\n",
        f"{TABLE} {{\n\tchain input {{\n\t\tdrop\n",
    )
    with pytest.raises(FirewallError) as caught:
        table.put(BODY)
    assert str(caught.value) == (f"table {TABLE} is not what was put: chain input: not ours: drop")


def test_a_table_that_is_gone_is_one_difference(kernel: Kernel, table: HeldTable) -> None:
    """And one that cannot be read is an error."""
    table.put(BODY)
    del kernel.tables[TABLE]
    assert table.differences(BODY) == (f"table {TABLE} is not there",)
    kernel.tables[TABLE] = {}

    def unreadable(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        if "table" in argv:
            raise ProcessError("nft", "exit code 1", "Error: no")
        return kernel(argv, stdin=stdin, timeout=timeout)

    with pytest.raises(FirewallError, match=r"^reading: nft: exit code 1"):
        HeldTable(TABLE, Nft(unreadable)).differences(BODY)


def test_a_version_of_nft_that_spells_otherwise_is_asked_how(
    kernel: Kernel, table: HeldTable
) -> None:
    """By a dormant twin, which is removed at once and whose listing is remembered."""
    table.put(BODY)
    kernel.spelling = ("[ accept", "[ immediate accept")
    for _ in range(3):
        assert table.differences(BODY) == ()
    twins = [call[-1] for call in kernel.calls if call[:3] == LOADS and TWIN in call[-1]]
    assert len(twins) == 2
    assert f"table {TWIN} {{\n\tflags dormant;\n{BODY}}}" in twins[0]
    assert twins[1] == f"delete table {TWIN}\n"
    assert TWIN not in kernel.tables
    kernel.tables[TABLE]["chain input"][1] = "drop"
    assert table.differences(BODY) != (), "control: a change is still seen"


def test_a_twin_is_removed_also_if_it_cannot_be_read(kernel: Kernel, table: HeldTable) -> None:
    """It would stay for ever."""
    table.put(BODY)
    kernel.spelling = ("[ accept", "[ immediate accept")

    def run(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        if argv[-1] == "t_wanted" and "list" in argv:
            raise ProcessError("nft", "exit code 1", "Error: no")
        return kernel(argv, stdin=stdin, timeout=timeout)

    with pytest.raises(FirewallError):
        HeldTable(TABLE, Nft(run)).differences(BODY)
    assert TWIN not in kernel.tables


def test_two_processes_that_compare_have_two_twins(kernel: Kernel) -> None:
    """`gateway verify` runs next to the gateway."""
    table = HeldTable(TABLE, Nft(kernel, twin="verified"))
    table.put(BODY)
    kernel.spelling = ("[ accept", "[ immediate accept")
    table.differences(BODY)
    assert any(f"table {TABLE}_verified {{" in call[-1] for call in kernel.calls)


def test_only_a_few_bodies_are_remembered(kernel: Kernel, table: HeldTable) -> None:
    """The oldest is forgotten first; what is remembered costs one run of nft."""
    bodies = [BODY.replace('"a"', f'"{number}"') for number in range(REMEMBERED + 1)]
    for body in bodies:
        table.put(body)
    number = len(kernel.calls)
    assert table.differences(bodies[-1]) == ()
    assert len(kernel.calls) - number == 1
    table.differences(bodies[1])
    asked = [call for call in kernel.calls[number:] if "-c" in call]
    assert asked == [], "the eight latest are known"
    table.differences(bodies[0])
    assert len([call for call in kernel.calls[number:] if "-c" in call]) == 1
    assert REMEMBERED == 8


def test_refused_packets_are_read_from_the_table(table: HeldTable) -> None:
    """Each time that they are asked for."""
    counting = BODY.replace("accept", "counter packets 7 bytes 9 drop")
    table.put(counting)
    assert table.refused() == {("any", "input"): 7}


class Numbered(Kernel):
    """A kernel that numbers its changes, as NFT_MSG_GETGEN does; None while it does not say."""

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = 1

    def __call__(self, argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        """Run nft, and count its transactions."""
        answer = super().__call__(argv, stdin=stdin, timeout=timeout)
        if argv[1:] == LOADS and self.number is not None:
            self.number += 1
        return answer

    def generation(self) -> int | None:
        """Return the number of the last change."""
        return self.number


def test_a_table_is_not_read_again_while_no_table_has_changed() -> None:
    """Not after it was put, nor after it was found as wanted; another body is another question."""
    kernel = Numbered()
    table = HeldTable(TABLE, Nft(kernel, generation=kernel.generation))
    table.put(BODY)
    number = len(kernel.calls)
    assert table.differences(BODY) == ()
    assert len(kernel.calls) == number
    assert table.differences(OTHER) != ()
    assert table.differences(BODY) == ()
    number = len(kernel.calls)
    assert table.differences(BODY) == ()
    assert len(kernel.calls) == number
    table.forget()
    assert table.differences(BODY) == ()
    assert len(kernel.calls) > number


def test_a_change_of_any_table_lets_it_be_read() -> None:
    """By a transaction of whatever program; a difference is found each time until it is gone."""
    kernel = Numbered()
    table = HeldTable(TABLE, Nft(kernel, generation=kernel.generation))
    table.put(BODY)
    kernel.tables[TABLE]["chain input"].append('accept comment "foreign"')
    assert table.differences(BODY) == (), "control: the number is the same"
    kernel.number = 100
    assert table.differences(BODY) != ()
    assert table.differences(BODY) != ()
    table.put(BODY)
    assert table.differences(BODY) == ()


def test_a_kernel_that_does_not_say_is_read_each_time() -> None:
    """What is not known is not taken for the same."""
    kernel = Numbered()
    table = HeldTable(TABLE, Nft(kernel, generation=kernel.generation))
    kernel.number = None
    table.put(BODY)
    assert table.differences(BODY) == ()
    kernel.tables[TABLE]["chain input"].append('accept comment "foreign"')
    assert table.differences(BODY) != ()


def test_a_stand_in_for_nft_has_no_number_of_its_own(kernel: Kernel, table: HeldTable) -> None:
    """The number of this machine's kernel would be about other tables."""
    table.put(BODY)
    kernel.tables[TABLE]["chain input"].append('accept comment "foreign"')
    assert table.differences(BODY) != ()


def test_a_table_is_removed_whether_it_is_there_or_not(kernel: Kernel, table: HeldTable) -> None:
    """Other tables stay."""
    kernel.tables["ip docker"] = {}
    table.remove()
    table.put(BODY)
    table.remove()
    assert list(kernel.tables) == ["ip docker"]


def test_no_difference_shows_a_mark(kernel: Kernel, table: HeldTable) -> None:
    """Health and log are open to workloads."""
    marked = BODY.replace("accept", "meta mark 0x1234abcd accept")
    table.put(marked)
    kernel.tables[TABLE]["chain input"][1:] = []
    (line,) = table.differences(marked)
    assert line == 'chain input: missing: meta mark (a mark) accept comment "a"'


def test_the_kernel_is_asked_for_tables_by_their_whole_name(kernel: Kernel) -> None:
    """One whose name begins in the same way is another one."""
    kernel.tables["inet portcullis_trial"] = {}
    nft = Nft(kernel)
    assert nft.has("inet portcullis_trial")
    assert not nft.has("inet portcullis")
    assert not nft.has("portcullis_trial")


def test_a_table_that_another_program_puts_to_sleep_is_an_error(
    kernel: Kernel, table: HeldTable
) -> None:
    """Another program has put the table to sleep between the writing and the reading."""
    kernel.spelling = (f"table {TABLE} {{\n", f"table {TABLE} {{\n\tflags dormant\n")
    with pytest.raises(FirewallError, match="not ours: flags dormant"):
        table.put(BODY)


def test_instructions_that_cannot_be_made_are_an_error(kernel: Kernel) -> None:
    """Of reading, because nothing is changed by it."""

    def run(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        if "-c" in argv:
            raise ProcessError("nft", "exit code 1", "Error: no")
        return kernel(argv, stdin=stdin, timeout=timeout)

    HeldTable(TABLE, Nft(kernel)).put(BODY)
    with pytest.raises(FirewallError, match=r"^reading: nft: exit code 1"):
        HeldTable(TABLE, Nft(run)).differences(BODY)


def test_a_table_that_is_put_needs_no_other_run_for_its_instructions(
    kernel: Kernel, table: HeldTable
) -> None:
    """They are shown while it is loaded; control: another process has to ask for them."""
    table.put(BODY)
    assert [call[:-1] if call[-1] not in TABLE else call for call in kernel.calls] == [
        LOADS,
        ("--debug=netlink", "list", "table", "inet", "t"),
    ]
    assert HeldTable(TABLE, Nft(kernel)).differences(BODY) == ()
    assert kernel.calls[-1][:2] == ("-c", "--debug=netlink")


def test_tables_that_cannot_be_listed_are_an_error() -> None:
    """Whether ours is there is not known."""

    def run(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        del argv, stdin, timeout
        raise ProcessError("nft", "exit code 1", "Error: no")

    with pytest.raises(FirewallError, match=r"^reading: nft: exit code 1"):
        Nft(run).has(TABLE)


def test_every_difference_is_in_the_error(kernel: Kernel, table: HeldTable) -> None:
    """Separated, so that a person can read them."""
    head = f"{TABLE} {{\n\tchain input {{\n"
    kernel.spelling = (head, f"{head}\t\tdrop\n\t\treturn\n")
    with pytest.raises(FirewallError) as caught:
        table.put(BODY)
    lines = caught.value.subject.split("; ")
    assert lines == ["chain input: not ours: drop", "chain input: not ours: return"]
