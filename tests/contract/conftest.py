"""One server of each kind per test run, a fresh client per test."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract import servers
from tests.contract.servers import Server
from tests.contract.wire import WAIT_S, Comfy
from tests.real_comfyui import configured

KINDS = {"engine": servers.engine, "proxy": servers.proxy, "comfyui": servers.comfyui}


# Without a real ComfyUI its half is not collected at all: test_servers.py says so once instead of 150 times.
PARAMS = ["engine", "proxy", *([pytest.param("comfyui", marks=pytest.mark.comfyui)] if configured() else [])]


@pytest.fixture(scope="session", params=PARAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each server in turn; tests share it and must not depend on an empty history."""
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
async def comfy(server: Server) -> AsyncIterator[Comfy]:
    """A client of the server, which is idle when the test starts."""
    client = Comfy(server.url)
    yield client
    await client.post("/queue", {"clear": True})
    await client.post("/interrupt")
    await idle(client)
    await client.close()


async def idle(client: Comfy) -> None:
    """Wait until nothing runs: what is broadcast of a job's end is not for the next test."""
    async with asyncio.timeout(WAIT_S):
        while any((await client.get("/queue")).json().values()):
            await asyncio.sleep(0.02)
