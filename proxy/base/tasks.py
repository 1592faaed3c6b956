"""Background tasks with a name and an owner.

The only place that calls `asyncio.create_task`: it keeps the reference (a task nobody holds may be collected), names
the task and logs its death. A task started with `vital=True` turns readiness red when it dies.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from proxy.base.errors import ClusterError
from proxy.base.logs import events

log = events(__name__)

T = TypeVar("T")


async def together(name: str, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first failure ends the other works and is raised.

    Unlike TaskGroup, which swallows a cancellation that comes in the moment of a failure (CPython's gh-116720): who
    then handles the failure goes on, and whoever cancelled waits for ever.
    """
    tasks = [asyncio.create_task(work, name=name) for work in works]  # noqa: TID251 - ended before this returns
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _end(tasks)
    failed = [task for task in tasks if not task.cancelled() and task.exception() is not None]
    return [task.result() for task in failed or tasks]


async def beside(name: str, way: Coroutine[Any, Any, T], watches: Sequence[Coroutine[Any, Any, object]]) -> T:
    """The way's result or failure; a watch that fails ends the way and is raised. Cancelled as `together` is."""
    task = asyncio.create_task(way, name=name)  # noqa: TID251 - ended before this returns
    guards = [asyncio.create_task(watch, name=f"{name}, watch") for watch in watches]  # noqa: TID251 - as above
    pending: set[asyncio.Task[Any]] = {task, *guards}
    try:
        while not task.done() and not any(_failure(guard) for guard in guards):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end([task, *guards])
    failures = [failure for guard in guards if (failure := _failure(guard)) is not None]
    if failures and task.cancelled():
        raise failures[0]
    return task.result()


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    running = [task for task in tasks if not task.done() and task.cancel()]
    if running:
        await asyncio.wait(running)
    for task in tasks:
        _failure(task)  # looked at: asyncio logs failures that nobody has seen


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
            if isinstance(error, ClusterError):  # known by its message; whoever waits for the task hears of it, too
                log.error("task died", task=name, error=error.message)
            else:
                log.error("task died", task=name, exc_info=error)
        if name in self._vital:
            self.dead[name] = repr(error) if error else "ended"
