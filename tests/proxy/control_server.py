"""A real server with the control pages and the API, on a free port, and people who use it with their own cookies.

The composition is the product's own; sessions, engines and the dispatcher run only where a test asks for them.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from sqlmodel import SQLModel

from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from backend_pool.jobs.submission import Submission
from backend_pool.model import Job, JsonDict
from proxy import lifespan
from proxy.access.accounts import User
from proxy.app import Cluster, build
from proxy.base.database import Database
from proxy.base.settings import Settings
from proxy.server import own_url
from tests.prompt_server import PromptServer

PASSWORD = "long enough"
HTML = {"Accept": "text/html"}
API = "/cluster/api/v1"


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    cluster: Cluster
    store: JobStore

    async def user(self, name: str, *, admin: bool = False) -> User:
        """An account with the password PASSWORD."""
        return await self.cluster.people.access.users.add(name, PASSWORD, is_admin=admin)

    def browser(self, **headers: str) -> httpx.AsyncClient:
        """A browser that nobody has signed in with."""
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    @contextlib.asynccontextmanager
    async def signed_in(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        """A browser with a login of that user."""
        async with self.browser() as client:
            answer = await client.post("/cluster/login", data={"username": name, "password": PASSWORD})
            assert answer.status_code == 303, answer.text
            yield client

    async def job(self, user: User, prompt: JsonDict, prompt_id: str) -> Job:
        """A queued job."""
        new = Submission(
            user_id=user.key, prompt_id=prompt_id, client_id=None, prompt=prompt, extra_data={}, targets=["1"]
        )
        return await self.store.submit(new)

    async def running(self, job: Job, backend_id: int = 1) -> Job:
        """`job` on a backend."""
        assigned = await self.store.assign(job.key, backend_id)
        assert assigned is not None
        return await self.store.running(assigned)

    async def ended(self, job: Job, state: JobState, result: Result) -> Job:
        """`job` with its result."""
        return await self.store.finish(await self.running(job), state, result, "test")


@contextlib.asynccontextmanager
async def serving(data_dir: Path, *, alive: bool = False, **settings: object) -> AsyncIterator[Server]:
    """A server; `alive` brings up sessions, engines and loops too."""
    chosen = Settings.model_validate({"data_dir": data_dir, "engines": 0, **settings})
    for name in ("users", "logs", "run", "public"):
        (data_dir / name).mkdir(mode=0o700, exist_ok=True)
    db = Database(chosen.database)
    SQLModel.metadata.create_all(db.writer)
    cluster = build(chosen, db)
    # The protocol is named so that asyncio sets TCP_NODELAY; without it each small answer waits 40 ms.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    if alive:
        await lifespan.start(cluster, own_url(bound))
    config = uvicorn.Config(cluster.asgi, lifespan="off", log_config=None, ws="websockets-sansio")
    server = PromptServer(config)
    async with asyncio.TaskGroup() as group:
        serving_task = group.create_task(server.serve(sockets=[bound]))
        try:
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            yield Server(url, cluster, JobStore(db, chosen.queue_limit, chosen.history_limit))
        finally:
            server.end()
            await serving_task
            if alive:
                await lifespan.stop(cluster)
            else:
                await cluster.tasks.stop()
                await cluster.people.access.close()
                await cluster.people.upstreams.close()
                await cluster.people.spawner.close()
                await cluster.work.pool.close()
                db.close()
