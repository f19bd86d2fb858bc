"""What `gateway vault` becomes once its namespace is closed: it opens things there for a gateway.

A program of its own, run as `python -I -S vault_process.py PLACE CLOSED LINKS USER WORD...`, as
small as `lock.waiting` and for the same reasons. It listens at PLACE, a unix socket in the vault's
own file system: workloads share only its network namespace, to which an abstract address would
belong. CLOSED is a descriptor of the closed rules as nft reads them, and LINKS are names with
commas. The WORDs are the command of a resolver that runs as USER, none where there is none.

A request is four C ints, the operation and its arguments, and a path for OPEN_FILE. The answer is
one int, 0 or an error number, with the descriptor that was asked for. The kernel checks the
capabilities of who opened a netlink socket and those of who uses it (net/netlink/af_netlink.c,
netlink_ns_capable), so this process keeps CAP_NET_ADMIN, and a gateway needs it too. It keeps no
other one: to reach its files, a gateway needs all that it has (security/commoncap.c,
cap_ptrace_access_check). What it starts gets those of its bounding set.

A request for RESOLVER comes with the descriptors that it is started with, and a byte for each: the
number that it gets there. Its answer has a socket, with which `vault_keeper` deals. Without
descriptors nothing is started: it only says whether it could be.

One connection at a time has the claim: a gateway's, as long as it lives. When it ends, all LINKS
are deleted and the closed rules go in; until both have worked, no other gateway can claim it.
The kernel's WireGuard would keep its link, without a carrier, and new connections would hang. The
same is done at SIGTERM and SIGINT.
"""

import _ctypes
import _signal  # type: ignore[import-not-found]
import _socket
import posix
import select
import sys
import time

OPEN_SOCKET, OPEN_FILE, NAMESPACE, CLAIM, RESOLVER = 1, 2, 3, 4, 5
"""A socket of (family, kind, protocol); a file of /proc with (flags); the namespace; the claim; a
resolver that runs as (user)."""

INT = 4
REQUEST = 4 * INT
LONGEST = REQUEST + 4096
MOST_CONNECTIONS = 8
MOST_WAITING = 128
FILES = b"/proc/"

CHANNEL = 40
"""The descriptor of the keeper's socket. Those of a resolver have greater numbers, or that of its
output: no descriptor has both an old and a new number as large."""
MOST_DESCRIPTORS = 8

EPERM, ENOENT, EAGAIN, EBUSY, ENODEV, EINVAL = 1, 2, 11, 16, 19, 22
CAPABILITY_VERSION, NET_ADMIN = 0x20080522, 12
"""linux/capability.h."""
RTM_DELLINK, IFLA_IFNAME, NLM_F_REQUEST_ACK = 17, 3, 5
HEADER, LINK_MESSAGE, ATTRIBUTE = 16, 16, 4
"""Numbers and lengths of rtnetlink(7)."""

TOOLS = ("/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft")
TOOL_SECONDS = 3.0
PAUSE = 0.002
RETRY_MILLISECONDS = 1000


