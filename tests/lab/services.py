"""Hosts of the lab: an echo that tells the client its address, the same by HTTP, and a resolver.

    python services.py JSON

JSON is a list of services, each an object with `kind` (echo, http or dns), `address`, `port`
and, for dns, `answers` (record type to addresses, by comma). Every arrival is one JSON line on
standard output, after the line "ready". A program of its own, standard library only, so that it
also runs in a guest or a container. It ends when standard input closes.

- echo, TCP: the first line is "ADDRESS PORT" of the client, then everything comes back.
- echo, UDP: the answer is "ADDRESS PORT " and what was sent.
- http: the body is the client's address and a line feed.
- dns, UDP and TCP: answers every name with the addresses for the type asked, or with nothing.
"""

import asyncio
import ipaddress
import json
import socket
import struct
import sys
import time
from typing import Any

TYPES = {1: "A", 28: "AAAA", 16: "TXT", 5: "CNAME", 255: "ANY", 65: "HTTPS"}


def note(**event: object) -> None:
    """Write one event."""
    sys.stdout.write(json.dumps({"at": time.monotonic(), **event}) + "\n")
    sys.stdout.flush()


def plain(address: str) -> str:
    """Return an address without zone and without the mapping of IPv4 into IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def dns_question(query: bytes) -> tuple[str, str, bytes]:
    """Return name, type and the raw question section of a query (RFC 1035, 4.1.2)."""
    labels = []
    position = 12
    while query[position]:
        length = query[position]
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace"))
        position += 1 + length
    (kind,) = struct.unpack_from("!H", query, position + 1)
    return ".".join(labels), TYPES.get(kind, str(kind)), query[12 : position + 5]


def dns_answer(query: bytes, answers: dict[str, str]) -> bytes:
    """Return the response to one query."""
    _, kind, question = dns_question(query)
    records = b""
    count = 0
    for number, name in ((1, "A"), (28, "AAAA")):
        if name in answers and kind in {name, "ANY"}:
            for address in answers[name].split(","):
                data = ipaddress.ip_address(address).packed
                records += struct.pack("!HHHIH", 0xC00C, number, 1, 1, len(data)) + data
                count += 1
    # QR, RD copied as set, RA; no error. Additional records (EDNS) are not repeated.
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, count, 0, 0) + question + records


class Datagrams(asyncio.DatagramProtocol):
    """UDP side of echo and dns."""

    def __init__(self, service: dict[str, Any]) -> None:
        """Serve one configured service."""
        self.service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer one datagram."""
        client = plain(addr[0])
        if self.service["kind"] == "dns":
            try:
                name, kind, _ = dns_question(data)
            except (IndexError, struct.error):
                return
            answer = dns_answer(data, self.service["answers"])
            event = {"name": name, "type": kind}
        else:
            answer = f"{client} {addr[1]} ".encode() + data
            event = {"data": data[:64].decode("ascii", "replace")}
        note(**heard(self.service, "udp", client, addr[1]), **event)
        self.transport.sendto(answer, addr)  # type: ignore[attr-defined]


def heard(service: dict[str, Any], transport: str, client: str, port: int) -> dict[str, Any]:
    """Return what every event has in common."""
    return {
        "kind": service["kind"],
        "transport": transport,
        "address": service["address"],
        "port": service["port"],
        "client": client,
        "client_port": port,
    }


class Streams:
    """TCP side of every kind."""

    def __init__(self, service: dict[str, Any]) -> None:
        """Serve one configured service."""
        self.service = service

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        peer = writer.get_extra_info("peername")
        event = heard(self.service, "tcp", plain(peer[0]), peer[1])
        try:
            await getattr(self, self.service["kind"])(reader, writer, event)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def echo(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, event: dict[str, Any]
    ) -> None:
        """Tell the client its address, then send everything back."""
        note(**event)
        writer.write(f"{event['client']} {event['client_port']}\n".encode())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def http(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, event: dict[str, Any]
    ) -> None:
        """Answer one request with the client's address."""
        request = await reader.readuntil(b"\r\n\r\n")
        note(**event, data=request.partition(b"\r\n")[0].decode("ascii", "replace"))
        body = f"{event['client']}\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async def dns(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, event: dict[str, Any]
    ) -> None:
        """Answer queries with the two-octet length in front (RFC 1035, 4.2.2)."""
        note(**event, connected=True)
        while True:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            name, kind, _ = dns_question(query)
            note(**event, name=name, type=kind)
            answer = dns_answer(query, self.service["answers"])
            writer.write(len(answer).to_bytes(2, "big") + answer)


async def main() -> None:
    """Start every service, say so, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    for service in json.loads(sys.argv[1]):
        address, port = service["address"], service["port"]
        await asyncio.start_server(Streams(service).serve, address, port)
        if service["kind"] != "http":
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            await loop.create_datagram_endpoint(
                lambda service=service: Datagrams(service),  # type: ignore[misc]
                (address, port),
                family=family,
            )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
