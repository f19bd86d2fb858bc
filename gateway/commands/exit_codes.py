"""The exit codes of every command."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""Failed, or not healthy."""
USAGE: Final = 2
"""The configuration or the command line is wrong."""
