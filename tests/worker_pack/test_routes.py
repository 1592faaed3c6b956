"""The pack's door and routes by themselves: what strangers send, and what is too large."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from backend_pool.engine.engine import build
from backend_pool.engine.options import Options
from backend_pool.engine.pack_host import EngineHost
from backend_pool.worker_pack import routes
from backend_pool.worker_pack.config import Config
from backend_pool.worker_pack.pack import Pack
from backend_pool.worker_pack.routes import Routes, door
from backend_pool.worker_pack.wire import PREFIX, SECRET_HEADER
from tests.backend_pool.graphs import saved

Client = TestClient[web.Request, web.Application]


class Server:
    """A server with open doors whose own POST /prompt waits for `go`."""

    def __init__(self, root: Path) -> None:
        self.came, self.go = asyncio.Event(), asyncio.Event()
        config = Config("http://127.0.0.1:9", "cwt_x", "worker-one", "one", open=True)
        self.pack = Pack(config, EngineHost(build(Options(root))), root / "pack")
        self.pack.learn({"secret": "known"})
        self.app = web.Application(middlewares=[door(self.pack)])
        Routes(self.pack).add_to(self.app.router)
        self.app.router.add_post("/prompt", self.prompt)

    async def prompt(self, _request: web.Request) -> web.Response:
        """The operator's."""
        self.came.set()
        await self.go.wait()
        return web.json_response({})


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with TestClient(TestServer(server.app)) as made:
        yield made


async def test_no_job_begins_while_the_operators_prompt_is_taken(server: Server, client: Client) -> None:
    """It would be validated in the directories of the job's user."""
    secret = {SECRET_HEADER: "known"}
    order = {"prompt": saved(), "prompt_id": "one", "client_id": "one"}
    body = {"user": "a" * 8, "storage": {"inputs": [], "stubs": []}, "order": order}
    async with asyncio.TaskGroup() as group:
        theirs = group.create_task(client.post("/prompt", json={}))
        await server.came.wait()
        async with client.post(f"{PREFIX}/jobs", json=body, headers=secret) as response:
            assert response.status == 409
        server.go.set()
    assert theirs.result().status == 200
    async with client.post(f"{PREFIX}/jobs", json=body, headers=secret) as response:
        assert response.status == 200
    async with client.post("/prompt", json={}) as response:
        assert response.status == 423


async def test_an_order_has_an_end(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LARGEST_ORDER", 100)
    for path in ("jobs", "validate"):
        async with client.post(f"{PREFIX}/{path}", data=b" " * 101, headers={SECRET_HEADER: "known"}) as response:
            assert response.status == 413
    assert not server.pack.slot.busy
