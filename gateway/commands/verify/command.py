"""The command itself: runs every trial and prints what happened."""

import argparse
import json
import sys
from contextlib import suppress
from dataclasses import asdict

from gateway.commands.asking import status_at, visible
from gateway.commands.exit_codes import FAILED, OK, USAGE
from gateway.commands.verify import places
from gateway.commands.verify.report import Verification
from gateway.errors import ConfigError, GatewayError, NetworkError
from gateway.policy.dns import resolvers_in
from gateway.settings import assemble, early
from gateway.system.resolv import ResolverFile


def verify(asked: argparse.Namespace) -> int:
    """Try every way around the tunnel and print what happened; the exit code sums it up."""
    environ = early.environment()
    address = early.health_address(environ)
    named = ""
    with suppress(NetworkError):
        named = ResolverFile().read()
    try:
        found = places.find()
        if found.vault and asked.echo:
            print("--echo: no workload is here; ask it in one of them", file=sys.stderr)
            return USAGE
        config = assemble.load(environ).config
        trial = Verification(
            lambda: status_at(address.host, address.port), config, resolvers_in(named), found
        )
        lines = trial.run(echo=asked.echo, cut=asked.cut)
    except ConfigError as err:
        print("\n".join(map(str, err.problems)), file=sys.stderr)
        return USAGE
    except GatewayError as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    ok = all(line.ok for line in lines)
    if asked.json:
        print(json.dumps({"ok": ok, "trials": [asdict(line) for line in lines]}))
        return OK if ok else FAILED
    width = max(len(line.tried) for line in lines)
    for line in lines:
        verdict = "ok  " if line.ok else "FAIL"
        print(f"{verdict}  {visible(line.tried):{width}}  {visible(line.happened)}")
    print("\nAs promised." if ok else "\nNOT as promised: see the lines with FAIL.")
    return OK if ok else FAILED
