"""The control API as a service of the gateway: what it may know, and what it may ask for."""

from collections.abc import Callable

from gateway.control.messages import Order as Asked
from gateway.model import HostPort
from gateway.model.control import Control
from gateway.model.frozen import frozen
from gateway.policy.history import History
from gateway.policy.orders import EFFECTS, Order, Ordered, effect_of
from gateway.policy.report import Status
from gateway.policy.vpn_status import vpn_status
from gateway.services.control.service import ControlServer
from gateway.services.control.talk import Effect, Gateway

READ_AGAIN = Effect("reload", "the configuration is read again")


@frozen
class Tools:
    """What it takes, as `gateway.daemon.services.Tools` has it."""

    status: Callable[[], Status]
    history: Callable[[], History]
    clock: Callable[[], float]
    order: Callable[[Ordered], None]
    reload: Callable[[], None]


def control_server(address: HostPort, control: Control, tools: Tools) -> ControlServer:
    """Return the service that serves the control API at `address`."""

    def order(asked: Asked) -> Effect:
        """Ask the loop for something, and return what comes of it."""
        if asked is Asked.RELOAD:
            tools.reload()
            return READ_AGAIN
        wanted, status = Order(asked), tools.status()
        tools.order(Ordered(wanted))
        effect = effect_of(wanted, status.state, status.reason, status.candidate_count)
        return Effect(str(effect), EFFECTS[effect], effect.is_refused)

    def word() -> str:
        status = tools.status()
        return str(vpn_status(status.state, status.reason))

    gateway = Gateway(tools.status, word, tools.history, tools.clock, order)
    return ControlServer(address, control, gateway)
