"""A fail-closed WireGuard gateway for containers."""
