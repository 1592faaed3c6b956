"""A user's session as the proxy sees it: there, on its way, or not. Owns rows, live addresses and starts in flight.

Row before deed: a start is written down with its secret before a process exists, a stop before it is asked for. What a
crash leaves behind is settled by `reconcile.py`, which compares rows with what really runs.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import ClusterError, Conflict, Unavailable
from proxy.base.log_file import tail
from proxy.base.logs import events
from proxy.base.names import new_id, new_secret
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from user_sessions import store
from user_sessions.directories import (
    Directories,
    prepare_user,
    prune_temp,
    public_directory,
    session_log,
    user_directories,
)
from user_sessions.live import Address, LiveSessions
from user_sessions.model import SessionRow
from user_sessions.reconcile import Reconciler
from user_sessions.report import Refresh, Report
from user_sessions.run_dir import run_dir, session_socket
from user_sessions.runtime import SessionSpec
from user_sessions.spawner import Poll, Spawner
from user_sessions.starts import Starts, did_not_start
from user_sessions.state import CRASHES, SessionState, crashed_last, crashes, gave_up
from user_sessions.view import SessionView, view

WAIT_MARGIN_S = 60.0
LEAVE_TIMEOUT_S = 2.0
"""How long a stop waits for what is under way at the session to be let go of."""
ENDING_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Between looks at a session whose connections broke: the kernel closes them before the process can be seen to end."""

log = events(__name__)


OnNews = Callable[[int], None]


