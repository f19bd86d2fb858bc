"""Where a server listens, for the values of `gateway.model`."""

from gateway.model.frozen import frozen


@frozen
class HostPort:
    """A TCP address that a server of ours listens on; an empty host means every address."""

    host: str
    port: int
