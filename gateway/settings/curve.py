"""The public key that belongs to a private key: X25519 (RFC 7748), to find a mistake with keys.

WireGuard itself does all cryptography. This only says whether the "server's" public key is the
gateway's own, and its result is compared and never used.
"""

from base64 import b64decode, b64encode
from functools import lru_cache

P = 2**255 - 19
A24 = 121665
BASE_POINT = 9
BITS = 255


@lru_cache(maxsize=64)
def public_key_of(private_key: str) -> str:
    """Return the public key of `private_key`, both base64 of 32 bytes (RFC 7748, section 6.1)."""
    scalar = int.from_bytes(b64decode(private_key), "little")
    scalar = scalar & ~7 & ~(1 << BITS) | 1 << (BITS - 1)  # section 5, decodeScalar25519
    return b64encode(_multiplied(scalar).to_bytes(32, "little")).decode()


def _multiplied(scalar: int) -> int:
    """Return the u-coordinate of `scalar` times the base point, by the Montgomery ladder."""
    x2, z2, x3, z3 = 1, 0, BASE_POINT, 1
    swapped = 0
    for position in reversed(range(BITS)):
        bit = scalar >> position & 1
        if bit != swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = bit
        total, difference = x2 + z2, x2 - z2
        square, other = total * total % P, difference * difference % P
        gap = square - other
        cross, across = difference * (x3 + z3) % P, total * (x3 - z3) % P
        x3, z3 = (cross + across) ** 2 % P, BASE_POINT * (cross - across) ** 2 % P
        x2, z2 = square * other % P, gap * (square + A24 * gap) % P
    x, z = (x3, z3) if swapped else (x2, z2)
    return x * pow(z, P - 2, P) % P
