"""Which capabilities the process has, read from the kernel's own account of it."""

from pathlib import Path

from gateway.errors import is_shortage

CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13}
"""The capabilities that the gateway asks about, by their number in linux/capability.h."""


def missing_capabilities(*wanted: str, status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Return those of the `wanted` capabilities (names without CAP_) that are not effective.

    Source: `CapEff` of proc(5). Without a readable `status` all of them count as missing; none
    does while it cannot be read only for now, because nothing is known then.
    """
    try:
        lines = status.read_text("ascii").splitlines()
    except OSError as err:
        return () if is_shortage(err) else wanted
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return tuple(name for name in wanted if not effective >> CAPABILITIES[name] & 1)
