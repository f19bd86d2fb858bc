"""What the supervisor reports: changes of state in the log, and a status for the health server."""

import logging
from collections import Counter
from dataclasses import replace

import structlog

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Parts
from gateway.model import Times
from gateway.policy.diagnosis import Diagnosis
from gateway.policy.leases import connection_of
from gateway.policy.limits import (
    Limit,
    limits_of_loss,
    limits_of_names,
    limits_of_path,
    limits_of_subnets,
)
from gateway.policy.listed import few, listed_holes
from gateway.policy.reload import Answer, Outcome
from gateway.policy.report import attempts, detail, diagnosis, endpoint, name, reason, status_of
from gateway.policy.resolvers import Finding, limits_of_resolvers_asked
from gateway.policy.retry import Setback
from gateway.policy.situation import Situation
from gateway.policy.states import Connected, Connecting, Reason, State, Stopping
from gateway.policy.tried import Tried, tried_after, with_latency
from gateway.policy.upstreams import described, upstreams_of

FEW = 2
"""How many attempts fail before the log explains it: a server may just be starting."""
REMIND_AFTER = 600.0
"""Seconds until it does so again."""


class Reporter:
    """Counts connections, losses and readings of the configuration.

    `limits` are those of the configuration. `verified_at` is when the kernel was last found as
    wanted, `counted_at` when refused packets were last counted on request.
    """

    def __init__(self, parts: Parts, kernel: Enforcement) -> None:
        self._parts = parts
        self._kernel = kernel
        self._log = structlog.get_logger()
        self._reconnects: Counter[str] = Counter()
        self._switches = 0
        self._served = ""
        self._reloads: Counter[str] = Counter()
        self._reload: Answer | None = None
        self._explained: dict[Diagnosis, float] = {}
        self._sizes: tuple[int | None, int | None] = None, None
        self._times: Times = ()
        self._tried: tuple[Tried, ...] = ()
        self._not_answering: tuple[Finding, ...] = ()
        self._lossy_at = float("-inf")
        self.limits = parts.adopt(kernel.config)
        self.verified_at: float | None = None
        self.counted_at: float | None = None

    def changed(self, before: State, after: State, now: float) -> None:
        """Log a change of state that is worth a line, count it, and start the user's command."""
        self._tried = tried_after(self._tried, before, after, now)
        self._carry(before, after)
        if _logged(before) == _logged(after):
            return
        self._log.info(
            "state changed",
            old=name(before),
            new=name(after),
            reason=str(reason(after)),
            detail=detail(after),
            endpoint=endpoint(after),
            seconds=round(now - before.since, 3),
        )
        if isinstance(after, Connected) and not isinstance(before, Connected):
            self._switches += self._served not in {"", endpoint(after)}
            self._served = endpoint(after)
            self._log_open(after)
            self._parts.hooks.up()
        if isinstance(before, Connected) and not isinstance(after, Connected):
            self._reconnects.update([reason(after)] if not isinstance(after, Stopping) else [])
            self._parts.hooks.down()

    def _carry(self, before: State, after: State) -> None:
        """Log which ports the server forwards now, and inform who depends on the connection."""
        was, now = connection_of(before), connection_of(after)
        if was == now:
            return
        ports = [it.port for it in now.leases] if now else []
        if now is not None and ports != ([it.port for it in was.leases] if was else []):
            self._log.info("forwarded ports", ports=ports)
        self._parts.carries(now)

    def _log_open(self, state: Connected) -> None:
        """Log what is open from now on: the tunnel, and the listed holes."""
        config = self._kernel.config
        self._log.info(
            "open",
            addresses=few(state.tunnel.addresses),
            implementation=self._parts.tunnel.name,
            mtu=self._sizes[0],
            resolvers=few([described((it,)) for it in upstreams_of(state.tunnel, config)]),
            lan=few((*config.outbound_subnets, *config.public_subnets)),
            input_ports=few(config.input_ports),
            tunnel_ports=few(config.vpn_input_ports),
        )

    def confirm(self, now: float) -> None:
        """Say that the last status is still true, and that the kernel was compared at `now`."""
        self.verified_at = now
        self._parts.confirm()

    def publish(self, situation: Situation, now: float, setback: Setback | None) -> None:
        """Give the health server the status of `situation` at `now`.

        `setback` is what keeps the kernel from being asked or changed.
        """
        parts, kernel, state = self._parts, self._kernel, situation.state
        self._answered(situation.reload)
        self._timed(situation)
        self._explain(state, now)
        self._measured(situation.mtu, situation.path_mtu)
        has_interface = isinstance(state, Connected) or (
            isinstance(state, Connecting) and state.built
        )
        mtu, path = self._sizes if has_interface else (None, None)
        sized = limits_of_path(state.tunnel, mtu, path) if isinstance(state, Connected) else ()
        named = limits_of_names(situation.names_problem)
        self._asked(situation)
        asked: tuple[Limit, ...] = ()
        lossy: tuple[Limit, ...] = ()
        if isinstance(state, Connected):
            asked = tuple(limits_of_resolvers_asked(situation.not_answering, state.tunnel))
            lossy = tuple(limits_of_loss(state.proof.loss))
            self._lost(lossy, now)
        near = limits_of_subnets(situation.config, kernel.facts)
        limits = (*parts.limits, *self.limits, *named, *asked, *near, *sized, *lossy)
        status = replace(
            status_of(state, now),
            firewall=parts.firewall.name,
            tunnel=parts.tunnel.name,
            drift=kernel.drift,
            verified_age=None if self.verified_at is None else now - self.verified_at,
            reconnects=tuple(self._reconnects.items()),
            switches=self._switches,
            candidates=with_latency(self._tried, situation.known_times),
            candidate_count=len(situation.config.tunnels),
            refused=kernel.refused,
            counted_at=self.counted_at,
            guard=parts.guard is not None,
            mtu=mtu,
            path_mtu=path,
            limits=limits,
            holes=listed_holes(state, situation.config, limits),
            reload=self._reload,
            reloads=tuple(self._reloads.items()),
        )
        if status.reason is Reason.RESOLVER_SILENT:
            status = replace(status, detail="; ".join(limit.text for limit in asked))
        if setback is not None:
            status = replace(status, healthy=False, reason=Reason.UNCHECKED, detail=setback.problem)
        elif kernel.drifted and status.healthy:
            # Reverted, but not yet seen to stay.
            status = replace(
                status, healthy=False, reason=Reason.DRIFT, detail="; ".join(kernel.drifted)
            )
        if kernel.kept_down:
            held = "; ".join(kernel.kept_down)
            status = replace(status, healthy=False, reason=Reason.KEPT_DOWN, detail=held)
        parts.publish(status)

    def _explain(self, state: State, now: float) -> None:
        """Log why handshakes fail, once FEW have, when that changes, and as a reminder."""
        found, failed = diagnosis(state), attempts(state)
        if isinstance(state, Connected):
            self._explained.clear()
        if found is None or failed < FEW:
            return
        if now - self._explained.get(found, float("-inf")) < REMIND_AFTER:
            return
        self._explained[found] = now
        self._log.warning(
            "no handshake", cause=str(found.cause), detail=found.text, attempts=failed
        )

    def _measured(self, mtu: int | None, path: int | None) -> None:
        """Log that packets vanish, once for each size that arrives."""
        if (mtu, path) == self._sizes:
            return
        before, self._sizes = self._sizes[0], (mtu, path)
        if mtu is None or path is None:
            return
        if before is not None and mtu < before:
            self._log.info("tunnel MTU lowered", old=before, new=mtu)
        if path < mtu:
            self._log.warning("packets vanish in the tunnel", mtu=mtu, arrives=path)

    def _lost(self, lossy: tuple[Limit, ...], now: float) -> None:
        """Log that packets are lost, and again REMIND_AFTER later if they still are."""
        for limit in lossy:
            if now - self._lossy_at >= REMIND_AFTER:
                self._lossy_at = now
                self._log.warning("packets are lost", problem=limit.text, remedy=limit.remedy)

    def _timed(self, situation: Situation) -> None:
        """Log how long the servers' handshakes took, and have that kept, once for each trial."""
        times = situation.times
        if times == self._times:
            return
        self._times = times
        fastest, seconds = min(times, key=lambda it: it[1])
        milliseconds = round(seconds * 1000, 1)
        self._log.info(
            "servers measured", answered=len(times), fastest=fastest, milliseconds=milliseconds
        )
        servers = tuple(it.endpoint_text for it in situation.config.tunnels)
        self._parts.remember(times, servers)

    def _asked(self, situation: Situation) -> None:
        """Log that resolvers do not answer, or do again, once for each change."""
        if situation.not_answering == self._not_answering:
            return
        self._not_answering, state = situation.not_answering, situation.state
        if not isinstance(state, Connected):
            return
        for limit in limits_of_resolvers_asked(situation.not_answering, state.tunnel):
            self._log.warning("resolver does not answer", problem=limit.text, remedy=limit.remedy)
        if not situation.not_answering:
            self._log.info("resolvers answer")

    def _answered(self, answer: Answer | None) -> None:
        """Log and count `answer`, if it is another one than the last."""
        if answer is None or answer is self._reload:
            return
        self._reload = answer
        self._reloads.update([answer.outcome])
        is_done = answer.outcome in {Outcome.ACCEPTED, Outcome.UNCHANGED}
        self._log.log(
            logging.INFO if is_done and not answer.needs_restart else logging.WARNING,
            "configuration read again",
            outcome=str(answer.outcome),
            changed=answer.changed,
            needs_restart=answer.needs_restart,
            problem="; ".join(f"{it.variable}: {it.problem}" for it in answer.faults),
        )


def _logged(state: State) -> tuple[str, ...]:
    """Return what makes a difference that is worth a line in the log."""
    return name(state), reason(state), endpoint(state)
