"""`gateway status`: asks the running gateway for its state and prints the answer.

What it imports is limited: see `gateway.commands.asking`.
"""

import sys
from collections.abc import Collection, Sequence

from gateway.commands.asking import HEALTH, HISTORY, NoAnswer, ask, own_address, visible
from gateway.commands.exit_codes import FAILED, OK
from gateway.commands.showing import lines

TYPE_CHECKING = False  # the module with that name takes 2 ms
if TYPE_CHECKING:
    import argparse

OPTIONS = {
    "--history": "what changed, when and why",
    "--watch": "follow the state until Ctrl-C",
    "--json": "print JSON",
}


def status(arguments: Sequence[str]) -> int:
    """Print what `arguments` ask for; the exit code says whether the gateway is healthy.

    For its history that is whether there was an answer, and following it always ends well.
    """
    options = _options(arguments)
    try:
        address = own_address()
        if "--watch" in options:
            from gateway.commands.watching import watch  # noqa: PLC0415 - it takes longer

            return watch(*address)
        answered = ask(*address, HISTORY if "--history" in options else HEALTH)
    except NoAnswer as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    _print(answered, options)
    return OK if "--history" in options or answered.get("healthy") else FAILED


def _print(answered: dict[str, object], options: Collection[str]) -> None:
    if "--json" in options:
        import json  # noqa: PLC0415 - for this alone

        print(json.dumps(answered))
    elif "--history" in options:
        from gateway.commands.past import lines_of  # noqa: PLC0415 - for this alone

        print("\n".join(lines_of(answered)))
    else:
        print("\n".join(lines(answered)))


def _options(arguments: Sequence[str]) -> Collection[str]:
    """Return the options that are given; help and a wrong command line end the process.

    Only these need the parser: its import takes as long as all the rest.
    """
    if len(arguments) < 2 and set(arguments) <= OPTIONS.keys():  # noqa: PLR2004 - one alone contradicts none
        return arguments
    import argparse  # noqa: PLC0415 - see above

    parser = argparse.ArgumentParser(
        prog="gateway status", description="Show the state of the running gateway."
    )
    add_options(parser)
    options: list[str] = parser.parse_args(arguments).options
    if "--watch" in options and len(set(options)) > 1:
        parser.error("--watch: not allowed with other options")
    return options


def add_options(parser: "argparse.ArgumentParser") -> None:
    """Add the options of this command to its parser."""
    for option, said in OPTIONS.items():
        parser.add_argument(
            option, action="append_const", const=option, dest="options", default=[], help=said
        )
