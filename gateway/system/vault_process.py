"""What `gateway vault` becomes once its namespace is closed: it opens things there for a gateway.

A program of its own, run as `python -I -S vault_process.py PLACE CLOSED LINK...`, as small as
`lock.waiting` and for the same reasons. It listens at PLACE, a unix socket in the vault's own file
system: workloads share only its network namespace, to which an abstract address would belong.
CLOSED is a descriptor of the closed rules as nft reads them.

A request is four C ints, the operation and its arguments, and a path for OPEN_FILE. The answer is
one int, 0 or an error number, with the descriptor that was asked for. The kernel checks the
capabilities of who opened a netlink socket and those of who uses it (net/netlink/af_netlink.c,
netlink_ns_capable), so this process keeps CAP_NET_ADMIN, and a gateway needs it too.

One connection at a time has the claim: a gateway's, as long as it lives. When it ends, every LINK
is deleted and the closed rules go in; until both have worked, there is no claim for another one.
The kernel's WireGuard would keep its link, without a carrier, and new connections would hang. The
same is done at SIGTERM and SIGINT.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import posix
import select
import sys
import time

OPEN_SOCKET, OPEN_FILE, NAMESPACE, CLAIM = 1, 2, 3, 4
"""A socket of (family, kind, protocol); a file of /proc with (flags); the namespace; the claim."""

INT = 4
REQUEST = 4 * INT
LONGEST = REQUEST + 4096
MOST_CONNECTIONS = 8
MOST_WAITING = 128
FILES = b"/proc/"

EPERM, EAGAIN, EBUSY, ENODEV, EINVAL = 1, 11, 16, 19, 22
RTM_DELLINK, IFLA_IFNAME, NLM_F_REQUEST_ACK = 17, 3, 5
HEADER, LINK_MESSAGE, ATTRIBUTE = 16, 16, 4
"""Numbers and lengths of rtnetlink(7)."""

TOOLS = ("/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft")
TOOL_SECONDS = 3.0
PAUSE = 0.002
RETRY_MILLISECONDS = 1000


class Vault:
    """The listening socket, the connections by descriptor, and which of them has the claim."""

    def __init__(self, place: str, closed: int, links: list[str]) -> None:
        """Listen at `place`. Raises OSError."""
        self.namespace = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        self.closed, self.links = closed, links
        self.connections: dict[int, _socket.socket] = {}
        self.claimant = 0
        self.is_closed = close(closed, links)
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.listener.bind(place)
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
        try:
            request = connection.recv(LONGEST)
            if len(request) < REQUEST:
                return False
            try:
                opened = self.opened(descriptor, request)
                number = 0
            except (OSError, ValueError) as err:
                number = getattr(err, "errno", None) or EINVAL
            rights = [] if opened is None else [opened.to_bytes(INT, sys.byteorder)]
            control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, right) for right in rights]
            connection.sendmsg([number.to_bytes(INT, sys.byteorder)], control, _socket.MSG_DONTWAIT)
        except OSError:
            return False
        finally:
            if opened is not None:
                posix.close(opened)
        return True

    def opened(self, descriptor: int, request: bytes) -> int | None:
        """Return a new descriptor of what is asked for. Raises OSError."""
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
        if operation != CLAIM:
            raise OSError(EINVAL, "no such operation")
        if self.claimant:
            raise OSError(EBUSY, "another gateway has it")
        if not self.is_closed:
            raise OSError(EAGAIN, "the vault is not closed yet")
        self.claimant = descriptor
        return None

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


def main() -> None:
    """Serve until a signal asks to stop; one that came while the namespace was closed counts."""
    place, closed, *links = sys.argv[1:]
    vault = Vault(place, int(closed), links)
    _signal.signal(_signal.SIGCHLD, reap)
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, vault.end)
    reap()
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGTERM, _signal.SIGINT})
    vault.serve()


if __name__ == "__main__":
    main()
