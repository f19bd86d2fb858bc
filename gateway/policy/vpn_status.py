"""The words of gluetun for what the gateway does, as its clients read and send them; pure."""

from enum import StrEnum

from gateway.policy.states import Reason


class VpnStatus(StrEnum):
    """The values of `status` at gluetun's `/v1/vpn/status` (its internal/constants/status.go)."""

    RUNNING = "running"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    CRASHED = "crashed"


def vpn_status(state: str, reason: Reason) -> VpnStatus:
    """Return the word for a state and its reason as they are reported, see `report.Status`.

    Paused is stopped, because its rules are in force before it is reported; while a shortage keeps
    them from it, it is stopping. What is crashed connects again by itself all the same.
    """
    if reason in {Reason.FIREWALL, Reason.HUNG}:
        return VpnStatus.CRASHED
    match state:
        case "connected":
            return VpnStatus.RUNNING
        case "paused" if reason is not Reason.UNCHECKED:
            return VpnStatus.STOPPED
        case "paused" | "stopping":
            return VpnStatus.STOPPING
        case _:
            return VpnStatus.STARTING
