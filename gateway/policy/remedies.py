"""What a person can do about each reason for which the gateway is not healthy."""

from gateway.policy.report import Status
from gateway.policy.states import Reason

WAIT = ""
"""For a reason that ends without help."""

REMEDIES: dict[Reason, str] = {
    Reason.STARTING: WAIT,
    Reason.NO_HANDSHAKE: (
        "compare the endpoint, its port and the keys with a new WireGuard file of your provider"
    ),
    Reason.SILENT: (
        "if it stays, compare WIREGUARD_ADDRESSES with your provider's file, because a server "
        "drops what comes from another address; or choose another server"
    ),
    Reason.ONE_WAY: (
        "if it happens again, look at the router that translates addresses: restart it, or raise "
        "its limit of UDP connections"
    ),
    Reason.INTERFACE_LOST: (
        "if it happens again, find the program that changes the interface, and take NET_ADMIN "
        "from its container"
    ),
    Reason.MOVED: WAIT,
    Reason.NOT_BUILT: "do what the detail says; `gateway doctor` collects what a report needs",
    Reason.NOT_RESOLVED: (
        "set WIREGUARD_ENDPOINT_IP to the server's address, or WIREGUARD_ENDPOINT_RESOLVER to a "
        "resolver that the gateway's own network can ask"
    ),
    Reason.NO_LIST: (
        "do what the detail says; `gateway servers update` can also fetch the list on another "
        "machine, for the volume at /config/servers"
    ),
    Reason.NOT_REGISTERED: "do what the detail says; or choose another server",
    Reason.LOGIN_REFUSED: (
        "correct OPENVPN_USER and OPENVPN_PASSWORD, or their secret files, then run "
        "`gateway reload`"
    ),
    Reason.MEASURING: WAIT,
    Reason.RETURNING: WAIT,
    Reason.RECONFIGURED: WAIT,
    Reason.REQUESTED: WAIT,
    Reason.PAUSED: (
        "resume it where it was paused, for example with PUT /v1/vpn/status of the control API, "
        "or restart the gateway"
    ),
    Reason.FIREWALL: "do what the detail says; `gateway doctor` collects what a report needs",
    Reason.DRIFT: (
        "stop the program that changes rules, routes or settings in this namespace, or take "
        "NET_ADMIN from its container"
    ),
    Reason.UNCHECKED: (
        "if it stays, raise what the container may use: pids_limit, mem_limit, ulimits"
    ),
    Reason.KEPT_DOWN: "give workloads `cap_drop: [NET_RAW]`, and restart the one that has it",
    Reason.ANSWERS: WAIT,
    Reason.RESOLVER_SILENT: (
        "set DNS_ADDRESS to a resolver that answers in the tunnel, such as the one in your "
        "provider's file"
    ),
    Reason.RESOLVER_DOWN: WAIT,
    Reason.STOPPING: WAIT,
    Reason.HUNG: (
        "run `gateway doctor` for a report, then restart the gateway: nothing opens meanwhile"
    ),
}
"""The remedy for each reason, WAIT where nothing is to be done."""


def remedy_of(status: Status) -> str:
    """Return what to do about the reason of `status`, "" if nothing.

    Where handshakes fail, the detail says it already, once there is a diagnosis.
    """
    reason, resolver = status.reason, status.resolver
    if reason is Reason.NO_HANDSHAKE and status.diagnosis:
        return WAIT
    if reason is Reason.RESOLVER_DOWN and resolver and resolver.remedy:
        return resolver.remedy
    return REMEDIES[reason]
