"""A pool whose backends register themselves: the parts of `tests/backend_pool/rig.py`, and the route for heartbeats.

`worker` starts an embedded engine with the pack's server part mounted, as an operator would: with settings in a file.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from backend_pool.backends.member import Member
from backend_pool.jobs.store import JobStore
from backend_pool.worker_pack.config import Config, save
from backend_pool.workers.registrations import Workers
from backend_pool.workers.tokens import create_now
from proxy.api.heartbeat_routes import worker_route
from proxy.base.settings import Settings
from tests.backend_pool.rig import QUICK, Heard, Rig, assemble, open_database, running
from tests.engines import Engine, start_engine
from tests.prompt_server import PromptServer

KEY = b"k" * 32
BEAT_S = 0.2


@dataclass
class Hub:
    """A running pool that workers can register with at `url`."""

    rig: Rig
    workers: Workers
    settings: Settings
    url: str

    def token(self, name: str = "test") -> str:
        """A fresh worker token."""
        return create_now(self.rig.db, name)

    def config(self, path: Path, worker_id: str = "worker-one", **more: Any) -> Path:
        """The settings of a worker pack, as its installer writes them."""
        given: dict[str, Any] = {"server": self.url, "token": self.token(worker_id), "name": worker_id} | more
        save(path, Config(worker_id=worker_id, heartbeat_s=BEAT_S, **given))
        return path

    async def member(self, name: str = "worker-one", holds: Callable[[Member], bool] | None = None) -> Member:
        """The backend of that name once it is idle, and `holds` if that is asked."""
        fits = holds or (lambda member: True)

        def found() -> list[Member]:
            members = self.rig.pool.members.values()
            return [member for member in members if member.row.name == name and member.idle and fits(member)]

        await self.rig.eventually(lambda: bool(found()))
        return found()[0]


@contextlib.asynccontextmanager
async def hub(root: Path, **settings: Any) -> AsyncIterator[Hub]:
    """A pool without backends."""
    chosen = Settings.model_validate({"data_dir": root, **QUICK, "heartbeat_interval_s": BEAT_S, **settings})
    db = open_database(root)
    store = JobStore(db, chosen.queue_limit, chosen.history_limit)
    workers = Workers(db, KEY, root / "users", chosen.heartbeat_interval_s)
    made = assemble(root, listener=Heard(), store=store, db=db, settings=chosen, workers=workers)
    async with running(made), serving(Starlette(routes=[worker_route(workers, chosen)])) as url:
        yield Hub(made, workers, chosen, url)
        assert made.tasks.dead == {}


@contextlib.asynccontextmanager
async def serving(app: Starlette, port: int = 0) -> AsyncIterator[str]:
    """Serve an application on a loopback port; its URL."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    server = PromptServer(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.serve(sockets=[bound]))
        await server.ready()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.end()
            await task


Begin = Callable[..., Engine]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start engines with the pack: `begin(config, *arguments)`; they are killed at the end."""
    started: list[Engine] = []

    def start(config: Path, *arguments: str) -> Engine:
        folder = tmp_path / "engines" / config.stem
        started.append(start_engine(folder, "--worker-pack", str(config), *arguments))
        return started[-1]

    yield start
    for engine in started:
        engine.kill()
