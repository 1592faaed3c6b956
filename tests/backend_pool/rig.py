"""A pool with its dispatcher, on a real database and real engines: what the proxy composes, without the proxy.

`Heard` is the listener: it keeps every frame and lets a test wait for one.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sqlmodel import SQLModel

from backend_pool.backends.health import Health
from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from backend_pool.books.shares import Shares
from backend_pool.comfy.frames import Frame
from backend_pool.dispatch.assembly import Surroundings
from backend_pool.dispatch.assembly import assemble as put_together
from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.files.owner import Owner
from backend_pool.files.user_files import UserDirs
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.timings import Timings
from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.listener import JobListener
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.jobs.submission import Submission
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.workers.registrations import Workers
from proxy.base.database import Database, sqlite_url
from proxy.base.names import new_id
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from tests.backend_pool.default_shares import DefaultShares, InForce

WAIT_S = 60.0
QUICK: JsonDict = {
    "probe_interval_s": 0.2,
    "probe_timeout_s": 1.0,
    "backend_down_after_s": 1.5,
    "job_poll_s": 0.2,
    "upstream_timeout_s": 5.0,
    "transfer_timeout_s": 5.0,
}


@dataclass
class Heard:
    """A listener that remembers. Events are `(prompt_id, type, data)`; binary frames have the type `binary`."""

    events: list[tuple[str, str, Any]] = field(default_factory=list)
    queues: list[int] = field(default_factory=list)
    also: Callable[[str, Any], None] | None = None
    """Called with type and data the moment a frame is told."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def frame(self, job: Job, frame: Frame) -> None:
        """Keep it."""
        if isinstance(frame, bytes):
            self.events.append((job.prompt_id, "binary", frame))
        else:
            message = json.loads(frame)
            self.events.append((job.prompt_id, message["type"], message["data"]))
        if self.also is not None:
            self.also(*self.events[-1][1:])
        self._changed.set()

    def queue_changed(self, user_id: int) -> None:
        """Keep it."""
        self.queues.append(user_id)
        self._changed.set()

    def of(self, prompt_id: str) -> list[tuple[str, Any]]:
        """Type and data of a job's frames."""
        return [(kind, data) for owner, kind, data in self.events if owner == prompt_id]

    def kinds(self, prompt_id: str) -> list[str]:
        """Types of a job's frames, progress and previews left out."""
        busy = ("progress", "progress_state", "binary")
        return [kind for kind, _ in self.of(prompt_id) if kind not in busy]

    def first(self, prompt_id: str, kind: str) -> Any:
        """Data of a job's first frame of that type."""
        return next(data for found, data in self.of(prompt_id) if found == kind)

    async def until(self, prompt_id: str, matches: Callable[[str, Any], bool] | str) -> Any:
        """Data of the job's first frame that matches, waiting for it."""
        fits = matches if callable(matches) else lambda kind, _data: bool(kind == matches)
        async with asyncio.timeout(WAIT_S):
            while True:
                for kind, data in self.of(prompt_id):
                    if fits(kind, data):
                        return data
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, prompt_id: str) -> None:
        """Wait for the job's end marker."""
        await self.until(prompt_id, lambda kind, data: kind == "executing" and data["node"] is None)


@dataclass
class Rig:
    """The parts, and shortcuts over them."""

    root: Path
    db: Database
    store: JobStore
    queries: JobQueries
    registry: Registry
    pool: Pool
    dispatcher: Dispatcher
    heard: Heard
    tasks: Tasks
    shares: InForce

    def share_by(self, shares: Shares) -> None:
        """Let these say from now on who may use how much."""
        self.shares.by = shares
        self.dispatcher.shares_changed()

    def dirs(self, user_id: int) -> UserDirs:
        """That user's directories."""
        return user_dirs(self.root, user_id)

    async def submit(self, prompt: JsonDict, user_id: int = 1, **more: Any) -> str:
        """Queue a prompt; its id."""
        order = submission(prompt, user_id, **more)
        with self.dispatcher.hold(user_id, order.prompt_id):
            await self.store.submit(order)
        return order.prompt_id

    async def cancel(self, prompt_id: str, user_id: int = 1) -> list[Job]:
        """Cancel it as the proxy does."""
        jobs = await self.store.cancel(user_id, [prompt_id], frozenset(JobState))
        self.dispatcher.cancel(jobs)
        return jobs

    async def run(self, prompt: JsonDict, user_id: int = 1, **more: Any) -> tuple[Job, JobDocument]:
        """Queue a prompt, wait for its end marker, read what the history says."""
        prompt_id = await self.submit(prompt, user_id, **more)
        await self.heard.ended(prompt_id)
        return await self.entry(prompt_id, user_id)

    async def entry(self, prompt_id: str, user_id: int = 1) -> tuple[Job, JobDocument]:
        """The job and its document."""
        found = await self.queries.one(user_id, prompt_id)
        assert found is not None
        return found

    async def final(self, prompt_id: str, user_id: int = 1) -> tuple[Job, JobDocument]:
        """The job once it has ended."""
        await self.heard.ended(prompt_id)
        found = await self.entry(prompt_id, user_id)
        assert found[0].state in FINAL
        return found

    async def join(self, *urls: str) -> None:
        """Register backends and wait until all of them may take work."""
        for url in urls:
            await self.registry.add(url)
        await self.pool.refresh()
        await self.eventually(lambda: all(member.idle for member in self.pool.members.values()))

    async def eventually(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so; for what no event announces."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.02)

    def health(self) -> list[Health]:
        """Health of the members, oldest first."""
        return [member.health for _, member in sorted(self.pool.members.items())]

    def files(self, user_id: int = 1) -> list[str]:
        """Every file of that user's output and temp directories, as `output/sub/name`."""
        home = self.root / "users" / str(user_id)
        found = (path for kind in ("output", "temp") for path in (home / kind).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(home)) for path in found)


