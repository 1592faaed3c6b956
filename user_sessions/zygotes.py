"""The session host's zygotes: keep one warm, retire the old one, hand out forks, learn from those that failed.

A pack of custom nodes that ends the zygote while it is imported is left out of the next one; a runtime that says it
cannot be forked is started cold. A refresh forgets both: whatever was wrong may have been mended.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.base.clock import monotonic_s
from proxy.base.errors import Unavailable, Warming
from proxy.base.logs import events
from proxy.base.tasks import Tasks
from user_sessions.report import FailedNode
from user_sessions.zygote_process import Listener, Orders, ZygoteProcess

BACKOFF_S = 0.2
BACKOFF_FACTOR = 3.0
BACKOFF_LIMIT_S = 300.0
"""Each try may be an import of minutes; somebody who has mended the reason asks for a refresh."""
LESSONS = 50
"""Packs left out at most; an install with more that end the process is given up on."""

log = events(__name__)


def next_wait_s(wait_s: float) -> float:
    """How long to wait before the try after the next, if that fails as well."""
    return min(max(wait_s * BACKOFF_FACTOR, BACKOFF_S), BACKOFF_LIMIT_S)


@dataclass
class Lessons:
    """What failed zygotes have taught: packs to leave out, and whether to fork at all."""

    excluded: dict[str, FailedNode] = field(default_factory=dict)
    unforkable: str = ""

    def teaches(self, zygote: ZygoteProcess) -> bool:
        """Whether another try after this one, which never was warm, will go differently."""
        if zygote.was_warm:
            return False
        new = zygote.importing and zygote.importing not in self.excluded and len(self.excluded) < LESSONS
        return bool(new or (zygote.unforkable and not self.unforkable))

    def learn(self, zygote: ZygoteProcess) -> bool:
        """Learn from one that has ended; whether there was something to learn."""
        if not self.teaches(zygote):
            return False
        if zygote.unforkable:
            self.unforkable = zygote.unforkable
            log.warning("sessions cannot be forked: each imports everything itself", reason=zygote.unforkable)
        else:
            pack = zygote.importing
            code = zygote.exit_code or 0
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            error = f"It ended the whole process {how} while it was loaded, and is left out until the next refresh."
            self.excluded[pack] = FailedNode(pack, error, "The session host's log has what it wrote.")
            log.error("a pack ended the zygote: it is left out", pack=pack, exit_code=zygote.exit_code)
        return True

    def applied(self, orders: Orders) -> Orders:
        """The orders for the next try."""
        options = dict(orders.options)
        if self.excluded:
            options["excluded"] = json.dumps(sorted(self.excluded))
        return replace(orders, options=options, cold=bool(self.unforkable))


class Zygotes:
    """Always one zygote to fork from, and the retired ones that still have sessions."""

    def __init__(self, orders: Orders, listener: Listener, tasks: Tasks) -> None:
        self._orders = orders
        self._listener = listener
        self._tasks = tasks
        self._closing = False
        self._lessons = Lessons()
        self._failed = ""
        self.current: ZygoteProcess | None = None
        self.retired: list[ZygoteProcess] = []

    def start(self) -> None:
        """Begin to keep one warm."""
        self._put(BACKOFF_S)

    async def warm(self, timeout_s: float) -> ZygoteProcess:
        """The one to fork from, once it is warm. Raises Unavailable; Warming when that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    zygote = self.current
                    if zygote is not None:
                        await zygote.settled.wait()
                        if zygote.warm:
                            return zygote
                        replaced = self.current is not zygote or zygote.was_warm or self._lessons.teaches(zygote)
                        if not replaced:
                            raise Unavailable(f"Sessions cannot be started: {zygote.error}")
                    await asyncio.sleep(0.02)
        pack = self.current.importing if self.current else ""
        doing = f" The custom nodes of {pack} are being loaded." if pack else ""
        raise Warming(f"What sessions start from is still being prepared.{doing} Ask again in a moment.")

    async def refresh(self, timeout_s: float) -> ZygoteProcess:
        """Warm a new one beside the current one, then fork from the new one. Raises Unavailable; the old one stays."""
        lessons = Lessons()
        deadline = monotonic_s() + timeout_s
        while True:
            fresh = ZygoteProcess(lessons.applied(self._orders), self._listener)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - monotonic_s()):
                    await fresh.settled.wait()
            if fresh.warm:
                break
            late = not fresh.ended.is_set()
            await fresh.end()
            if late or not lessons.learn(fresh):
                why = "it took too long" if late else fresh.error
                if self._failed:
                    self._failed = why
                raise Unavailable(f"No fresh session process could be prepared: {why}")
        self._lessons = lessons
        if self.current is not None and not self.current.ended.is_set():
            self.retired.append(self.current)
        self.current = fresh
        self._watch(fresh, BACKOFF_S)
        return fresh

    async def release(self, zygote: ZygoteProcess) -> None:
        """End a retired zygote; called when its last session is gone."""
        if zygote in self.retired:
            self.retired.remove(zygote)
            await zygote.end()

    async def end(self) -> None:
        """End all of them."""
        self._closing = True
        every = [*self.retired, *([self.current] if self.current else [])]
        self.current, self.retired = None, []
        for zygote in every:
            await zygote.end()

    @property
    def options(self) -> Mapping[str, str]:
        """The runtime's, as it was started with."""
        return self._orders.options

    @property
    def broken(self) -> str:
        """Why no session can be started now nor, it seems, with the next try; empty when they can."""
        return "" if self.current is not None and self.current.warm else self._failed

    @property
    def failed_nodes(self) -> tuple[FailedNode, ...]:
        """Packs that new sessions lack."""
        current = self.current.failed_nodes if self.current else ()
        return (*self._lessons.excluded.values(), *current)

    @property
    def unforkable(self) -> str:
        """Why new sessions are not forked; empty when they are."""
        return self._lessons.unforkable

    def _put(self, wait_s: float) -> None:
        zygote = self.current = ZygoteProcess(self._lessons.applied(self._orders), self._listener)
        self._watch(zygote, wait_s)

    def _watch(self, zygote: ZygoteProcess, wait_s: float) -> None:
        self._tasks.start(f"keep zygote {zygote.pid}", self._keep(zygote, wait_s))

    async def _keep(self, zygote: ZygoteProcess, wait_s: float) -> None:
        """Replace it when it ends and is still the one in use; wait longer each time one never got warm, unless it has
        taught something."""
        await zygote.ended.wait()
        await zygote.end()
        if zygote in self.retired:
            self.retired.remove(zygote)
        if self.current is zygote and self._lessons.learn(zygote) and not self._closing:
            wait_s = 0.0
        elif self.current is zygote:
            self._failed = "" if zygote.was_warm else zygote.error
        while self.current is zygote and not self._closing:
            if wait_s:  # else at once: whoever waits for a warm one must not see this one as given up
                await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            wait_s = BACKOFF_S if zygote.was_warm else next_wait_s(wait_s)
            if self.current is zygote and not self._closing:
                try:
                    self._put(wait_s)
                except Unavailable as error:  # no memory, no process to be had: the next try may find some
                    self._failed = error.message
                    log.error("no zygote could be started", error=error.message)
