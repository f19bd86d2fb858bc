"""The resolvers that the container was given, and the file in which workloads get others.

The container's engine names them in a file that workloads can write to: they have it mounted, also
across a restart of the gateway's container, which gets a new network namespace and the same file.
So they are copied at the first start to where no workload can reach, and the copy comes first.
"""

from contextlib import suppress

from gateway.errors import NetworkError, is_shortage
from gateway.model import Address, Secret
from gateway.policy import dns
from gateway.system.kept import KeptFile
from gateway.system.resolv import ResolverFile


class Given:
    """`found` are the resolvers that the container was given; `problem`: why they are not kept.

    The methods may wait for another process, so they are not for the loop.
    """

    def __init__(self, file: ResolverFile, kept: KeptFile) -> None:
        self._file = file
        self._kept = kept
        self._key = Secret("")
        self._is_to_be_kept = False
        self.found: tuple[Address, ...] = ()
        self.problem = ""

    def keep_first(self) -> None:
        """Keep what the file names, where neither it nor the copy is the gateway's already.

        For the first moment of a namespace in which no gateway has been: before the configuration
        is read, which may end the gateway as often as the engine starts it again.
        """
        with suppress(NetworkError):
            text = self._file.read()
            if self._kept.read() is None and dns.FOUND not in text:
                self._kept.write(dns.kept(dns.resolvers_in(text)))

    def take(self, key: Secret, *, first: bool) -> None:
        """Find the resolvers, and keep them. `first`: no gateway has been in this namespace.

        `key` seals them in the resolver file. Raises NetworkError when there is no copy and the
        file cannot be read.
        """
        self._key = key
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
        self._file.write(dns.resolv_conf(resolvers, self.found, self._key))

    def _keep(self) -> None:
        try:
            self._kept.write(dns.kept(self.found))
        except NetworkError as err:
            self.problem = str(err)
        else:
            self._is_to_be_kept = False
