"""Background tasks with a name and an owner.

The only place that calls `asyncio.create_task`: it keeps the reference (a task nobody holds may be collected), names
the task and logs its death. A task started with `vital=True` turns readiness red when it dies.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from proxy.base.logs import events

log = events(__name__)

T = TypeVar("T")


class Tasks:
    """A set of running tasks that is stopped as one."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._vital: set[str] = set()
        self.dead: dict[str, str] = {}
        """Names of vital tasks that ended, with the reason: readiness reports them."""

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, work: Coroutine[Any, Any, T], *, vital: bool = False) -> asyncio.Task[T]:
        """Run `work` in the background under `name`."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - the one allowed call
        self._running.add(task)
        if vital:
            self._vital.add(name)
        task.add_done_callback(self._done)
        return task

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel all and wait; whatever ignores its cancellation for `timeout_s` is named in the log."""
        self._vital.clear()
        for task in self._running:
            task.cancel()
        if self._running:
            _, stuck = await asyncio.wait(set(self._running), timeout=timeout_s)
            for task in stuck:
                log.error("task ignored its cancellation", task=task.get_name())

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        name = task.get_name()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("task died", task=name, exc_info=error)
        if name in self._vital:
            self.dead[name] = repr(error) if error else "ended"
