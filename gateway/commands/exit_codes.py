"""The exit codes of every command."""

OK = 0
FAILED = 1
"""Failed, or not healthy."""
USAGE = 2
"""The configuration or the command line is wrong."""
