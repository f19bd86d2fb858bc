"""The times of handshakes that an earlier start has kept, for `SERVER_ORDER=latency`."""

import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.model import Candidate, Latency
from gateway.providers.handshakes import FILE, LARGEST, BadTimesError, kept
from gateway.providers.kept import PLACES
from gateway.settings import files
from gateway.settings.findings import Findings

WHERE: Final = "SERVER_ORDER"


def latency(candidates: Sequence[Candidate], root: Path, findings: Findings) -> Latency:
    """Return the kept times of `candidates`, empty where there are none that can be used."""
    servers = [it.endpoint_text for it in candidates]
    if len(servers) < 2:  # noqa: PLR2004 - one is not a choice
        return Latency()
    for place in PLACES:
        path = PurePosixPath(place) / FILE
        try:
            raw, _ = files.contents(files.inside(root, path), LARGEST)
            times = kept(raw, servers, time.time())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, BadTimesError) as err:
            reason = getattr(err, "strerror", None) or str(err)
            findings.info(WHERE, f"{path} is not used: {reason}; servers are measured again")
            continue
        server, seconds = min(times, key=lambda it: it[1])
        findings.info(
            WHERE, f"{server} answered first, in {seconds * 1000:.0f} ms, as {path} has it"
        )
        return Latency(times)
    findings.info(
        WHERE,
        "before the first connection the gateway measures which server answers first, with one "
        "handshake each, and keeps that for later starts",
    )
    return Latency()
