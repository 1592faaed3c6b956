"""A user's session as the proxy sees it: there, on its way, or not. Owns rows, live addresses and starts in flight.

Row before deed: a start is written down with its secret before a process exists, a stop before it is asked for. What a
crash leaves behind is settled by `reconcile.py`, which compares rows with what really runs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from proxy.base.clock import monotonic_s, now_ms
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
from user_sessions.model import SessionRow
from user_sessions.reconcile import Reconciler
from user_sessions.run_dir import run_dir, session_socket
from user_sessions.runtime import SessionSpec
from user_sessions.spawner import Poll, Spawner
from user_sessions.state import SessionState
from user_sessions.view import SessionView, view

STARTS_AT_ONCE = 8
WAIT_MARGIN_S = 60.0
COOL_DOWN_S = 2.0
"""How long a failed start is answered from memory: a page that reloads must not start a process each time."""

log = events(__name__)


@dataclass(frozen=True)
class Address:
    """Where a session answers, and the secret it wants."""

    socket: Path
    secret: str = field(repr=False)
    session_id: str


@dataclass(frozen=True)
class Live:
    """A running session of this generation."""

    address: Address
    generation: int


OnEnd = Callable[[int, Address], Awaitable[None]]


class Sessions:
    """Start, find, touch and stop users' sessions."""

    def __init__(self, settings: Settings, db: Database, spawner: Spawner, tasks: Tasks) -> None:
        self._settings = settings
        self._db = db
        self._spawner = spawner
        self._tasks = tasks
        self._run = run_dir(settings)
        self._live: dict[int, Live] = {}
        self._starts: dict[int, asyncio.Future[Address]] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._failed: dict[int, tuple[float, Unavailable]] = {}
        self._gate = asyncio.Semaphore(STARTS_AT_ONCE)
        self._on_end: list[OnEnd] = []
        self.touched: dict[int, int] = {}
        """Last real action by user in milliseconds, not yet in the rows."""
        self._reconciler = Reconciler(settings, db, spawner, self)

    def on_end(self, callback: OnEnd) -> None:
        """Call this when a session ended or is about to: the proxy closes its connections to that socket."""
        self._on_end.append(callback)

    async def adopt(self) -> None:
        """At proxy start: keep what rows and spawner agree on, settle the rest. Raises Unavailable."""
        await self._reconciler.run(starting_up=True)

    async def watch(self, busy: Callable[[], set[int]]) -> None:
        """Until cancelled: notice ends, stop idle sessions, write activity down. `busy` users are never idle."""
        await self._reconciler.watch(busy)

    def address(self, user_id: int) -> Address | None:
        """Where that user's session answers; from memory, for the path of every request."""
        live = self._live.get(user_id)
        return live.address if live else None

    def touch(self, user_id: int) -> None:
        """A real action of that user, not a poll or a reconnect. Memory only; `watch` writes it down."""
        self.touched[user_id] = now_ms()

    async def ensure(self, user_id: int, slug: str) -> Address:
        """The address of a session that answers; starts one or joins a start under way. Raises Unavailable."""
        live = self._live.get(user_id)
        if live is not None:
            return live.address
        future = self._starts.get(user_id)
        if future is None:
            until, failure = self._failed.get(user_id, (0.0, None))
            if failure is not None and monotonic_s() < until:
                raise Unavailable(failure.message, failure.details)
            future = self._starts[user_id] = asyncio.get_running_loop().create_future()
            self._tasks.start(f"start session of user {user_id}", self._start_into(future, user_id, slug))
        try:
            # Shielded: a browser that goes away must not take the start from others who wait for it.
            async with asyncio.timeout(self._settings.session_start_timeout_s + WAIT_MARGIN_S):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise Unavailable("Your workspace takes too long to start. Try again in a moment.") from error

    async def stop(self, user_id: int, why: str = "stop asked for", idle_since_ms: int | None = None) -> None:
        """End that user's session; returns when it is gone. With `idle_since_ms` only if nothing was done since.
        Raises Unavailable when the end is not certain yet: it is wanted, written down and tried again."""
        async with self.lock(user_id):
            row = await self._db.read(lambda s: store.get(s, user_id))
            if row is None or row.state == SessionState.STOPPED:
                return
            if idle_since_ms is not None and max(row.active_ms, self.touched.get(user_id, 0)) > idle_since_ms:
                return
            before = frozenset({SessionState.STARTING, SessionState.RUNNING})
            if row.state == SessionState.FAILED:
                await self.change(row, frozenset({SessionState.FAILED}), SessionState.STOPPED, why, desired="stopped")
                return
            await self.change(row, before, SessionState.STOPPING, why, desired="stopped")
            await self.finish_stop(row)

    async def restart(self, user_id: int, slug: str) -> Address:
        """Stop and start. Raises Unavailable."""
        self._failed.pop(user_id, None)
        await self.stop(user_id, "restart asked for")
        return await self.ensure(user_id, slug)

    async def host_ended(self) -> None:
        """At the server's own clean stop, once its session host has ended: what ran was stopped, nothing failed."""
        self._live.clear()
        for row in await self._db.read(store.with_process):
            alive = frozenset({SessionState.STARTING, SessionState.RUNNING})
            await self.change(row, alive, SessionState.STOPPING, "the server stops", desired="stopped")
            await self.change(row, frozenset({SessionState.STOPPING}), SessionState.STOPPED, "ended", pid=None)

    async def recheck(self, user_id: int) -> Address | None:
        """Ask the spawner at once, for a caller whose connection was refused: None when the session is gone."""
        live = self._live.get(user_id)
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

    async def view_of(self, user_id: int) -> SessionView | None:
        """That user's session; None for one who never had any."""
        row = await self._db.read(lambda s: store.get(s, user_id))
        return None if row is None else view(row)

    async def listing(self) -> list[SessionView]:
        """All sessions that ever were, by user."""
        return [view(row) for row in await self._db.read(store.every)]

    def lock(self, user_id: int) -> asyncio.Lock:
        """Starts and ends of one user's session happen one at a time."""
        return self._locks.setdefault(user_id, asyncio.Lock())

    def live_generations(self) -> dict[int, int]:
        """Which generation of whose session this proxy sends requests to."""
        return {user_id: live.generation for user_id, live in self._live.items()}

    def went_live(self, row: SessionRow) -> Address:
        """Send requests to the session of that row from now on."""
        address = Address(Path(row.socket), row.secret, row.session_id)
        self._live[row.user_id] = Live(address, row.generation)
        self._failed.pop(row.user_id, None)
        return address

    def drop(self, user_id: int) -> None:
        """Send nothing there any more and tell whoever holds connections."""
        live = self._live.pop(user_id, None)
        if live is not None:
            for callback in self._on_end:
                self._tasks.start(f"session of user {user_id} ended", _quiet(callback, user_id, live.address))

    async def finish_stop(self, row: SessionRow) -> None:
        """The second half of a stop: end the process, then say so. Raises Unavailable."""
        self.drop(row.user_id)
        await self._spawner.stop(row.session_id)
        await self.change(row, frozenset({SessionState.STOPPING}), SessionState.STOPPED, "ended", pid=None)

    async def ended(self, row: SessionRow, poll: Poll) -> None:
        """A running or starting session turned out to be gone."""
        self.drop(row.user_id)
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
        return changed

    async def launch(self, row: SessionRow) -> Address:
        """Start what a `starting` row names; harmless when it runs already. Raises Unavailable; then it failed."""
        starting = frozenset({SessionState.STARTING})
        try:
            poll = await self._spawner.start(self._spec(row))
        except (Unavailable, Conflict) as error:
            text = "\n".join(part for part in (error.message, error.details) if part)
            await self.change(row, starting, SessionState.FAILED, error.message, error=text)
            raise Unavailable(f"Your workspace did not start: {error.message}", error.details) from error
        changed = await self.change(row, starting, SessionState.RUNNING, "answers", pid=poll.pid)
        if changed is None:
            await self._spawner.stop(row.session_id)
            raise Unavailable("Your workspace was stopped while it started. Try again.")
        return self.went_live(changed)

    async def _start_into(self, future: asyncio.Future[Address], user_id: int, slug: str) -> None:
        try:
            address = await self._start(user_id, slug)
        except ClusterError as error:
            unavailable = error if isinstance(error, Unavailable) else Unavailable(error.message, error.details)
            self._failed[user_id] = (monotonic_s() + COOL_DOWN_S, unavailable)
            future.set_exception(unavailable)
        except BaseException:
            future.set_exception(Unavailable("Your workspace could not be started. The server's log says why."))
            raise
        else:
            future.set_result(address)
        finally:
            del self._starts[user_id]
            if not future.cancelled():
                future.exception()  # whoever asked may be gone: it is in the row and in the log

    async def _start(self, user_id: int, slug: str) -> Address:
        async with self.lock(user_id), self._gate:
            row = await self._db.read(lambda s: store.get(s, user_id))
            if row is not None:
                address = await self._reconciler.settle(row)
                if address is not None:
                    return address
            directories = await asyncio.to_thread(prepare_user, self._settings.data_dir, slug)
            self._tasks.start(f"prune temp of user {user_id}", _prune(directories, slug))
            socket = str(session_socket(self._run, slug))
            start = store.Start(user_id, slug, socket, new_id(), new_secret())
            limit = self._settings.session_limit
            return await self.launch(await self._db.write(lambda s: store.begin(s, start, limit=limit)))

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


async def _quiet(callback: OnEnd, user_id: int, address: Address) -> None:
    try:
        await callback(user_id, address)
    except Exception as error:
        log.error("a listener to the end of sessions failed", exc_info=error)
