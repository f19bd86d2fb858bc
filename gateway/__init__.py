"""A fail-closed WireGuard gateway for containers."""

__version__ = "0.1.0"
