"""What is tried at one address of a host after the other."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.errors import LoginError, NetworkError
from gateway.model import Address
from gateway.services.fetching.lists import AnswerError

T = TypeVar("T")


async def at_any(
    addresses: Sequence[Address],
    work: Callable[[Address], Awaitable[T]],
    *,
    final: type[Exception] | tuple[()] = (),
) -> T:
    """Return what `work` returns at the first address where it does not fail.

    After an error of the kind `final` no other address is tried. Raises GatewayError and OSError;
    that of a host which has answered says more than that another address leads nowhere.
    """
    failures: list[NetworkError] = []
    for address in addresses:
        try:
            return await work(address)
        except NetworkError as err:
            if isinstance(err, final):
                raise
            failures.append(err)
    raise next((it for it in failures if isinstance(it, AnswerError | LoginError)), failures[-1])
