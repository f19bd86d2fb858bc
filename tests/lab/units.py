"""What systemd does with the units of docs/host, by hand: their namespace, mounts and commands."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

UNITS = Path(__file__).resolve().parents[2] / "docs/host"
PROGRAM = UNITS / "portcullis-netns"
INSTALLED = {
    "/opt/portcullis/bin/": "programs",
    "/usr/local/lib/portcullis/": "helpers",
}
"""Where the units expect the programs, by what a test has in place of it."""

_MOUNT = 'mount --bind "$1" "$(readlink -f "$2")"'


def settings(unit: str, name: str, given: str = "NAME") -> dict[str, list[str]]:
    """Return the settings of a unit for the gateway `name`, in their order; `given` is replaced."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text(encoding="utf-8").splitlines():
        if matched := re.fullmatch(r"(\w+)=(.*)", line):
            value = matched[2].replace("%i", name).replace(given, name)
            found.setdefault(matched[1], []).append(value)
    return found


def command(
    unit: Mapping[str, Sequence[str]], words: Sequence[str], places: Mapping[str, str]
) -> list[str]:
    """Return the argument list that runs `words` as the unit does.

    In its network namespace, with its mounts, and with its bounding set of capabilities. `places`
    are the directories of a test for those of INSTALLED.
    """
    (namespace,) = unit["NetworkNamespacePath"]
    mounts = [bind.split(":") for kind in ("BindPaths", "BindReadOnlyPaths") for bind in unit[kind]]
    script = "mkdir -p /run/secrets\n" + "\n".join(
        f"set -- {shlex.quote(here)} {shlex.quote(there)}; {_MOUNT}" for here, there in mounts
    )
    given = " ".join(unit["CapabilityBoundingSet"])
    names = [name.removeprefix("CAP_").lower() for name in given.removeprefix("~").split()]
    sign = "-" if given.startswith("~") else "+"
    kept = [*([] if sign == "-" else ["-all"]), *(f"{sign}{name}" for name in names)]
    limited = ["setpriv", f"--bounding-set={','.join(kept)}", "--inh-caps=-all"]
    if "yes" in unit.get("NoNewPrivileges", ()):
        limited.append("--no-new-privs")
    run = shlex.join([*limited, "--", *(placed(word, places) for word in words)])
    return [
        *("nsenter", f"--net={namespace}", "--", "unshare", "--mount", "--propagation", "slave"),
        *("--", "sh", "-ec", f"{script}\nexec {run}"),
    ]


def placed(word: str, places: Mapping[str, str]) -> str:
    """Return a path of the units with the directory of a test in place of the installed one."""
    for directory, key in INSTALLED.items():
        if word.startswith(directory):
            return f"{places[key]}/{word.removeprefix(directory)}"
    return word
