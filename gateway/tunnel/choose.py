"""The choice between the implementations of WireGuard."""

from gateway.errors import MissingError
from gateway.model import INTERFACE, Implementation
from gateway.system.links import Links
from gateway.tunnel import TunnelBackend, kernel, userspace


def choose(
    wanted: Implementation, links: Links | None = None, origin: Links | None = None
) -> TunnelBackend:
    """Return the implementation that is `wanted`; for `auto` the kernel's if it has one.

    Its interface is one of `links`. Its encrypted socket is in the namespace of `origin`, by
    default in the same one. Only its absence leads from one to the other.
    Raises MissingError with the remedy when there is none, and TunnelError when the kernel cannot
    be asked.
    """
    links = links or Links(INTERFACE)
    origin = links if origin is None or origin.netns is links.netns else origin
    if wanted is not Implementation.USERSPACE and kernel.available(origin.netns):
        return kernel.Kernel(links, origin)
    if wanted is Implementation.KERNELSPACE:
        raise MissingError(
            "the kernel has no WireGuard",
            "load its module on the host (modprobe wireguard), or set "
            "WIREGUARD_IMPLEMENTATION=auto",
        )
    try:
        userspace.check()
    except MissingError as err:
        if wanted is Implementation.USERSPACE:
            raise
        raise MissingError(
            f"the kernel has no WireGuard, and {err.missing}",
            f"{err.remedy}; or load the module on the host: modprobe wireguard",
        ) from err
    return userspace.Userspace(links, origin)
