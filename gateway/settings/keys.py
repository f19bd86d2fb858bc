"""WireGuard keys that the gateway makes itself, with the library that Python's TLS uses."""

import _ssl
import ctypes
import os
from base64 import b64decode, b64encode

from gateway.model import Secret

EVP_PKEY_X25519 = 1034
"""openssl/obj_mac.h."""
OCTETS = 32


def generated() -> Secret:
    """Return a new private key: any 32 octets are one (RFC 7748, section 5)."""
    return Secret(b64encode(os.urandom(OCTETS)).decode())


def public_of(private: Secret) -> str:
    """Return the public key that belongs to a private one, both in base64.

    Raises OSError if the library has no X25519.
    """
    # The library's name has its version, so the functions are found by the module that links to it.
    library = ctypes.CDLL(_ssl.__file__)
    make, read, free = (
        getattr(library, f"EVP_PKEY_{name}")
        for name in ("new_raw_private_key", "get_raw_public_key", "free")
    )
    make.restype = ctypes.c_void_p
    key = make(EVP_PKEY_X25519, None, b64decode(private.reveal()), ctypes.c_size_t(OCTETS))
    if not key:
        raise OSError("the library for TLS has no X25519")
    public, length = ctypes.create_string_buffer(OCTETS), ctypes.c_size_t(OCTETS)
    done = read(ctypes.c_void_p(key), public, ctypes.byref(length))
    free(ctypes.c_void_p(key))
    if done != 1:
        raise OSError("the library for TLS did not compute a public key")
    return b64encode(public.raw).decode()


def are_pair(private: Secret, public: str) -> bool:
    """Return whether both are known to belong together, to find a mistake."""
    try:
        return public == public_of(private)
    except OSError:
        return False
