"""What keeps the resolver of a vault: it starts the program, signals it, and says how it ended.

A program of its own, run by `vault_process` as `python -I -S vault_keeper.py CHANNEL PROGRAM
ARGUMENT...`, with nothing imported but what the interpreter has built in. CHANNEL is the descriptor
of a socket whose other end a gateway has. A byte that arrives is the number of a signal for the
program. When the other end is closed, as when the gateway ends, the program is killed. Its status,
as waitpid(2) returns it, is sent as one C int, and then this process ends.

The vault cannot do that itself: a signal to a process of another user takes CAP_KILL, which it may
not keep (see `vault_process`). The program asks to be killed when this process ends.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import posix
import select
import sys

INT = 4
MANY = 512


def main() -> None:
    """Start the program, and stay until it has ended."""
    number, *argv = sys.argv[1:]
    channel = _socket.socket(fileno=int(number))
    posix.set_inheritable(channel.fileno(), False)
    woken, wakes = posix.pipe()
    posix.set_blocking(wakes, False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(wakes)
    pid = posix.posix_spawn(argv[0], argv, {})
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(woken, select.POLLIN)
    while not (ended := posix.waitpid(pid, posix.WNOHANG))[0]:
        for descriptor, _ in poll.poll():
            if descriptor == woken:
                posix.read(woken, MANY)
            elif not passed_on(channel, pid):
                poll.unregister(descriptor)
    report(channel, ended[1])


def report(channel: _socket.socket, status: int) -> None:
    """Send how the program ended; the gateway may have ended before."""
    try:
        channel.sendmsg([status.to_bytes(INT, sys.byteorder)], [], _socket.MSG_NOSIGNAL)
    except OSError:
        return


def passed_on(channel: _socket.socket, pid: int) -> bool:
    """Send the signal that arrives; return whether the other end is still open."""
    try:
        numbers = channel.recv(1)
    except OSError:
        numbers = b""
    posix.kill(pid, numbers[0] if numbers else _signal.SIGKILL)
    return bool(numbers)


if __name__ == "__main__":
    main()
