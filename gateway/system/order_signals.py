"""The signals for what may be asked of the running gateway; nothing else uses these numbers."""

import signal

from gateway.policy.orders import Order

SIGNALS: dict[Order, int] = {
    Order.PAUSE: signal.SIGRTMIN + 1,
    Order.RESUME: signal.SIGRTMIN + 2,
    Order.RECONNECT: signal.SIGRTMIN + 3,
    Order.NEXT: signal.SIGRTMIN + 4,
}
"""They are blocked like those that stop the gateway (`gateway.__main__`), until there is a loop."""
