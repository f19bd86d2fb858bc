"""Forwards ports by NAT-PMP and PCP, and fails in the ways in which such servers fail.

    python port_server.py ADDRESS PORT EXIT SETTINGS

Listens at ADDRESS and PORT, UDP. EXIT is the address whose ports it forwards with a table of
nftables, "-" for none. SETTINGS is a file with a JSON object that is read for each request:

    silent     no answer at all
    result     the result code of every answer, in the numbers of its protocol
    versions   the protocols that it has, of "natpmp" and "pcp"
    ports      the public ports that it gives to new mappings, in order, whatever is wished for
    lifetime   the lifetime that it grants, whatever is asked for
    differ     TCP gets another port than UDP
    at_public  what arrives goes to the public port of the client, as with Proton VPN
    since      when it started, in seconds of CLOCK_BOOTTIME: the epoch counts from then
    generation when it is another number, all mappings are forgotten
    flood      how many messages follow each answer: copies of it, and garbage
    every      only each request with this number is answered: 2 for every second one

Each request is a line of JSON on standard output: when, protocol, ports, lifetime, what was given.
A program of its own, standard library only.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = "ip forwarded"
FIRST = 40000
NUMBERS = {1: "udp", 2: "tcp", 17: "udp", 6: "tcp"}
REQUEST = struct.Struct("!BBHHHI")
PCP_REQUEST = struct.Struct("!BBHI16s12sB3xHH16s")


def boottime() -> float:
    """Return seconds that continue while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(line: dict[str, Any]) -> None:
    """Write a line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


@dataclass
class Mapping:
    """One mapping: where it leads, and until when."""

    client: str
    protocol: str
    private: int
    public: int
    until: float


@dataclass
class Server:
    """Answers requests; `settings` is what the file had last."""

    exit: str
    settings: dict[str, Any] = field(default_factory=dict)
    mappings: list[Mapping] = field(default_factory=list)
    clock: Callable[[], float] = boottime
    report: Callable[[dict[str, Any]], None] = say
    began: float = field(default_factory=boottime)
    generation: int = 0
    given: int = 0
    count: int = 0
    text: str = ""

    def answers(self, message: bytes, client: str) -> list[bytes]:
        """Return what is sent for a request of `client`."""
        if self.settings.get("generation", 0) != self.generation:
            self.generation = self.settings["generation"]
            self.mappings = []
        self.count += 1
        answer = self.answer(message, client)
        self.forward()
        if answer is None or self.settings.get("silent"):
            return []
        if self.count % self.settings.get("every", 1):
            return []
        flood = self.settings.get("flood", 0)
        return [answer, *[os.urandom(60) if it % 2 else answer for it in range(flood)]]

    def answer(self, message: bytes, client: str) -> bytes | None:
        """Return the answer to a request."""
        versions = self.settings.get("versions", ["natpmp", "pcp"])
        epoch = int(self.clock() - self.settings.get("since", self.began))
        if len(message) == REQUEST.size and message[0] == 0:
            _, opcode, _, private, wished, lifetime = REQUEST.unpack(message)
            if "natpmp" not in versions:
                return struct.pack("!BBHI", 0, opcode | 128, 1, epoch)
            result = self.settings.get("result", 0)
            public, lifetime = self.map(
                client, NUMBERS[opcode], private, wished, lifetime, "natpmp"
            )
            public = 0 if result else public
            return struct.pack(
                "!BBHIHHI", 0, opcode | 128, result, epoch, private, public, lifetime
            )
        if len(message) == PCP_REQUEST.size and message[0] == 2:
            _, opcode, _, lifetime, own, nonce, number, private, wished, _ = PCP_REQUEST.unpack(
                message
            )
            if "pcp" not in versions:
                return struct.pack("!BBHI", 0, opcode | 128, 1, epoch)
            result = self.settings.get("result", 0)
            if own[12:] != socket.inet_aton(client):
                result = 12  # ADDRESS_MISMATCH
            public, lifetime = self.map(client, NUMBERS[number], private, wished, lifetime, "pcp")
            head = struct.pack("!BBBBII12x", 2, opcode | 128, 0, result, lifetime, epoch)
            where = bytes(10) + b"\xff\xff" + socket.inet_aton("192.0.2.20")
            return head + struct.pack("!12sB3xHH16s", nonce, number, private, public, where)
        return None

    def map(
        self, client: str, protocol: str, private: int, wished: int, lifetime: int, version: str
    ) -> tuple[int, int]:
        """Give a mapping, or take it back; return its public port and its lifetime."""
        same = [
            it
            for it in self.mappings
            if (it.client, it.protocol, it.private) == (client, protocol, private)
        ]
        granted = min(lifetime, self.settings.get("lifetime", lifetime)) if lifetime else 0
        if lifetime:
            granted = self.settings.get("lifetime", lifetime)
        public = 0
        if not lifetime or self.settings.get("result"):
            self.mappings = [it for it in self.mappings if it not in same]
        else:
            public = same[0].public if same else self.new_port(client, private, wished)
            self.mappings = [it for it in self.mappings if it not in same]
            until = self.clock() + granted
            self.mappings.append(Mapping(client, protocol, private, public, until))
        line = {"at": self.clock(), "version": version, "protocol": protocol, "private": private}
        line |= {"wished": wished, "lifetime": lifetime, "public": public}
        self.report(line)
        return public, granted

    def new_port(self, client: str, private: int, wished: int) -> int:
        """Return the port for a new mapping: that of the other protocol, if there is one."""
        others = [it for it in self.mappings if it.client == client and it.private == private]
        if others and not self.settings.get("differ"):
            return others[0].public
        taken = {it.public for it in self.mappings}
        ports = self.settings.get("ports", [])
        if others:
            return others[0].public - 1
        if ports:
            self.given += 1
            return int(ports[(self.given - 1) % len(ports)])
        if wished > 1 and wished not in taken and not self.settings.get("at_public"):
            return wished
        return next(it for it in range(FIRST, 65536) if it not in taken)

    def forward(self) -> None:
        """Have the kernel forward what is mapped."""
        now = self.clock()
        self.mappings = [it for it in self.mappings if it.until > now]
        if self.exit == "-":
            return
        rules = [
            f"ip daddr {self.exit} {it.protocol} dport {it.public} dnat to {it.client}:"
            f"{it.public if self.settings.get('at_public') else it.private}"
            for it in self.mappings
        ]
        text = (
            f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\nchain arrival {{\n"
            "type nat hook prerouting priority dstnat - 1; policy accept;\n"
            + "\n".join(rules)
            + "\n}\n}\n"
        )
        if text != self.text:
            self.text = text
            subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def main() -> None:
    """Serve until killed."""
    address, port, leads_out, settings = sys.argv[1:]
    server = Server(leads_out)
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.bind((address, int(port)))
    channel.settimeout(0.2)
    say({"ready": channel.getsockname()[1]})
    while True:
        try:
            message, sender = channel.recvfrom(2000)
        except TimeoutError:
            server.forward()
            continue
        except ConnectionError:
            continue
        server.settings = json.loads(Path(settings).read_text("utf-8"))
        for answer in server.answers(message, sender[0]):
            channel.sendto(answer, sender)


if __name__ == "__main__":
    main()
