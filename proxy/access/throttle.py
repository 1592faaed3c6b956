"""Counts failures per key within a window and refuses when there are too many.

In memory and bounded: with more keys than `capacity` the longest untouched one is forgotten. Attempts under way take a
place among those still allowed, or a burst of parallel guesses would pass the check before one failed; a class that
signs in at once from one address waits its turn instead of being refused.
"""

import asyncio
import contextlib
import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.types import Scope

from proxy.base.clock import monotonic_s
from proxy.base.errors import TooManyRequests, Unavailable

TURN_TIMEOUT_S = 20.0


class Throttled(TooManyRequests):
    """Too many failures; `retry_after_s` is for the Retry-After header."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass
class Attempt:
    """One try. Whoever makes it says when it was fine."""

    fine: bool = False


class Throttle:
    """At most `limit` failures of one key within `window_s`."""

    def __init__(
        self, limit: int, window_s: float, capacity: int = 10_000, clock: Callable[[], float] = monotonic_s
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._capacity = capacity
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._under_way: Counter[str] = Counter()
        self._ended = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._times)

    def wait_s(self, key: str) -> int:
        """Whole seconds until `key` may try again; 0 when it may now."""
        times = self._times.get(key)
        if times is None or len(times) < self._limit:
            return 0
        left = times[0] + self._window_s - self._clock()
        return max(0, int(left) + 1) if left > 0 else 0

    def count(self, key: str) -> None:
        """Note one attempt; older ones than the last `limit` do not matter and are dropped."""
        times = self._times.setdefault(key, deque(maxlen=self._limit))
        times.append(self._clock())
        self._times.move_to_end(key)
        if len(self._times) > self._capacity:
            self._times.popitem(last=False)

    def take(self, key: str, what: str) -> None:
        """Count one. Raises Throttled, naming `what` there was too much of."""
        self._check(key, what)
        self.count(key)

    @contextlib.asynccontextmanager
    async def attempt(self, key: str, what: str) -> AsyncIterator[Attempt]:
        """An attempt under way: counted unless it is marked fine. Raises Throttled, or Unavailable when too many others
        are under way for too long."""
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S), self._ended:
                while not self._free(key, what):
                    await self._ended.wait()
                self._under_way[key] += 1
        except TimeoutError:
            raise Unavailable("Too many people are signing in right now. Try again in a moment.") from None
        attempt = Attempt()
        try:
            yield attempt
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
            if not attempt.fine:
                self.count(key)
            async with self._ended:
                self._ended.notify_all()

    def _free(self, key: str, what: str) -> bool:
        self._check(key, what)
        since = self._clock() - self._window_s
        failed = sum(time > since for time in self._times.get(key, ()))
        return failed + self._under_way[key] < self._limit

    def _check(self, key: str, what: str) -> None:
        wait_s = self.wait_s(key)
        if wait_s:
            raise Throttled(f"Too many {what}. Try again in {wait_s} seconds.", wait_s)


def address_key(scope: Scope) -> str:
    """Who is counted: the client's address, for IPv6 the /64 that one customer has whole."""
    client = scope.get("client")
    host = client[0] if client else "local"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return str(host)[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
