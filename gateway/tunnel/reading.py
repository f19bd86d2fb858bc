"""The WireGuard device of a gateway in another process, for who only looks at it."""

import asyncio

from gateway.errors import TunnelError, TunnelGone
from gateway.model import INTERFACE
from gateway.system.links import Links
from gateway.tunnel import kernel, uapi
from gateway.tunnel.conversation import Conversation
from gateway.tunnel.device import Device
from gateway.tunnel.userspace import ANSWER_TIME, SOCKETS


def device(links: Links) -> tuple[str, Device]:
    """Return which implementation has the tunnel's interface among `links`, and the device.

    Starts a loop of its own. Raises TunnelError, TunnelGone where there is no device.
    """
    path = SOCKETS / f"{INTERFACE}.sock"
    if not path.exists():
        if not kernel.available(links.netns):
            what = "wireguard-go does not run here, and the kernel has no WireGuard"
            raise TunnelGone(what, INTERFACE)
        return kernel.Kernel.name, kernel.Kernel(links).device()
    conversation = Conversation(path)
    try:
        answer = asyncio.run(asyncio.wait_for(conversation.ask(uapi.GET), ANSWER_TIME))
    except (OSError, EOFError, asyncio.LimitOverrunError, UnicodeDecodeError) as err:
        raise TunnelError("ask wireguard-go", f"{path} ({type(err).__name__})") from None
    finally:
        conversation.hang_up()
    return "userspace", uapi.parse(answer)
