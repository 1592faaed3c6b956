"""Outdated sessions move over to what a refresh has prepared: one after the other, while nobody looks.

Quiet means no job, no open connection and no action for the given time. Keeps since when each is quiet, in memory.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import Unavailable
from proxy.base.logs import events
from proxy.base.tasks import Tasks
from user_sessions.view import SessionView

if TYPE_CHECKING:
    from user_sessions.controller import Sessions

log = events(__name__)


class Mover:
    """Restarts them through the controller's own verb."""

    def __init__(self, idle_s: float, sessions: "Sessions", tasks: Tasks) -> None:
        self._idle_s = idle_s
        self._sessions = sessions
        self._tasks = tasks
        self._quiet_since_s: dict[int, float] = {}
        self._moving: asyncio.Task[None] | None = None

    def turn(self, views: Sequence[SessionView], used: Callable[[], set[int]]) -> None:
        """One look; returns at once."""
        now_s, in_use = monotonic_s(), used()
        outdated = [view for view in views if view.outdated and view.user_id not in in_use]
        self._quiet_since_s = {view.user_id: self._quiet_since_s.get(view.user_id, now_s) for view in outdated}
        due = [view for view in outdated if now_s - self._quiet_since_s[view.user_id] >= self._idle_s]
        if due and (self._moving is None or self._moving.done()):
            self._moving = self._tasks.start("move outdated sessions", self._move(due, used))

    async def _move(self, views: Sequence[SessionView], used: Callable[[], set[int]]) -> None:
        for view in views:
            if view.user_id in used():  # somebody came back meanwhile
                continue
            try:
                await self._sessions.move(view.user_id, view.slug, now_ms() - int(self._idle_s * 1000))
            except Unavailable as error:
                log.warning("outdated session not moved", user=view.slug, error=error.message)
