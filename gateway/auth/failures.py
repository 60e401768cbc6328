"""How often one address may send credentials that are refused, counted in Redis for all gateways together.

Whoever is above the limit is still let in with what a gateway knows: a neighbour's guesses lock nobody out.
"""

import ipaddress

from limits import RateLimitItemPerSecond
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import HTTPConnection

from gateway.counters import Counters, WindowStorage, unless_away
from shared.errors import AppError, ErrorCode

WINDOW_SECONDS = 60


class Failures:
    def __init__(self, counters: Counters, most: int) -> None:
        self._counters = counters
        self._window = SlidingWindowCounterRateLimiter(WindowStorage(counters))
        self._item = RateLimitItemPerSecond(most, WINDOW_SECONDS, namespace="refused")

    async def check(self, address: str) -> None:
        """Before something is looked up for the address. Raises AppError RATE_LIMITED."""
        if await unless_away(self._counters, self._window.test(self._item, address)) is False:
            raise self._too_many()

    async def count(self, address: str) -> None:
        """Raises AppError RATE_LIMITED, which then is the answer."""
        if await unless_away(self._counters, self._window.hit(self._item, address)) is False:
            raise self._too_many()

    def _too_many(self) -> AppError:
        return AppError(
            ErrorCode.RATE_LIMITED,
            f"More than {self._item.amount} credentials from this address were refused within {WINDOW_SECONDS} s "
            "(auth.max_failures in the configuration). Mend them, and try again later.",
            retry_after=WINDOW_SECONDS,
        )


def address_of(connection: HTTPConnection) -> str:
    """Whom failures count for."""
    return network_of(connection.client.host if connection.client else "unknown")


def network_of(host: str) -> str:
    """An IPv4 address itself, or the network of an IPv6 one, of which a customer has all."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if address.version == 6 and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
