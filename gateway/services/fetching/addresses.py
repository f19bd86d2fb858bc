"""What is tried at one address of a host after the other."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.errors import NetworkError
from gateway.model import Address

T = TypeVar("T")


async def at_any(
    addresses: Sequence[Address],
    work: Callable[[Address], Awaitable[T]],
    *,
    final: type[Exception] | tuple[()] = (),
) -> T:
    """Return what `work` returns at the first address where it does not fail.

    After an error of the kind `final` no other address is tried. Raises GatewayError and OSError.
    """
    for address in addresses[:-1]:
        try:
            return await work(address)
        except NetworkError as err:
            if isinstance(err, final):
                raise
    return await work(addresses[-1])
