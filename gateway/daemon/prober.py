"""Probes inside the tunnel: when one is due, and what came of it."""

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.daemon.ports import Parts
from gateway.model import Config
from gateway.policy.probing import Probe, probe_for
from gateway.policy.states import Connected, Probed
from gateway.policy.timing import Moment


class Prober:
    """Sends one probe at a time; `answers` are what came of them, `woken` hears of each."""

    def __init__(self, config: Config, parts: Parts, woken: Callable[[], None]) -> None:
        self._config = config
        self._parts = parts
        self._woken = woken
        self._sending: asyncio.Future[None] | None = None
        self._sent_at = 0.0
        self.answers: deque[Probed] = deque()

    def connected(self) -> None:
        """Let the next probe be due at once."""
        self._sent_at = 0.0

    def send_if_due(self, state: Connected, moment: Moment) -> None:
        """Send a probe when it is time, and none is under way; does not wait for it.

        Raises what the last one raised: nobody else would hear of it.
        """
        if self._sending is not None and self._sending.done():
            self._sending.result()
        now, timing = moment.now, moment.timing
        in_doubt = state.resolver_failures or state.pulse.is_in_doubt(moment)
        due_at = self._sent_at + (timing.probe_in_doubt if in_doubt else timing.probe_every)
        probe = probe_for(state.tunnel, self._config)
        if probe and now >= due_at and (self._sending is None or self._sending.done()):
            self._sent_at = now
            self._sending = asyncio.ensure_future(self._send(probe))

    async def _send(self, probe: Probe) -> None:
        answered = await self._parts.probe(probe)
        if probe.is_question and answered is not None:
            self.answers.append(Probed(answered))
            self._woken()
