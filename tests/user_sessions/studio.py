"""What tests of sessions share: settings on short paths, a real session host, a database, a way to ask a session."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from sqlmodel import SQLModel

from proxy.base.database import Database
from proxy.base.errors import Unavailable
from proxy.base.names import new_id, new_secret
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from user_sessions.controller import Sessions
from user_sessions.directories import prepare_user, public_directory, session_log
from user_sessions.host_process import HostProcess
from user_sessions.live import Address
from user_sessions.model import SessionRow
from user_sessions.report import Refresh, Report
from user_sessions.run_dir import run_dir, session_socket
from user_sessions.runtime import SECRET_HEADER, SessionSpec
from user_sessions.spawner import HostSpawner, Poll, Spawner

PROBE = "tests.user_sessions.probe_runtime:ProbeRuntime"
DEAF = "tests.user_sessions.probe_runtime:DeafRuntime"
BROKEN = "tests.user_sessions.probe_runtime:BrokenRuntime"
FRAGILE = "tests.user_sessions.probe_runtime:FragileRuntime"
COLD = "tests.user_sessions.probe_runtime:ColdRuntime"
WAIT_S = 30.0
TABLE = SQLModel.metadata.tables["sessions"]


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A private directory on a path short enough for sockets, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="cs-"))
    try:
        yield path
    finally:
        deadline = time.monotonic() + WAIT_S
        while path.exists() and time.monotonic() < deadline:  # the builder of compressed assets may still write there
            shutil.rmtree(path, ignore_errors=True)


def make_settings(place: Path, **more: Any) -> Settings:
    """Settings of a studio at `place`, with limits for tests."""
    values: dict[str, Any] = {
        "data_dir": place / "data",
        "session_start_timeout_s": 20.0,
        "session_stop_timeout_s": 3.0,
        "log_level": "debug",
    }
    return Settings(**(values | more))


def make_spec(settings: Settings, slug: str) -> SessionSpec:
    """A new session of that user, its directories made."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    directories = prepare_user(settings.data_dir, slug)
    public = public_directory(settings.data_dir)
    public.mkdir(exist_ok=True)
    socket = session_socket(run_dir(settings), slug)
    log = session_log(settings.data_dir, slug)
    return SessionSpec(new_id(), slug, directories, public, socket, new_secret(), log, 10)


async def ask(session: SessionSpec | Address, op: str, *, secret: str | None = None, **order: object) -> dict[str, Any]:
    """Have the probe runtime of that session do something; `{"ok"}`, `{"error"}` or `{"status": 403}`."""
    headers = {SECRET_HEADER: session.secret if secret is None else secret}
    connector = aiohttp.UnixConnector(str(session.socket), force_close=True)
    limit = aiohttp.ClientTimeout(total=WAIT_S)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=limit) as client,
        client.post("http://session/do", json={"op": op, **order}, headers=headers) as response,
    ):
        return {"status": response.status} if response.status != 200 else await response.json()


async def gone(pid: int) -> None:
    """Return once no process has that id; raises TimeoutError."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(WAIT_S):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


async def until(ready: Any) -> None:
    """Return once `await ready()` is true; raises TimeoutError. For states that nothing announces."""
    async with asyncio.timeout(WAIT_S):
        while not await ready():
            await asyncio.sleep(0.02)


async def refreshed(spawner: Spawner) -> Refresh:
    """Ask for a refresh and wait for its end, done or failed."""
    await spawner.refresh("the test")

    async def ended() -> bool:
        return (await spawner.report()).refresh.state in ("done", "failed")

    await until(ended)
    return (await spawner.report()).refresh


class Studio:
    """A session host and what a proxy keeps beside it. `sessions` is the controller of one proxy's life."""

    def __init__(self, place: Path, runtime: str = PROBE, **more: Any) -> None:
        self.settings = make_settings(place, **more)
        self.host = HostProcess(self.settings, runtime)
        self.db = Database(self.settings.database)
        self.tasks = Tasks()
        self.spawner: Spawner = self.host.spawner()
        self.sessions = Sessions(self.settings, self.db, self.spawner, self.tasks)

    async def open(self) -> None:
        """Start the host and make the table."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(SQLModel.metadata.create_all, self.db.writer, [TABLE])
        await self.host.ensure()

    async def close(self) -> None:
        """End all of it."""
        await self.tasks.stop()
        await self.spawner.close()
        await self.host.stop()
        self.db.close()

    async def health(self) -> dict[str, Any]:
        """The host's own account."""
        assert isinstance(self.spawner, HostSpawner)
        return await self.spawner.health()

    async def another_proxy(self, spawner: Spawner | None = None) -> Sessions:
        """What a restarted proxy has: the same rows and host, nothing in memory."""
        return Sessions(self.settings, self.db, spawner or self.spawner, self.tasks)

    async def row(self, user_id: int) -> SessionRow:
        """The row of that user."""
        row = await self.db.read(lambda s: s.get(SessionRow, user_id))
        assert row is not None
        return row


class FaultySpawner:
    """A spawner in front of a real one that can be told to be slow, to hang, or to talk nonsense."""

    def __init__(self, real: Spawner) -> None:
        self.real = real
        self.started: list[SessionSpec] = []
        self.asked = 0
        self.unreachable = False
        self.lose_answers = False
        self.hold: asyncio.Event | None = None

    async def start(self, spec: SessionSpec) -> Poll:
        """See Spawner; `hold` makes it slow, `lose_answers` starts the process and then reports a failure."""
        self.started.append(spec)
        if self.hold is not None:
            await self.hold.wait()
        self._reach()
        poll = await self.real.start(spec)
        if self.lose_answers:
            raise Unavailable("the answer was lost")
        return poll

    async def poll(self, session_id: str) -> Poll:
        """See Spawner."""
        return Poll(session_id, "unknown") if self.unreachable else await self.real.poll(session_id)

    async def stop(self, session_id: str) -> None:
        """See Spawner."""
        self._reach()
        await self.real.stop(session_id)

    async def listing(self, *, memory: bool = False) -> list[Poll]:
        """See Spawner."""
        self._reach()
        return await self.real.listing(memory=memory)

    async def refresh(self, by: str) -> Refresh:
        """See Spawner."""
        self._reach()
        return await self.real.refresh(by)

    async def report(self) -> Report:
        """See Spawner."""
        self._reach()
        return await self.real.report()

    async def close(self) -> None:
        """See Spawner."""

    def _reach(self) -> None:
        self.asked += 1
        if self.unreachable:
            raise Unavailable("the host cannot be reached")


@contextlib.asynccontextmanager
async def open_studio(place: Path, runtime: str = PROBE, **more: Any) -> AsyncIterator[Studio]:
    """A studio with other settings than the fixture's."""
    studio = Studio(place, runtime, **more)
    try:
        await studio.open()
        yield studio
    finally:
        await studio.close()
