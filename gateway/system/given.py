"""The resolvers that the container was given, and the file in which workloads get others.

The container's engine names them in a file that workloads can write to: they have it mounted, also
across a restart of the gateway's container, which gets a new network namespace and the same file.
So they are copied at the first start to where no workload can reach, and the copy comes first.
Where `gateway hold` owns the namespace, the gateway's container may be newer than the namespace, so
`hold` notes them in the namespace itself.
"""

from contextlib import suppress
from typing import Protocol

from gateway.errors import NetworkError, is_shortage
from gateway.model import Address, Secret
from gateway.policy import dns
from gateway.system.kept import KeptFile
from gateway.system.resolv import ResolverFile

NOTE = "resolvers given to this namespace"
"""The title of the note in which `gateway hold` passes them on to a gateway's container."""


class Note(Protocol):
    """A text that belongs to the namespace, and that no workload can change."""

    def read(self) -> str | None:
        """Return the text, None if there is none. Raises NetworkError."""

    def write(self, text: str) -> None:
        """Replace it by `text`. Raises NetworkError."""


class Given:
    """`found` are the resolvers that the container was given; `problem`: why they are not kept.

    The methods may wait for another process, so they are not for the loop.
    """

    def __init__(self, file: ResolverFile, kept: KeptFile, note: Note) -> None:
        self._file = self._target = file
        self._kept = kept
        self._note = note
        self._key = Secret("")
        self._is_to_be_kept = False
        self.found: tuple[Address, ...] = ()
        self.problem = ""

    def write_to(self, target: ResolverFile) -> None:
        """Give workloads theirs in `target`, and leave the container's own file as it is."""
        self._target = target

    def keep_first(self) -> None:
        """Keep what the file names, where neither it nor the copy is the gateway's already.

        For the first moment of a namespace in which no gateway has been: before the configuration
        is read, which may end the gateway as often as the engine starts it again.
        """
        with suppress(NetworkError):
            text = self._file.read()
            if self._kept.read() is None and dns.FOUND not in text:
                self._kept.write(dns.kept(dns.resolvers_in(text)))

    def pass_on(self) -> None:
        """Note in the namespace what the file named at first, for gateways that start here later.

        To be called after `keep_first`. Without a copy, only Docker's own resolver is believed.
        """
        try:
            copy = self._kept.read()
        except NetworkError:
            copy = None
        if copy is None:
            named = dns.resolvers_in(self._file.read())
            copy = dns.kept(it for it in named if it == dns.DOCKER_RESOLVER)
        if copy:
            self._note.write(" ".join(copy.split()))

    def take(self, key: Secret, *, first: bool) -> None:
        """Find the resolvers, and keep them. `first`: no gateway has been in this namespace.

        `key` seals them in the resolver file. Raises NetworkError when there is no copy and the
        file cannot be read. A note of `hold` comes before the container's own copy: the namespace
        may be newer than the container.
        """
        self._key = key
        noted = self._note.read()
        if noted is not None:
            self._is_to_be_kept = False
            self.found = dns.resolvers_kept(noted)
            return
        try:
            copy = self._kept.read()
        except NetworkError as err:
            if is_shortage(err):
                raise
            self._is_to_be_kept = False
            self.problem = str(err)
            self.found = dns.resolvers_found(self._file.read(), key, first=first, kept=False)
            return
        if copy is not None:
            self._is_to_be_kept = False
            self.found = dns.resolvers_kept(copy)
            return
        text = self._file.read()
        self.found = dns.resolvers_found(text, key, first=first, kept=True)
        self._is_to_be_kept = True
        self._keep()
        if self._is_to_be_kept:
            self.found = dns.resolvers_found(text, key, first=first, kept=False)

    def seal_with(self, key: Secret) -> None:
        """Seal the resolver file with `key` when it is written next."""
        self._key = key

    def write(self, resolvers: tuple[Address, ...]) -> None:
        """Give workloads `resolvers`; raises NetworkError.

        What could not be kept before is tried again: what the file names at the next start may be a
        workload's, and a copy keeps it from being believed.
        """
        if self._is_to_be_kept:
            self._keep()
        self._target.write(dns.resolv_conf(resolvers, self.found, self._key))

    def _keep(self) -> None:
        try:
            self._kept.write(dns.kept(self.found))
        except NetworkError as err:
            self.problem = str(err)
        else:
            self._is_to_be_kept = False
