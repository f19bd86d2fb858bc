"""The words of the documents and of the code."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "Dockerfile",
    "compose.example.yml",
    "scripts/configuration.md.in",
    "scripts/document-configuration",
]
PACKAGES = ["gateway", "healthcheck", "scripts", "tests"]
FILES = sorted(
    {
        *PROJECT.glob("*.md"),
        *(PROJECT / "docs").rglob("*.md"),
        *(PROJECT / name for name in DOCUMENTS),
        *(
            path
            for package in PACKAGES
            for suffix in ("py", "toml", "md", "html")
            for path in (PROJECT / package).rglob(f"*.{suffix}")
            if path != Path(__file__)
        ),
    }
)
"""All but this file, which quotes what it bans."""

BANNED = {
    r"tells?|told|telling": "report, log, return, describe or warn",
    r"anew": "again",
    r"beside": "next to",
    r"whom|whoever|whomever": "a host that, everyone who",
    r"nobody|somebody": "no host, another program",
    r"belongs? into": "belongs in, put it in",
    r"by comma": "comma-separated",
    r"stands": "is, exists",
    r"(?<!there )(?:is|are|was|were) no(?! (?:other|such|longer|more)\b)": "is not a",
    r"bears?|bearing": "has, carries, tolerates",
    r"wears?|wore|worn|wearing": "has",
    r"at last": "finally",
    r"as it were": "",
    r"(?<!has )(?<!have )(?<!had )neither(?=[.;:])": "not even, nor does",
    r"(?-i:Whatever)|whatever (?:becomes|comes|goes|arrives|it (?:is|says|does))": "any, always",
    r"(?:go|goes|went|going) by": "use, depend on, leave through",
    r"by (?:(?:the|an?|its|this|each|every) )?(?:loopback|uplinks?)": "on, through, via",
    r"foreign hands?": "changes made by other programs",
    r"(?:take|takes|took|taking|taken) (?:no )?notice of": "ignore, respect",
    r"(?:goes|went|going) on(?! (?:the|an?|its|this|each|every|lo|eth\d)\b)": "continue",
    r"(?-i:Say) (?:whether|if|what|which|who|why)": "return whether",
    r"by chance": "random",
    r"in clear": "unencrypted",
    r"mends?|mended|mending|heals?|healed|healing": "revert, recover",
    r"complaints?|complains?": "limit, error, message",
}
"""German idiom in English words and words outside of our glossary, with what to write instead.

Only phrases that are wrong wherever they occur: a regular expression cannot judge style.
"""

WRONG = {
    "as it were": "closed, as it were, for good",
    "at last": "at last it connects",
    "bears": "the packet bears a mark",
    "beside": "beside the tunnel",
    "built anew": "the interface is built anew",
    "by a loopback": "a packet by loopback",
    "by an uplink": "leaves by an uplink",
    "by chance": "a mark drawn by chance",
    "by comma": "separated by comma",
    "complaint": "the tool's complaint",
    "foreign hands": "Foreign hands are noticed",
    "goes by": "what health goes by",
    "goes on": "the gateway goes on.",
    "heals": "it heals in place",
    "in clear": "a question in clear",
    "into": "that belongs into the file",
    "is no": "an echo is no answer",
    "are no": "these are no errors",
    "neither": "Docker's own network neither.",
    "nobody": "an address that nobody has",
    "notice": "the kernel takes no notice of it",
    "say whether": "Say whether it is closed",
    "somebody": "what somebody else changed",
    "stands": "what stands in the file",
    "told": "Told once",
    "tells": "the log tells why",
    "wears": "it does not wear the mark",
    "whatever before": "Whatever fails leaves it closed",
    "whatever becomes": "whatever becomes of it",
    "whoever": "whoever answers",
    "whom": "to whom it goes",
}
RIGHT = [
    "there is no gateway",
    "there\n# is no gateway",
    "it is no longer there",
    "an intolerable untold number",
    "besides, it has two sides",
    "the second has neither. Neither of them works",
    "a bound socket goes on the list",
    "a fwmark whatever its value",
    "what goes through the uplink",
    "healthy, and health is red",
    "a clear answer",
]


def joined(text: str) -> str:
    """Return `text` with its lines joined, because a phrase may go over a line break."""
    return re.sub(r"\s*\n[\s#]*", " ", text)


def found_in(text: str) -> list[str]:
    """Return each banned phrase in `text` with its surroundings and what to write instead."""
    line = joined(text)
    return [
        f"...{line[max(0, match.start() - 30) : match.end() + 30]}...  instead: {better}"
        for phrase, better in BANNED.items()
        for match in re.finditer(rf"\b(?:{phrase})\b", line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_the_list_finds_what_it_should(text: str) -> None:
    """Positive control, one for each phrase."""
    assert found_in(text)


def test_every_entry_of_the_list_has_a_control() -> None:
    """An entry that matches nothing would go unnoticed."""
    controls = "\n".join(WRONG.values())
    assert [
        phrase for phrase in BANNED if not re.search(rf"\b(?:{phrase})\b", controls, re.IGNORECASE)
    ] == []


@pytest.mark.parametrize("text", RIGHT)
def test_the_list_finds_nothing_in_good_english(text: str) -> None:
    """The lookalikes."""
    assert found_in(text) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_messages_comments_and_names_are_in_plain_english(path: Path) -> None:
    """The whole text, because users read the messages and maintainers the rest.

    Code spans of documents are quotations of the code, and the glossary lists words to avoid.
    """
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        text = re.sub(r"`[^`\n]*`", "``", text)
    if path.name == "STYLE.md":
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    assert found_in(text) == []
    assert [name for name in defined_in(text) if found_in(name.replace("_", " ").strip())] == []


def defined_in(code: str) -> list[str]:
    """Return the names of functions and classes that `code` defines."""
    return re.findall(r"^\s*(?:async )?(?:def|class) (\w+)", code, flags=re.MULTILINE)


def test_names_are_read_as_words() -> None:
    """Control: the names of a function, a method and a class."""
    code = "def test_what_is_no_key():\nclass Whom:\n    async def begin_anew(self):\n"
    assert [bool(found_in(name.replace("_", " "))) for name in defined_in(code)] == [True] * 3
