"""Routes and policy rules as data: what the gateway's own tables and range of priorities hold."""

from gateway.model import Address, Network, PortRange
from gateway.model.frozen import frozen
from gateway.policy import marks

TABLE_TUNNEL = 51820
"""The tunnel's table, which the gateway always owns."""


@frozen
class TableRoute:
    """A route in a table of the gateway's, `unreachable` without an interface; see ip-route(8)."""

    destination: Network
    table: int
    interface: str | None = None
    gateway: Address | None = None
    unreachable: bool = False
    metric: int = 0
    source: Address | None = None


@frozen
class PolicyRule:
    """A policy rule of ip-rule(8): packets that match every field that is not None use `table`.

    Only the bits in `fwmask` of a mark are compared. With `but_default` the table's default route
    is ignored (suppress_prefixlength 0), and the next rule is used instead.
    """

    family: int
    priority: int
    table: int
    why: str
    fwmark: int | None = None
    fwmask: int = marks.WHOLE
    source: Network | None = None
    destination: Network | None = None
    source_ports: PortRange | None = None
    but_default: bool = False


@frozen
class Routing:
    """Everything that the gateway's tables and its range of priorities should hold."""

    routes: tuple[TableRoute, ...]
    rules: tuple[PolicyRule, ...]

    @property
    def tables(self) -> tuple[int, ...]:
        """The tables that the gateway owns: they hold `routes` and nothing else."""
        return tuple(sorted({TABLE_TUNNEL} | {r.table for r in self.routes}))
