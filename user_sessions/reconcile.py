"""Compare the rows with what really runs, at start and every few seconds, and settle the difference.

Only a complete listing or an `exited` answer frees anything; while the spawner cannot be asked, every row stays as it
is. Orphans (processes without a row) are ended, since nobody could ever reach them.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.base.clock import monotonic_s, now_ms
from proxy.base.database import Database
from proxy.base.errors import ClusterError, Unavailable
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from user_sessions import store
from user_sessions.model import SessionRow
from user_sessions.moving import Mover
from user_sessions.report import Report
from user_sessions.spawner import Poll, Spawner
from user_sessions.state import SessionState

if TYPE_CHECKING:
    from user_sessions.controller import Sessions
    from user_sessions.live import Address

INTERVAL_S = 2.0
FLUSH_S = 30.0

log = events(__name__)
often = Repeated(log)


class Reconciler:
    """The loop beside the controller; acts through the controller's own verbs."""

    def __init__(self, settings: Settings, db: Database, spawner: Spawner, sessions: "Sessions", tasks: Tasks) -> None:
        self._settings = settings
        self._db = db
        self._spawner = spawner
        self._sessions = sessions
        self._flushed_s = monotonic_s()
        self._blind = False
        self._mover = Mover(settings.session_refresh_idle_s, sessions, tasks)

    async def watch(self, busy: Callable[[], set[int]], in_use: Callable[[], set[int]] = set) -> None:
        """Until cancelled. A spawner that cannot be asked, or a defect, costs a turn, never the loop."""
        while True:
            await asyncio.sleep(INTERVAL_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            try:
                await self.turn(busy, in_use)
                self._blind = False
            except ClusterError as error:
                if not self._blind:
                    log.warning("sessions cannot be looked at", error=error.message)
                self._blind = True
            except Exception as error:  # a defect met with one row must not end the care for all others
                often.error("a look at the sessions failed", exc_info=error)

    async def turn(self, busy: Callable[[], set[int]], in_use: Callable[[], set[int]] = set) -> None:
        """One look at everything. Raises Unavailable."""
        if monotonic_s() - self._flushed_s >= FLUSH_S:
            await self.flush()
        await self.run(starting_up=False)
        self._heard(await self._spawner.report())
        await self.cull(busy())
        self._mover.turn(await self._sessions.listing(), lambda: busy() | in_use())

    def _heard(self, report: Report) -> None:
        """Keep what the spawner says of itself; what changes everything for users is said in the log as well."""
        if report.broken != self._sessions.report.broken:
            if report.broken:
                log.error("sessions cannot be started", error=report.broken, log="logs/session-host.log")
            else:
                log.info("sessions can be started again")
        self._sessions.report = report

    async def flush(self) -> None:
        """Write users' last actions down."""
        self._flushed_s = monotonic_s()
        times = dict(self._sessions.touched)
        if times:
            await self._db.write(lambda s: store.touch(s, times))
            for user_id, at_ms in times.items():
                if self._sessions.touched.get(user_id) == at_ms:
                    del self._sessions.touched[user_id]

    async def cull(self, busy: set[int]) -> None:
        """Stop sessions whose users did nothing for `session_idle_timeout_s` and have no job."""
        if not self._settings.session_idle_timeout_s:
            return
        limit_ms = now_ms() - int(self._settings.session_idle_timeout_s * 1000)
        for row in await self._db.read(store.with_process):
            last_ms = max(row.active_ms, self._sessions.touched.get(row.user_id, 0))
            if row.state == SessionState.RUNNING and row.user_id not in busy and last_ms <= limit_ms:
                await self._sessions.stop(row.user_id, "idle", idle_since_ms=limit_ms)

    async def run(self, *, starting_up: bool) -> None:
        """Settle every row that says a process runs, then end orphans. Raises Unavailable."""
        rows = await self._db.read(store.with_process)
        running = {poll.session_id: poll for poll in await self._spawner.listing()}
        for row in rows:
            lock = self._sessions.lock(row.user_id)
            if not lock.locked():  # else it is being started or stopped right here
                async with lock:
                    await self._judge(row, running.get(row.session_id), starting_up=starting_up)
        live = self._sessions.live.generations()  # before the rows: one that goes live meanwhile is not judged
        now = {row.session_id: row for row in await self._db.read(store.with_process)}
        self._sessions.saw(running, now.values())
        self._drop_what_others_ended(live, list(now.values()))
        for session_id in running.keys() - now.keys():
            log.warning("session without a row", session=session_id)
            await self._spawner.stop(session_id)

    async def settle(self, row: SessionRow) -> "Address | None":
        """Before a start, under the user's lock: the address of what runs already, None when the way is free.
        Raises Unavailable while that cannot be said."""
        state = SessionState(row.state)
        if state is SessionState.STARTING:
            return await self._sessions.launch(row)
        if state is SessionState.STOPPING:
            await self._sessions.finish_stop(row)
        elif state is SessionState.RUNNING:
            poll = await self.look(row.session_id)
            if poll.state == "running":
                return self._sessions.went_live(row)
            await self._sessions.ended(row, poll)
        return None

    async def look(self, session_id: str) -> Poll:
        """Running or exited; a session that nobody remembers has ended when a complete listing lacks it.
        Raises Unavailable while that cannot be said."""
        poll = await self._spawner.poll(session_id)
        return await self._listed(session_id) if poll.state == "unknown" else poll

    async def _judge(self, row: SessionRow, poll: Poll | None, *, starting_up: bool) -> None:
        fresh = await self._db.read(lambda s: store.get(s, row.user_id))
        if fresh is None or (fresh.generation, fresh.state) != (row.generation, row.state):
            return  # it moved on while we listed
        try:
            match SessionState(row.state):
                case SessionState.RUNNING if poll is not None:
                    if self._sessions.live.generations().get(row.user_id) != row.generation:
                        self._sessions.went_live(row)
                case SessionState.RUNNING:
                    await self._sessions.ended(row, await self._end_of(row))
                case SessionState.STOPPING:
                    await self._sessions.finish_stop(row)
                case SessionState.STARTING if starting_up or self._overdue(row):
                    await self._cut_short(row, poll)
        except Unavailable as error:
            often.warning("session not settled", user=row.slug, session=row.session_id, error=error.message)

    async def _cut_short(self, row: SessionRow, poll: Poll | None) -> None:
        """A start whose proxy died: keep it if it came up, else end it."""
        if poll is not None and poll.ready:
            starting = frozenset({SessionState.STARTING})
            changed = await self._sessions.change(row, starting, SessionState.RUNNING, "adopted", pid=poll.pid)
            if changed is not None:
                self._sessions.went_live(changed)
            return
        await self._spawner.stop(row.session_id)
        await self._sessions.ended(row, Poll(row.session_id, "exited", error="The start was cut short."))

    async def _end_of(self, row: SessionRow) -> Poll:
        """How a session that is missing in a complete listing ended, as far as anyone remembers."""
        poll = await self._spawner.poll(row.session_id)
        return poll if poll.state == "exited" else Poll(row.session_id, "exited", error="The session is gone.")

    async def _listed(self, session_id: str) -> Poll:
        for poll in await self._spawner.listing():
            if poll.session_id == session_id:
                return poll
        return Poll(session_id, "exited", error="The session is gone.")

    def _overdue(self, row: SessionRow) -> bool:
        """Whether no proxy can still be waiting for this start."""
        return now_ms() - (row.started_ms or 0) > self._settings.session_start_timeout_s * 2000

    def _drop_what_others_ended(self, live: dict[int, int], rows: list[SessionRow]) -> None:
        """Another proxy on the same database may have stopped or restarted a session."""
        running = {row.user_id: row.generation for row in rows if row.state == SessionState.RUNNING}
        for user_id, generation in live.items():
            if running.get(user_id) != generation and not self._sessions.lock(user_id).locked():
                self._sessions.live.drop(user_id)