def user_dirs(root: Path, user_id: int) -> UserDirs:
    """A user's directories below `root`, made."""
    home = root / "users" / str(user_id)
    for name in ("input", "output", "temp"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return UserDirs(home / "input", home / "output", home / "temp")


def submission(prompt: JsonDict, user_id: int = 1, **more: Any) -> Submission:
    """A prompt on its way; the saving nodes are its targets."""
    targets = [key for key, node in prompt.items() if node["class_type"].startswith(("Save", "Preview"))]
    given: JsonDict = {"prompt_id": new_id(), "client_id": f"tab-{user_id}", "extra_data": {}, "targets": targets}
    return Submission(user_id=user_id, prompt=prompt, **(given | more))


def open_database(root: Path) -> Database:
    """A fresh SQLite database with the schema."""
    db = Database(sqlite_url(root / "cluster.db"))
    SQLModel.metadata.create_all(db.writer)
    return db


def assemble(
    root: Path,
    *,
    listener: JobListener,
    store: JobStore,
    db: Database,
    settings: Settings,
    workers: Workers | None = None,
) -> Rig:
    """Make the parts; nothing runs yet."""

    async def owner_of(user_id: int, secrets: Mapping[str, Any]) -> Owner:
        return Owner(user_dirs(root, user_id), f"{user_id:020x}", secrets)

    tasks, shares = Tasks(), InForce(DefaultShares(settings))
    registry = Registry(db)
    pool = Pool(registry, settings, tasks, workers)
    dispatcher = put_together(
        Surroundings(
            store=store,
            pool=pool,
            tasks=tasks,
            listener=listener,
            owner_of=owner_of,
            settings=settings,
            shares=shares,
            timings=Timings(db),
            outlooks=Outlooks(),
        )
    )
    pool.on_change.append(dispatcher.ring)
    heard = listener if isinstance(listener, Heard) else Heard()
    return Rig(root, db, store, JobQueries(db), registry, pool, dispatcher, heard, tasks, shares)


@contextlib.asynccontextmanager
async def rig(root: Path, *urls: str, **settings: Any) -> AsyncIterator[Rig]:
    """A running pool over these engines."""
    chosen = Settings.model_validate({"data_dir": root, **QUICK, **settings})
    db = open_database(root)
    store = JobStore(db, chosen.queue_limit, chosen.history_limit)
    made = assemble(root, listener=Heard(), store=store, db=db, settings=chosen)
    async with running(made):
        await made.join(*urls)
        yield made
        assert made.tasks.dead == {}


@contextlib.asynccontextmanager
async def running(made: Rig) -> AsyncIterator[None]:
    """Its loops, while inside."""
    made.tasks.start("backends", made.pool.watch(), vital=True)
    made.tasks.start("dispatcher", made.dispatcher.watch(), vital=True)
    try:
        yield
    finally:
        await made.tasks.stop()
        await made.pool.close()
        await asyncio.to_thread(made.db.close)


async def engine_get(url: str, path: str) -> Any:
    """JSON of an engine, asked directly."""
    async with aiohttp.ClientSession(trust_env=False) as http, http.get(url + path) as response:
        return await response.json()


async def arm(url: str, **fault: Any) -> None:
    """Order a fault."""
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(f"{url}/engine/faults", json=fault) as response,
    ):
        assert response.status == 200, await response.text()


async def disarm(url: str) -> None:
    """Take all orders back; hung jobs go on."""
    async with aiohttp.ClientSession(trust_env=False) as http, http.delete(f"{url}/engine/faults") as response:
        assert response.status == 200
