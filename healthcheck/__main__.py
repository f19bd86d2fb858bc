"""Asks the gateway once whether it is healthy; prints one line and returns the exit code.

Docker starts this every few seconds for the life of the container, on machines where that shows
on the power bill. So it contains the little HTTP that it needs, and imports only what is compiled
into the interpreter: `socket`, `json` and `os` are written in Python and take as long to import as
everything else here together. The image starts the compiled file without `site` (Dockerfile).

It runs in the namespace that the workloads share, where any of them could listen on the gateway's
port while the gateway is gone. So a reply may be large, slow or malformed, and only one in the
gateway's own form counts as healthy.
"""

from _json import make_scanner
from _socket import AF_INET, AF_INET6, SOCK_STREAM, inet_pton, socket
from posix import _exit, environ
from time import monotonic

VARIABLE = "HEALTH_SERVER_ADDRESS"
DEFAULT = "127.0.0.1:9999"
TIME_LIMIT = 3.0  # seconds for everything, even if the reply comes byte by byte
LARGEST_REPLY = 65536  # bytes
LONGEST_LINE = 300  # characters
HIGHEST_PORT = 65535
ASK_INSTEAD = {
    "": "127.0.0.1",
    "localhost": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",  # noqa: S104 - an address to ask, nothing is bound
    "::": "::1",
}
"""The address to ask if the server listens on every address, or on localhost."""


class Grammar:
    """What the parser of `json` asks its decoder for: RFC 8259, and nothing on top of it."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> float:
        """Refuse NaN and Infinity, which `json` takes."""
        raise ValueError(name)


class Unhealthy(Exception):  # noqa: N818 - a verdict more than an error
    """The gateway is not healthy, or its reply is not valid; the text says why."""


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and port to ask for a listening address: `host:port`, `[v6]:port`, `:port`.

    Raises Unhealthy with the name of the variable. It refuses names other than localhost, because a
    resolver that does not answer could delay the check beyond its time limit.
    """
    host, colon, port = text.rpartition(":")
    family = AF_INET
    if host.startswith("[") and host.endswith("]"):
        family, host = AF_INET6, host[1:-1]
    host = ASK_INSTEAD.get(host, host)
    try:
        inet_pton(family, host)
        number = int(port) if port.isascii() and port.isdecimal() else 0
    except (OSError, ValueError):
        number = 0
    if not (colon and 0 < number <= HIGHEST_PORT):
        raise Unhealthy(
            f"{VARIABLE}: must be an address and a port, like 127.0.0.1:9999, [::1]:9999 or :9999,"
            f" got {text!r}"
        )
    return host, number


def ask(host: str, port: int, path: str = "/healthz", largest: int = LARGEST_REPLY) -> bytes:
    """Send GET for `path` and return the whole reply, head and body.

    Raises TimeoutError after TIME_LIMIT seconds in total, any OSError of the socket, and Unhealthy
    for a reply of more than `largest` bytes.
    """
    deadline = monotonic() + TIME_LIMIT
    family = AF_INET6 if ":" in host else AF_INET
    connection = socket(family, SOCK_STREAM)
    try:
        connection.settimeout(TIME_LIMIT)
        connection.connect((host, port))
        request = f"GET {path} HTTP/1.0\r\nHost: gateway\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        reply = b""
        while len(reply) <= largest:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            part = connection.recv(LARGEST_REPLY)
            if not part:
                return reply
            reply += part
    finally:
        connection.close()
    raise Unhealthy(f"the reply is longer than {largest} bytes")


def parse(body: bytes) -> object:
    """Return the value of a JSON text, as `json.loads` does with the same parser.

    Raises ValueError or RecursionError for anything else, NaN and other encodings than UTF-8
    included.
    """
    text = body.decode().strip(" \t\r\n")
    try:
        value, end = make_scanner(Grammar)(text, 0)  # type: ignore[arg-type]  # as JSONDecoder does
    except StopIteration as err:
        raise ValueError("no value") from err
    if end != len(text):
        raise ValueError("more than one value")
    return value


def judge(reply: bytes) -> str:
    """Return the state of a healthy gateway; raises Unhealthy with the state of any other."""
    head, _, body = reply.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    status = rest[:3]
    try:
        answer = parse(body)
    except (ValueError, RecursionError):
        answer = None
    if not version.startswith(b"HTTP/1.") or not isinstance(answer, dict) or "state" not in answer:
        raise Unhealthy("the reply is not the gateway's: does another program use this port?")
    summary = ": ".join(str(answer[key]) for key in ("state", "reason") if answer.get(key))
    if status != b"200":
        more = (answer.get(key) for key in ("detail", "remedy"))
        raise Unhealthy("; ".join([summary, *(str(it) for it in more if it)]))
    return summary


def check(address: str) -> str:
    """Return the state of the gateway that listens on `address`; raises Unhealthy."""
    host, port = parse_address(address)
    try:
        return judge(ask(host, port))
    except TimeoutError:
        reason = f"no answer within {TIME_LIMIT:g} s"
    except OSError as err:
        reason = f"{err.strerror or err}; is the gateway running? See its log"
    raise Unhealthy(f"{host} port {port}: {reason}")


def one_line(text: str) -> str:
    """Return `text` as one line for any log: printable ASCII, at most LONGEST_LINE characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    words = " ".join(printable.encode("ascii", "backslashreplace").decode().split())
    return words[:LONGEST_LINE]


def unquoted(text: str) -> str:
    """Return a variable's value without the quotes that a compose list leaves around it."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if quoted else text


def given_address() -> str:
    """Return where the server listens according to the environment."""
    given = environ.get(VARIABLE.encode(), b"")
    return unquoted(given.decode("utf-8", "backslashreplace")) or DEFAULT


def main() -> int:
    """Print the verdict and return the exit code for Docker: 0 healthy, 1 not."""
    try:
        summary = check(given_address())
    except Unhealthy as err:
        print(one_line(f"unhealthy: {err}"), flush=True)
        return 1
    print(one_line(f"healthy: {summary}"), flush=True)
    return 0


if __name__ == "__main__":
    _exit(main())  # without the destructors of the interpreter, a fifth of the time