class Vault:
    """The listening socket, the connections by descriptor, and which of them has the claim."""

    def __init__(
        self, place: str, closed: int, links: list[str], user: int, resolver: list[str]
    ) -> None:
        """Listen at `place`; `resolver` is a command that runs as `user`. Raises OSError."""
        self.namespace = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        self.closed, self.links = closed, links
        self.user, self.resolver = user, resolver
        self.connections: dict[int, _socket.socket] = {}
        self.claimant = 0
        self.is_closed = close(closed, links)
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.listener.bind(place)
        posix.chmod(place, 0o600)
        self.listener.listen(MOST_WAITING)
        self.poll = select.poll()
        self.poll.register(self.listener.fileno(), select.POLLIN)

    def serve(self) -> None:
        """Accept and answer, for ever."""
        while True:
            for descriptor, _ in self.poll.poll(None if self.is_closed else RETRY_MILLISECONDS):
                if descriptor == self.listener.fileno():
                    self.accept()
                elif not self.answered(descriptor):
                    self.hang_up(descriptor)
            if not self.is_closed:
                self.is_closed = close(self.closed, self.links)

    def accept(self) -> None:
        """Take a new connection, if there are not too many."""
        try:
            descriptor, _ = self.listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:
            return
        connection = _socket.socket(fileno=descriptor)
        if len(self.connections) < MOST_CONNECTIONS:
            self.connections[descriptor] = connection
            self.poll.register(descriptor, select.POLLIN)
        else:
            connection.close()

    def answered(self, descriptor: int) -> bool:
        """Answer the next request of a connection; return whether it is still of use."""
        connection = self.connections[descriptor]
        opened: int | None = None
        given: list[int] = []
        try:
            request = received(connection, given)
            if len(request) < REQUEST:
                return False
            try:
                opened = self.opened(descriptor, request, given)
                number = 0
            except (OSError, ValueError) as err:
                number = getattr(err, "errno", None) or EINVAL
            rights = [] if opened is None else [opened.to_bytes(INT, sys.byteorder)]
            control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, right) for right in rights]
            connection.sendmsg([number.to_bytes(INT, sys.byteorder)], control, _socket.MSG_DONTWAIT)
        except OSError:
            return False
        finally:
            for number in given if opened is None else (*given, opened):
                posix.close(number)
        return True

    def opened(self, descriptor: int, request: bytes, given: list[int]) -> int | None:
        """Return a new descriptor of what is asked for, with those `given`. Raises OSError."""
        operation, *numbers = memoryview(request[:REQUEST]).cast("i").tolist()
        if operation == OPEN_SOCKET:
            return _socket.socket(*numbers).detach()
        if operation == OPEN_FILE:
            path = request[REQUEST:]
            if not path.startswith(FILES) or b"/../" in path:
                raise OSError(EPERM, "not a file of /proc")
            return posix.open(path, numbers[0] | posix.O_CLOEXEC)
        if operation == NAMESPACE:
            return posix.dup(self.namespace)
        if operation == RESOLVER:
            return self.started(numbers[0], request[REQUEST:], given)
        if operation != CLAIM:
            raise OSError(EINVAL, "no such operation")
        if self.claimant:
            raise OSError(EBUSY, "another gateway has it")
        if not self.is_closed:
            raise OSError(EAGAIN, "the vault is not closed yet")
        self.claimant = descriptor
        return None

    def started(self, user: int, targets: bytes, given: list[int]) -> int | None:
        """Start the resolver as `user`, with the descriptors `given` as `targets`.

        Return the socket of its keeper, None if none is given. Raises OSError.
        """
        if not self.resolver:
            raise OSError(ENOENT, "no resolver is installed")
        if user != self.user:
            raise OSError(EPERM, "it cannot run as that user")
        if not given:
            return None
        if len(given) != len(targets) or not set(targets).isdisjoint(given):
            raise OSError(EINVAL, "no number for each descriptor")
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            wiring = [
                (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
                (posix.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL),
                *((posix.POSIX_SPAWN_DUP2, it, to) for it, to in zip(given, targets, strict=True)),
            ]
            argv, none_blocked = self.resolver, ()
            posix.posix_spawn(argv[0], argv, {}, file_actions=wiring, setsigmask=none_blocked)
            return ours.detach()
        finally:
            theirs.close()
            ours.close()

    def end(self, *_: object) -> None:
        """Close the namespace, if a gateway has it, and end at once."""
        try:
            if self.claimant or not self.is_closed:
                close(self.closed, self.links)
        finally:
            posix._exit(0)  # noqa: SLF001 - not private, and nothing is left to be done

    def hang_up(self, descriptor: int) -> None:
        """Forget a connection; if it had the claim, the vault is to be closed."""
        self.poll.unregister(descriptor)
        self.connections.pop(descriptor).close()
        if descriptor == self.claimant:
            self.claimant, self.is_closed = 0, False


def received(connection: _socket.socket, given: list[int]) -> bytes:
    """Return a request, and add the descriptors that came with it to `given`. Raises OSError."""
    most, flags = _socket.CMSG_SPACE(INT * MOST_DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC
    request, control, _, _ = connection.recvmsg(LONGEST, most, flags)
    for _, kind, data in control:
        if kind == _socket.SCM_RIGHTS:
            given += memoryview(data[: len(data) // INT * INT]).cast("i").tolist()
    return request


def close(closed: int, links: list[str]) -> bool:
    """Delete `links`, then put the closed rules into force; return whether all of it worked."""
    try:
        deleted = [delete(link) in {0, ENODEV} for link in links]
        return load(closed) and all(deleted)
    except OSError:
        return False


def delete(link: str) -> int:
    """Delete the link `link`; return the kernel's answer, 0 or an error number. OSError."""
    name = link.encode() + b"\0"
    attribute = numbers((ATTRIBUTE + len(name), 2), (IFLA_IFNAME, 2)) + name
    body = bytes(LINK_MESSAGE) + attribute + bytes(-len(name) % 4)
    head = numbers((HEADER + len(body), 4), (RTM_DELLINK, 2), (NLM_F_REQUEST_ACK, 2), (1, 4))
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    try:
        channel.send(head + bytes(INT) + body)
        answer = channel.recv(LONGEST, _socket.MSG_DONTWAIT)
    finally:
        channel.close()
    return -int.from_bytes(answer[HEADER : HEADER + INT], sys.byteorder, signed=True)


def numbers(*pairs: tuple[int, int]) -> bytes:
    """Return each number as so many bytes."""
    return b"".join(number.to_bytes(length, sys.byteorder) for number, length in pairs)


def load(closed: int) -> bool:
    """Have nft load the rules of the descriptor `closed`; return whether it did. OSError."""
    # Opened again, because a signal may have them loaded meanwhile: each needs a position in it.
    text = posix.open(f"/proc/self/fd/{closed}", posix.O_RDONLY | posix.O_CLOEXEC)
    actions = [(posix.POSIX_SPAWN_DUP2, text, 0)]
    # Until its status is known, nothing else may wait for it.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGCHLD})
    try:
        for tool in TOOLS:
            try:
                pid = posix.posix_spawn(tool, (tool, "-f", "-"), {}, file_actions=actions)
            except FileNotFoundError:
                continue
            return status_of(pid) == 0
    finally:
        posix.close(text)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGCHLD})
    return False


def status_of(pid: int) -> int:
    """Return how a child ended; it is killed after TOOL_SECONDS."""
    deadline = time.monotonic() + TOOL_SECONDS
    while not (ended := posix.waitpid(pid, posix.WNOHANG))[0]:
        if time.monotonic() > deadline:
            posix.kill(pid, _signal.SIGKILL)
            return posix.waitpid(pid, 0)[1]
        time.sleep(PAUSE)
    return ended[1]


def reap(*_: object) -> None:
    """Reap every process that has ended: process 1 inherits those of others."""
    try:
        while posix.waitpid(-1, posix.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def keep_one_capability() -> None:
    """Keep CAP_NET_ADMIN alone of the capabilities (capset(2)). Raises OSError."""
    head = numbers((CAPABILITY_VERSION, INT), (0, INT))
    kept = numbers((1 << NET_ADMIN, INT), (1 << NET_ADMIN, INT)) + bytes(4 * INT)
    capset = _ctypes.dlsym(_ctypes.dlopen(None, 0), "capset")  # type: ignore[arg-type]
    if _ctypes.call_function(capset, (head, kept)):
        raise OSError(EPERM, "give up capabilities")


def main() -> None:
    """Serve until a signal asks to stop; one that came while the namespace was closed counts."""
    place, closed, links, user, *resolver = sys.argv[1:]
    keep_one_capability()
    vault = Vault(place, int(closed), links.split(","), int(user), resolver)
    _signal.signal(_signal.SIGCHLD, reap)
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, vault.end)
    reap()
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGTERM, _signal.SIGINT})
    vault.serve()


if __name__ == "__main__":
    main()
