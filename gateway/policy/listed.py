"""The holes that a configuration lists, for reports: which ones there are, and which are open."""

from collections.abc import Collection
from itertools import islice

from gateway.model import Config
from gateway.policy.holes import open_in
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.report import Hole, HoleKind
from gateway.policy.states import Connected, Connecting, State
from gateway.policy.upstreams import described, upstreams_of

MOST_LISTED = 8
"""How many entries of a list are reported, in the health answer and in the log."""


def few(listed: Collection[object]) -> list[str]:
    """Return the first MOST_LISTED as texts, and how many more there are."""
    shown = [str(it) for it in islice(listed, MOST_LISTED)]
    more = len(listed) - len(shown)
    return [*shown, *([f"and {more} more"] if more > 0 else [])]


def listed_holes(state: State, config: Config, limits: Collection[Limit]) -> tuple[Hole, ...]:
    """Return the holes of `config`, and which of them `state` opens on a machine with `limits`.

    The resolvers are those that workloads ask, or that the gateway's own resolver asks for them;
    none before a server is chosen.
    """
    now, _ = open_in(state, config)
    tunnel = state.tunnel if isinstance(state, Connecting | Connected) else None
    has_tunnel = isinstance(state, Connected)
    outside = all(it.code is not LimitCode.NO_HOLES for it in limits)
    asked = [described((it,)) for it in upstreams_of(tunnel, config)] if tunnel else []
    subnets = (*config.outbound_subnets, *config.public_subnets)
    return (
        _hole(HoleKind.RESOLVERS, asked, is_open=has_tunnel),
        _hole(HoleKind.LAN, subnets, is_open=has_tunnel and outside),
        _hole(HoleKind.INPUT_PORTS, config.input_ports, is_open=bool(now.input_ports) and outside),
        _hole(HoleKind.TUNNEL_PORTS, config.vpn_input_ports, is_open=has_tunnel),
    )


def _hole(kind: HoleKind, listed: Collection[object], *, is_open: bool) -> Hole:
    return Hole(kind, tuple(few(listed)), is_open and bool(listed))
