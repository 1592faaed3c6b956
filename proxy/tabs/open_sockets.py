"""Open WebSockets, judged again while they live: a logout, a revoked token or a disabled account ends them too.

At once for changes in this process, within CHECK_S for those made elsewhere (the command line, another replica).
"""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator

from starlette.types import Scope

from proxy.access.auth import Authenticator
from proxy.access.cache import AccessCache
from proxy.base.errors import ClusterError
from proxy.base.tasks import Tasks

CHECK_S = 30.0


class AccessEnded(Exception):
    """Whoever opened this socket may not have it any more."""


class OpenSockets:
    """Watches over every socket that is open; one waiting task each."""

    def __init__(self, authenticator: Authenticator, cache: AccessCache, tasks: Tasks) -> None:
        self._authenticator = authenticator
        self._tasks = tasks
        self._bells: dict[int, set[asyncio.Event]] = defaultdict(set)
        cache.on_change.append(self._changed)

    def users(self) -> set[int]:
        """Who has one open."""
        return set(self._bells)

    @contextlib.asynccontextmanager
    async def watched(self, scope: Scope, user_id: int) -> AsyncIterator[None]:
        """Cancels the body and raises AccessEnded once `scope`'s credentials are no longer `user_id`'s."""
        bell = asyncio.Event()
        self._bells[user_id].add(bell)
        limit = asyncio.timeout(None)
        judge: asyncio.Task[None] | None = None
        try:
            async with limit:
                judge = self._tasks.start("access to a socket", self._judge(scope, user_id, bell, limit))
                yield
        except TimeoutError:
            if limit.expired():
                raise AccessEnded from None
            raise
        finally:
            if judge is not None:
                judge.cancel()
            self._bells[user_id].discard(bell)
            if not self._bells[user_id]:
                del self._bells[user_id]

    async def _judge(self, scope: Scope, user_id: int, bell: asyncio.Event, limit: asyncio.Timeout) -> None:
        allowed = True
        while allowed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), CHECK_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            bell.clear()
            try:
                who, _ = await self._authenticator.identify(scope)
                allowed = who is not None and who.user_id == user_id
            except ClusterError:  # the database is busy: nobody loses a socket over that
                continue
        limit.reschedule(asyncio.get_running_loop().time())

    def _changed(self, user_id: int) -> None:
        for bell in self._bells.get(user_id, ()):
            bell.set()
