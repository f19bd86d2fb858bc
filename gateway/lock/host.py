"""Whether this is the host's own network namespace, which is locked only on request.

With `network_mode: host` a gateway would cut the whole machine off: its user, who has connected by
SSH, too. The kernel registers some settings of net.core for its first namespace alone
(net/core/sysctl_net_core.c, net_core_table); a container's namespace does not have them.
"""

import os

HOST_ONLY = "/proc/sys/net/core/netdev_budget"
VARIABLE = "PORTCULLIS_HOST"
ON = {"on", "true", "yes", "1"}

REFUSED = f"""\
This is the network namespace of the host, and not one of a container: locking it would cut off the
whole machine, with SSH. Nothing has been changed. Remove `network_mode: host` (Podman, docker run:
--network host; Kubernetes: hostNetwork) from the gateway, and attach workloads to it with
`network_mode: service:gateway`. If you want the whole machine behind the gateway, set
{VARIABLE}=on."""


def is_refused() -> bool:
    """Return whether the namespace is the host's and the user has not asked for that."""
    wanted = os.environ.get(VARIABLE, "").strip().lower() in ON  # noqa: TID251 - before settings
    return os.path.exists(HOST_ONLY) and not wanted  # noqa: PTH110 - pathlib takes time to import
