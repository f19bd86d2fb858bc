"""The command that runs a module of ours in a process of its own."""

import sys

_CODE = (
    "import sys; name, n = sys.argv[1], int(sys.argv[2]); "
    "sys.path[:], sys.argv[1:] = sys.argv[3:n], sys.argv[n:]; "
    "__import__(name); sys.modules[name].main()"
)
"""Isolated from the environment and the working directory (-I), and without site packages (-S), the
interpreter imports from nowhere else than this process does."""


def command_of(module: str, *words: str) -> tuple[str, ...]:
    """Return the command that calls `main` of `module` with `words` in sys.argv[1:]."""
    count = len(sys.path) + 3
    return (sys.executable, "-I", "-S", "-c", _CODE, module, str(count), *sys.path, *words)
