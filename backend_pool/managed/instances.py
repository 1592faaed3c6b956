"""The processes of managed instances: started, found again after a kill of whoever started them, ended with all that
they have started. Owns their records in the run directory and their logs; decides nothing.
"""

import asyncio
import errno
from pathlib import Path

from backend_pool.managed.recipe import Launch, Recipe
from proxy.base.errors import ClusterError, DiskFull, Unavailable
from proxy.base.log_file import tail, trim
from proxy.base.logs import events
from proxy.base.processes import end_followers, last_recorded, launch, leader_with, note, recorded

log = events(__name__)

STOP_TIMEOUT_S = 5.0
TOLD_CHARS = 300


class Instances:
    """Processes of one kind, by name. Blocking work goes to threads, but for a start: one that is cancelled meanwhile
    could not know of the process it has to end."""

    def __init__(self, recipe: Recipe, run: Path, logs: Path, stop_timeout_s: float = STOP_TIMEOUT_S) -> None:
        self.recipe = recipe
        self._run = run
        self._logs = logs
        self._stop_timeout_s = stop_timeout_s

    def recorded(self) -> list[str]:
        """Names that have a record, of this server or of an earlier one."""
        return sorted(path.stem for path in self._run.glob(f"{self.recipe.kind}-*.json"))

    def alive(self, name: str) -> bool:
        """Whether its process runs."""
        return recorded(self._record(name)) is not None

    async def address(self, name: str) -> str | None:
        """Its URL once it takes connections, None before that and when it does not run."""
        daemon = recorded(self._record(name))
        return None if daemon is None else await asyncio.to_thread(self.recipe.address, name, daemon)

    async def start(self, name: str) -> None:
        """Start it, unless it runs. Raises ClusterError saying why it cannot be."""
        if self.alive(name):
            return
        try:
            order = await asyncio.to_thread(self._prepare, name)
            if order is not None:
                daemon = launch(order.command, self._record(name), self.log(name), order.env)
                log.info("instance started", instance=name, pid=daemon.pid)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"{name} cannot be started: the disk is full.") from error
            raise Unavailable(f"{name} cannot be started: {error.strerror or error}.") from error

    async def stop(self, name: str) -> None:
        """End it and what it has started. Raises Unavailable when it resists even a kill."""
        if not await asyncio.to_thread(self._stop, name):
            raise Unavailable(f"{name} did not end even when killed.")

    async def forget(self, name: str) -> None:
        """Stop it for good."""
        await self.stop(name)
        await asyncio.to_thread(self.recipe.forget, name)

    async def forget_all(self) -> None:
        """Stop all for good. One that resists is logged and keeps its record."""
        for end in await asyncio.gather(*(self.forget(name) for name in self.recorded()), return_exceptions=True):
            if isinstance(end, ClusterError):
                log.error("instance not stopped", error=end.message)
            elif end is not None:
                raise end

    def log(self, name: str) -> Path:
        """Where its output goes."""
        return self._logs / f"{name}.log"

    def trim_log(self, name: str) -> None:
        """Drop the oldest lines of a log that has grown too long. Blocking."""
        trim(self.log(name))

    def last_words(self, name: str) -> str:
        """The last line it wrote, for a message; empty when there is none. Blocking."""
        lines = [line.strip() for line in tail(self.log(name)).splitlines() if line.strip()]
        return lines[-1][-TOLD_CHARS:] if lines else ""

    def adopt(self, name: str) -> None:
        """Find one whose record was not written before its starter was killed. One that nobody can reach any more is
        ended: it would never answer, and keep its place. Blocking."""
        if self.alive(name):
            return
        found = leader_with(*self.recipe.marker(name))
        if found is None:
            return
        note(found, self._record(name))
        if self.recipe.traceable(name):
            log.info("instance found again", instance=name, pid=found.pid)
            return
        log.info("instance of a directory that is gone is ended", instance=name, pid=found.pid)
        self._stop(name)

    def _prepare(self, name: str) -> Launch | None:
        before = last_recorded(self._record(name))
        if before is not None:
            end_followers(before)
        self.adopt(name)
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        return None if self.alive(name) else self.recipe.prepare(name)

    def _stop(self, name: str) -> bool:
        daemon = last_recorded(self._record(name))
        if daemon is not None:
            if not daemon.stop(self._stop_timeout_s):
                return False
            end_followers(daemon)
        self._record(name).unlink(missing_ok=True)
        return True

    def _record(self, name: str) -> Path:
        return self._run / f"{name}.json"