class Sessions:
    """Start, find, touch and stop users' sessions."""

    def __init__(self, settings: Settings, db: Database, spawner: Spawner, tasks: Tasks) -> None:
        self._settings = settings
        self._db = db
        self._spawner = spawner
        self._tasks = tasks
        self._run = run_dir(settings)
        self.live = LiveSessions(tasks)
        self._starts: Starts[Address] = Starts(tasks, settings.session_start_timeout_s + WAIT_MARGIN_S)
        self._locks: dict[int, asyncio.Lock] = {}
        self._on_news: list[OnNews] = []
        self._seen: dict[str, Poll] = {}
        self.report = Report()
        """What the spawner last told of itself."""
        self.touched: dict[int, int] = {}
        """Last real action by user in milliseconds, not yet in the rows."""
        self._reconciler = Reconciler(settings, db, spawner, self, tasks)

    def on_news(self, callback: OnNews) -> None:
        """Call this with a user whose session crashed, came back, or became outdated."""
        self._on_news.append(callback)

    async def adopt(self) -> None:
        """At proxy start: keep what rows and spawner agree on, settle the rest. Raises Unavailable."""
        await self._reconciler.run(starting_up=True)

    async def watch(self, busy: Callable[[], set[int]], in_use: Callable[[], set[int]] = set) -> None:
        """Until cancelled: notice ends, stop idle sessions, move outdated ones, write activity down. `busy` users have
        a job and are never idle; those `in_use` have a connection open, and are not moved."""
        await self._reconciler.watch(busy, in_use)

    def address(self, user_id: int) -> Address | None:
        """Where that user's session answers; from memory, for the path of every request."""
        return self.live.address(user_id)

    def touch(self, user_id: int) -> None:
        """A real action of that user, not a poll or a reconnect. Memory only; `watch` writes it down."""
        self.touched[user_id] = now_ms()

    async def ensure(self, user_id: int, slug: str) -> Address:
        """The address of a session that answers; starts one or joins a start under way. Raises Unavailable."""
        address = self.live.address(user_id)
        if address is not None:
            return address
        return await self._starts.join(user_id, lambda: self._start(user_id, slug))

    async def stop(
        self, user_id: int, why: str = "stop asked for", idle_since_ms: int | None = None
    ) -> SessionRow | None:
        """End that user's session; returns when it is gone, with its row as it was, None when nothing ran. With
        `idle_since_ms` only if nothing was done since.
        Raises Unavailable when the end is not certain yet: it is wanted, written down and tried again."""
        async with self.lock(user_id):
            row = await self._db.read(lambda s: store.get(s, user_id))
            if row is None or row.state == SessionState.STOPPED:
                return None
            if idle_since_ms is not None and max(row.active_ms, self.touched.get(user_id, 0)) > idle_since_ms:
                return None
            before = frozenset({SessionState.STARTING, SessionState.RUNNING})
            if row.state == SessionState.FAILED:
                await self.change(row, frozenset({SessionState.FAILED}), SessionState.STOPPED, why, desired="stopped")
                return None
            await self.change(row, before, SessionState.STOPPING, why, desired="stopped")
            await self.finish_stop(row)
            return row

    async def restart(self, user_id: int, slug: str) -> Address:
        """Stop and start, whatever happened before. Raises Unavailable."""
        self._starts.forgive(user_id)
        await self.stop(user_id, "restart asked for")
        return await self.ensure(user_id, slug)

    async def move(self, user_id: int, slug: str, idle_since_ms: int) -> None:
        """Restart an outdated session that nothing was done in since; its user shall not notice, so the time of the
        last action stays. Raises Unavailable."""
        was = await self.stop(user_id, "a fresher one is ready", idle_since_ms)
        if was is not None:
            await self._starts.join(user_id, lambda: self._start(user_id, slug, was.active_ms))

    async def revive(self, user_id: int, slug: str, session_id: str | None = None) -> None:
        """Bring a session back that crashed, for a tab that is open; one that was stopped, or fails to start, stays
        as it is. `session_id` is the one whose connection just broke."""
        if session_id is not None and not await self.is_gone(user_id, session_id):
            return
        row = await self._db.read(lambda s: store.get(s, user_id))
        if row is not None and row.state == SessionState.FAILED and crashed_last(row.history):
            with contextlib.suppress(Unavailable):  # it is in the row, where pages and the next request find it
                await self.ensure(user_id, slug)

    async def refresh(self, by: str) -> Refresh:
        """Prepare new sessions afresh, for changed custom nodes or models; returns at once. Raises Unavailable."""
        started = await self._spawner.refresh(by)
        self.report = replace(self.report, refresh=started)
        return started

    async def host_ended(self) -> None:
        """At the server's own clean stop, once its session host has ended: what ran was stopped, nothing failed."""
        self.live.clear()
        for row in await self._db.read(store.with_process):
            alive = frozenset({SessionState.STARTING, SessionState.RUNNING})
            await self.change(row, alive, SessionState.STOPPING, "the server stops", desired="stopped")
            await self.change(row, frozenset({SessionState.STOPPING}), SessionState.STOPPED, "ended", pid=None)

    async def recheck(self, user_id: int) -> Address | None:
        """Ask the spawner at once, for a caller whose connection was refused: None when the session is gone."""
        live = self.live.get(user_id)
        if live is None:
            return None
        try:
            poll = await self._reconciler.look(live.address.session_id)
        except ClusterError as error:
            log.warning("session cannot be looked at", session=live.address.session_id, error=error.message)
            return self.address(user_id)
        if poll.state == "exited":
            async with self.lock(user_id):
                row = await self._db.read(lambda s: store.get(s, user_id))
                if row is not None and row.generation == live.generation and row.state == SessionState.RUNNING:
                    await self.ended(row, poll)
        return self.address(user_id)

    async def is_gone(self, user_id: int, session_id: str) -> bool:
        """Whether that session is over, for a caller whose connection to it broke; waits a moment for its end."""
        for pause_s in (*ENDING_PAUSES_S, 0.0):
            address = await self.recheck(user_id)
            if address is None or address.session_id != session_id:
                return True
            await asyncio.sleep(pause_s)
        return False

    async def view_of(self, user_id: int) -> SessionView | None:
        """That user's session; None for one who never had any."""
        row = await self._db.read(lambda s: store.get(s, user_id))
        return None if row is None else view(row, self._seen.get(row.session_id))

    async def listing(self, *, memory: bool = False) -> list[SessionView]:
        """All sessions that ever were, by user; with what memory they take where that can be said."""
        seen = self._seen
        if memory:
            with contextlib.suppress(Unavailable):
                seen = {poll.session_id: poll for poll in await self._spawner.listing(memory=True)}
        return [view(row, seen.get(row.session_id)) for row in await self._db.read(store.every)]

    def saw(self, polls: Mapping[str, Poll], rows: Iterable[SessionRow]) -> None:
        """What the spawner's latest listing says."""
        before, self._seen = self._seen, dict(polls)
        for row in rows:
            poll, was = polls.get(row.session_id), before.get(row.session_id)
            if poll is not None and poll.outdated and not (was is not None and was.outdated):
                self._tell(row.user_id)

    def lock(self, user_id: int) -> asyncio.Lock:
        """Starts and ends of one user's session happen one at a time."""
        return self._locks.setdefault(user_id, asyncio.Lock())

    def went_live(self, row: SessionRow) -> Address:
        """Send requests to the session of that row from now on."""
        self._starts.forgive(row.user_id)
        return self.live.add(row)

    async def finish_stop(self, row: SessionRow) -> None:
        """The second half of a stop: end the process, then say so. Raises Unavailable."""
        if leaving := self.live.drop(row.user_id):
            await asyncio.wait(leaving, timeout=LEAVE_TIMEOUT_S)
        await self._spawner.stop(row.session_id)
        await self.change(row, frozenset({SessionState.STOPPING}), SessionState.STOPPED, "ended", pid=None)

    async def ended(self, row: SessionRow, poll: Poll) -> None:
        """A running or starting session turned out to be gone."""
        self.live.drop(row.user_id)
        last = await asyncio.to_thread(tail, session_log(self._settings.data_dir, row.slug))
        error = "\n".join(part for part in (poll.error or "The session ended without being asked to.", last) if part)
        before = frozenset({SessionState.RUNNING, SessionState.STARTING})
        await self.change(row, before, SessionState.FAILED, poll.error or "gone", error=error, pid=None)

    async def change(
        self, row: SessionRow, expected: frozenset[SessionState], after: SessionState, why: str, **values: object
    ) -> SessionRow | None:
        """One compare-and-set with its log line; None when the row is not as expected any more."""
        change = store.Change(row.user_id, row.generation, expected, after, why, values)
        changed = await self._db.write(lambda s: store.compare_and_set(s, change))
        if changed is not None:
            log.info("session", user=row.slug, session=row.session_id, state=str(after), why=why)
            if after == SessionState.FAILED or (after == SessionState.RUNNING and crashes(changed.history)):
                self._tell(row.user_id)
        return changed

    async def launch(self, row: SessionRow) -> Address:
        """Start what a `starting` row names; harmless when it runs already. Raises Unavailable; then it failed."""
        starting = frozenset({SessionState.STARTING})
        try:
            poll = await self._spawner.start(self._spec(row))
        except (Unavailable, Conflict) as error:
            text = "\n".join(part for part in (error.message, error.details) if part)
            await self.change(row, starting, SessionState.FAILED, error.message, error=text)
            raise did_not_start(error) from error
        changed = await self.change(row, starting, SessionState.RUNNING, "answers", pid=poll.pid)
        if changed is None:
            await self._spawner.stop(row.session_id)
            raise Unavailable("Your workspace was stopped while it started. Try again.")
        return self.went_live(changed)

    async def _start(self, user_id: int, slug: str, active_ms: int | None = None) -> Address:
        async with self.lock(user_id), self._starts.gate:
            row = await self._db.read(lambda s: store.get(s, user_id))
            if row is not None:
                address = await self._reconciler.settle(row)
                if address is not None:
                    return address
                await self._refuse_another_crash(user_id)
            directories = await asyncio.to_thread(prepare_user, self._settings.data_dir, slug)
            self._tasks.start(f"prune temp of user {user_id}", _prune(directories, slug))
            socket = str(session_socket(self._run, slug))
            start = store.Start(user_id, slug, socket, new_id(), new_secret(), active_ms)
            limit = self._settings.session_limit
            return await self.launch(await self._db.write(lambda s: store.begin(s, start, limit=limit)))

    async def _refuse_another_crash(self, user_id: int) -> None:
        row = await self._db.read(lambda s: store.get(s, user_id))
        if row is not None and row.state == SessionState.FAILED and gave_up(row.history, now_ms()):
            raise Unavailable(
                f"Your session ended {CRASHES} times within a minute, so it is not started again by itself.",
                row.error.partition("\n")[2],
            )

    def _tell(self, user_id: int) -> None:
        for callback in self._on_news:
            callback(user_id)

    def _spec(self, row: SessionRow) -> SessionSpec:
        data = self._settings.data_dir
        return SessionSpec(
            session_id=row.session_id,
            user=row.slug,
            directories=user_directories(data, row.slug),
            public=public_directory(data),
            socket=Path(row.socket),
            secret=row.secret,
            log=session_log(data, row.slug),
            max_upload_mb=self._settings.max_upload_mb,
        )


async def _prune(directories: Directories, slug: str) -> None:
    removed = await asyncio.to_thread(prune_temp, directories)
    if removed:
        log.info("old previews removed", user=slug, files=removed)
