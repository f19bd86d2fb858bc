"""The first message of a WireGuard handshake with a time of one's own: a clock that is wrong.

WireGuard paper, sections 5.4 and 5.4.2; RFC 7748 (X25519); RFC 8439 (ChaCha20-Poly1305). For tests:
nothing here keeps a secret.
"""

import hashlib
import hmac
import os
import struct
from base64 import b64decode

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL = b"mac1----"
INITIATION, RESPONSE = 1, 2
TAI64 = 1 << 62
"""The second 1970 began in TAI64, but for leap seconds."""
P = 2**255 - 19
A24 = 121665
BASE = (9).to_bytes(32, "little")
WORD = 0xFFFFFFFF


def initiation(private: str, server: str, seconds: float) -> bytes:
    """Return the message to the server with this public key, as if it were `seconds` since 1970.

    Keys are base64 of 32 bytes.
    """
    own, peer, ephemeral = b64decode(private), b64decode(server), os.urandom(32)
    chain = _hash(CONSTRUCTION)
    seen = _hash(_hash(chain + IDENTIFIER) + peer)
    public = x25519(ephemeral, BASE)
    chain, _ = _derived(chain, public)
    seen = _hash(seen + public)
    chain, key = _derived(chain, x25519(ephemeral, peer))
    static = sealed(key, x25519(own, BASE), seen)
    seen = _hash(seen + static)
    chain, key = _derived(chain, x25519(own, peer))
    stamp = sealed(key, struct.pack("!QI", TAI64 + int(seconds), 0), seen)
    message = struct.pack("<I", INITIATION) + os.urandom(4) + public + static + stamp
    mac = hashlib.blake2s(message, key=_hash(LABEL + peer), digest_size=16).digest()
    return message + mac + bytes(16)


def sealed(key: bytes, text: bytes, known: bytes) -> bytes:
    """Return `text` encrypted with the nonce zero, and the tag over it and over `known`."""
    stream = b"".join(_block(key, 1 + at) for at in range(-(-len(text) // 64)))
    cipher = bytes(a ^ b for a, b in zip(text, stream, strict=False))
    lengths = struct.pack("<QQ", len(known), len(cipher))
    return cipher + _poly1305(_block(key, 0)[:32], _padded(known) + _padded(cipher) + lengths)


def x25519(scalar: bytes, point: bytes) -> bytes:
    """Return the product (RFC 7748, section 5)."""
    number = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | 1 << 254
    first = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3 = 1, 0, first, 1
    for position in reversed(range(255)):
        bit = number >> position & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        plus, minus = x2 + z2, x2 - z2
        other, another = (x3 - z3) * plus % P, (x3 + z3) * minus % P
        x3, z3 = (other + another) ** 2 % P, first * (other - another) ** 2 % P
        square, minus = plus * plus % P, minus * minus % P
        gap = square - minus
        x2, z2 = square * minus % P, gap * (square + A24 * gap) % P
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def _hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _derived(chain: bytes, data: bytes) -> tuple[bytes, bytes]:
    secret = hmac.digest(chain, data, "blake2s")
    first = hmac.digest(secret, b"\1", "blake2s")
    return first, hmac.digest(secret, first + b"\2", "blake2s")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def _block(key: bytes, counter: int) -> bytes:
    """Return a block of the ChaCha20 stream with the nonce zero (RFC 8439, section 2.3)."""
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter]
    state = [*start, 0, 0, 0]
    work = list(state)
    for _ in range(10):
        for at in range(4):
            _quarter(work, at, 4 + at, 8 + at, 12 + at)
        for at in range(4):
            _quarter(work, at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
    return struct.pack("<16I", *((a + b) & WORD for a, b in zip(work, state, strict=True)))


def _quarter(work: list[int], a: int, b: int, c: int, d: int) -> None:
    for one, two, three, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        work[one] = (work[one] + work[two]) & WORD
        mixed = work[three] ^ work[one]
        work[three] = (mixed << turn | mixed >> (32 - turn)) & WORD


def _poly1305(key: bytes, data: bytes) -> bytes:
    """Return the tag of `data` (RFC 8439, section 2.5)."""
    factor = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\1", "little")) * factor
        total %= 2**130 - 5
    return ((total + int.from_bytes(key[16:], "little")) & (2**128 - 1)).to_bytes(16, "little")
