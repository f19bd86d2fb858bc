"""Fetches the lists of blocked names that the user names, through the tunnel, from time to time.

Apart from the loop: nothing waits for it, and the copy that is there stays in use. The names of the
hosts are looked up by the gateway's own resolver, and the connections are bound to the tunnel's
interface.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from gateway.daemon.refreshing import AnyResolver, at_any_address
from gateway.errors import GatewayError
from gateway.model import INTERFACE, Address, Errand
from gateway.model.frozen import frozen
from gateway.model.name_server import BlockFile, BlockList, NameServer
from gateway.policy.reports import ListReport
from gateway.policy.states import Transfer
from gateway.policy.upstreams import OURS
from gateway.services.fetching.block_lists import BlockListFetcher, Fetched
from gateway.services.fetching.lists import AnswerError
from gateway.system.lookup import EndpointLookup
from gateway.system.netns import Netns

LOOK_EVERY = 1.0
"""Seconds between two looks whether the tunnel is up and names resolve, once a list is due."""
TIME_LIMIT = 120.0
"""Seconds for one attempt: the tunnel may be slow."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds until the next attempt after one that failed; each time twice as long."""
LONGEST_SLEEP = 3600.0
"""Seconds until the next look at the clock, which does not halt while the machine is suspended."""


class ListHosts(Protocol):
    """Fetches one list at a time."""

    def open(self, errand: Errand, server: Address) -> Transfer:
        """Make the socket. Raises GatewayError."""

    async def fetch_names(self, listed: BlockList) -> Fetched:
        """Fetch a list through it, and keep it in a file.

        Raises GatewayError and OSError; AnswerError if the host's answer is not to be used.
        """


@frozen
class Tools:
    """What it takes; `is_up` says whether the tunnel carries traffic and names resolve.

    `block` has the names in the files blocked from then on, and returns whether they are; `blocks`
    says whether those of a file are now.
    """

    resolver: AnyResolver
    hosts: ListHosts
    is_up: Callable[[], bool]
    block: Callable[[tuple[BlockFile, ...]], Awaitable[bool]]
    blocks: Callable[[BlockFile], bool]
    clock: Callable[[], float]


@dataclass
class _State:
    """What is known of a list: its copy, when it is due, and why the last try failed."""

    listed: BlockList
    file: BlockFile | None
    due_at: float
    digest: bytes = b""
    failures: int = 0
    problem: str = ""


class BlockLists:
    """The lists of `server`, each with its last copy."""

    def __init__(self, server: NameServer, tools: Tools) -> None:
        self._tools = tools
        self._period = server.update_period or float("inf")
        now = tools.clock()
        self._states = [
            _State(it, it.kept, now + self._period - age_of(it.kept) if it.kept else now)
            for it in server.lists
        ]

    @property
    def files(self) -> tuple[BlockFile, ...]:
        """The copies that there are."""
        return tuple(it.file for it in self._states if it.file)

    def report(self, names: Mapping[str, int]) -> tuple[ListReport, ...]:
        """Return what is known of each list, from any thread; `names` are numbers by file."""
        return tuple(
            ListReport(
                it.listed.shown,
                names.get(it.file.path, 0) if it.file else 0,
                round(age_of(it.file)) if it.file else None,
                it.problem,
            )
            for it in self._states
        )

    async def run(self) -> None:
        """Fetch each list when it is due, until cancelled."""
        while True:
            state = min(self._states, key=lambda it: it.due_at)
            wait = state.due_at - self._tools.clock()
            if wait > 0:
                await asyncio.sleep(min(wait, LONGEST_SLEEP))
            elif not self._tools.is_up():
                await asyncio.sleep(LOOK_EVERY)
            else:
                await self._attempt(state)

    async def _attempt(self, state: _State) -> None:
        """Fetch a list, and have its names blocked; or keep the copy, and note why."""
        listed, log = state.listed, structlog.get_logger()
        try:
            async with asyncio.timeout(TIME_LIMIT):
                fetched = await self._fetched(listed)
        except TimeoutError:
            problem = f"not done after {TIME_LIMIT:g} s"
        except (GatewayError, OSError, MemoryError) as err:
            problem = str(err) or type(err).__name__
            problem = problem.removesuffix(f": {listed.host}").removesuffix(f": {listed.url}")
            problem = problem.replace(listed.url, listed.shown)
        else:
            state.problem, state.failures = "", 0
            state.due_at = self._tools.clock() + self._period
            await self._use(state, fetched)
            return
        pause = min(LONGEST_PAUSE, self._period, FIRST_PAUSE * 2.0 ** min(state.failures, 10))
        state.problem, state.failures = problem, state.failures + 1
        state.due_at = self._tools.clock() + pause
        log.warning(
            "could not fetch list of blocked names",
            url=listed.shown,
            problem=problem,
            again_in=pause,
        )

    async def _use(self, state: _State, fetched: Fetched) -> None:
        """Have the names of a list blocked, unless it is the same as before, and they are.

        The copy may have been out of reach when the resolver has begun again.
        """
        is_same = fetched.digest == state.digest
        state.file, state.digest = fetched.file, fetched.digest
        log = structlog.get_logger()
        log.info("list of blocked names fetched", url=state.listed.shown, changed=not is_same)
        if is_same and self._tools.blocks(fetched.file):
            return
        if not await self._tools.block(self.files):
            state.digest = b""

    async def _fetched(self, listed: BlockList) -> Fetched:
        async def at(address: Address) -> Fetched:
            self._tools.hosts.open(listed, address)
            return await self._tools.hosts.fetch_names(listed)

        return await at_any_address(listed, self._tools.resolver, at, final=AnswerError)


def age_of(file: BlockFile) -> float:
    """Return how old a copy is, in seconds by the wall clock; one from the future is new."""
    return max(0.0, time.time() - file.changed / 1e9)


def through_tunnel(
    server: NameServer,
    environ: Mapping[str, str],
    netns: Netns,
    tools: Callable[[AnyResolver, ListHosts], Tools],
) -> BlockLists:
    """Return the lists of `server`, fetched out of `netns` through the tunnel."""
    hosts = BlockListFetcher(environ, netns, device=INTERFACE)
    return BlockLists(server, tools(EndpointLookup(OURS, netns), hosts))
