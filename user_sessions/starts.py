"""Starts under way: everybody who asks meanwhile joins, and a failed one is answered from memory for a while.

Knows nothing of sessions; what a start does is passed in. A page that reloads or a canvas that polls must not start a
process each time, so each failure in a row is remembered for twice as long as the one before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError, DatabaseUnavailable, Unavailable, Warming
from proxy.base.tasks import Tasks

STARTS_AT_ONCE = 8
COOL_DOWN_S = 2.0
COOL_DOWN_LIMIT_S = 16.0

T = TypeVar("T")


def did_not_start(error: ClusterError) -> Unavailable:
    """What a user is told of it."""
    if isinstance(error, Warming):
        return error
    return Unavailable(f"Your workspace did not start: {error.message}", error.details)


@dataclass(frozen=True)
class _Failure:
    error: Unavailable
    until_s: float
    in_a_row: int


class Starts(Generic[T]):
    """At most one start per user, at most STARTS_AT_ONCE in all."""

    def __init__(self, tasks: Tasks, wait_s: float) -> None:
        self._tasks = tasks
        self._wait_s = wait_s
        self._futures: dict[int, asyncio.Future[T]] = {}
        self._failures: dict[int, _Failure] = {}
        self.gate = asyncio.Semaphore(STARTS_AT_ONCE)

    async def join(self, user_id: int, start: Callable[[], Awaitable[T]]) -> T:
        """What `start` returns, or the start under way. Raises Unavailable."""
        future = self._futures.get(user_id)
        if future is None:
            failure = self._failures.get(user_id)
            if failure is not None and monotonic_s() < failure.until_s:
                raise type(failure.error)(failure.error.message, failure.error.details)
            future = self._futures[user_id] = asyncio.get_running_loop().create_future()
            self._tasks.start(f"start session of user {user_id}", self._run(future, user_id, start))
        try:
            # Shielded: a browser that goes away must not take the start from others who wait for it.
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise Unavailable("Your workspace takes too long to start. Try again in a moment.") from error

    def forgive(self, user_id: int) -> None:
        """Forget earlier failures: somebody wants it tried now, or it runs."""
        self._failures.pop(user_id, None)

    async def _run(self, future: asyncio.Future[T], user_id: int, start: Callable[[], Awaitable[T]]) -> None:
        try:
            result = await start()
        except ClusterError as error:
            unavailable = error if isinstance(error, Unavailable) else Unavailable(error.message, error.details)
            if not isinstance(unavailable, Warming | DatabaseUnavailable):  # the next may begin at once
                self._remember(user_id, unavailable)
            future.set_exception(unavailable)
        except BaseException:
            future.set_exception(Unavailable("Your workspace could not be started. The server's log says why."))
            raise
        else:
            future.set_result(result)
        finally:
            del self._futures[user_id]
            if not future.cancelled():
                future.exception()  # whoever asked may be gone: it is in the row and in the log

    def _remember(self, user_id: int, error: Unavailable) -> None:
        before = self._failures.get(user_id)
        count = before.in_a_row + 1 if before else 1
        wait_s = min(COOL_DOWN_S * 2 ** (count - 1), COOL_DOWN_LIMIT_S)
        self._failures[user_id] = _Failure(error, monotonic_s() + wait_s, count)
