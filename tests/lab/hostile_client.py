"""A "torrent client" that answers as no client should, one manner after the other.

    python hostile_client.py PORT

It reads the manner of its next answers from standard input, a line each, and says "as MANNER" once
it answers so. Standard library only. It ends when standard input closes.
"""

import socket
import sys
import threading
import time

PART = b"x" * 65536
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
manner = "slow"


def answer(connection: socket.socket) -> None:
    """Answer the requests of one connection."""
    with connection:
        try:
            while request(connection):
                MANNERS[manner](connection)
        except OSError:
            return


def request(connection: socket.socket) -> bool:
    """Read one request; return whether there was one."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            return False
        head += part
    return True


def whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an answer."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def endless(connection: socket.socket) -> None:
    """Send a body without end."""
    connection.sendall(OK + b"\r\n")
    while True:
        connection.sendall(PART)


def heads(connection: socket.socket) -> None:
    """Send headers without end."""
    connection.sendall(OK)
    while True:
        connection.sendall(b"X-More: " + b"y" * 1000 + b"\r\n")


def slow(connection: socket.socket) -> None:
    """Send an octet now and then."""
    connection.sendall(OK + b"Content-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.5)


def redirect(connection: socket.socket) -> None:
    """Lead elsewhere."""
    place = b"http://127.0.0.1:9999/healthz"
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place)


MANNERS = {
    "endless": endless,
    "heads": heads,
    "slow": slow,
    "redirect": redirect,
    "deep": lambda it: it.sendall(whole(b"[" * 200000)),
    "number": lambda it: it.sendall(whole(b'{"listen_port": ' + b"9" * 200000 + b"}")),
    "types": lambda it: it.sendall(whole(b'{"listen_port": {"a": 1}}')),
    "garbage": lambda it: it.sendall(b"\x00\xff\r\n\r\n" * 100),
    "control": lambda it: it.sendall(whole(b"no", b"500 \x1b[31mred\x1b[0m")),
    "forbidden": lambda it: it.sendall(whole(b"no", b"403 Forbidden")),
    "agrees": lambda it: it.sendall(
        whole(b'{"listen_port": 51500, "random_port": false, "upnp": false}')
    ),
}


def accept(listener: socket.socket) -> None:
    """Answer each connection on a thread of its own."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def main() -> None:
    """Serve until standard input closes."""
    global manner  # noqa: PLW0603 - the one thing that changes
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        manner = line.strip()
        print(f"as {manner}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
