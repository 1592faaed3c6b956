"""A node that only the user's own session has is named as such, whatever the session answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from backend_pool.files.user_models import Files
from backend_pool.offers.judgement import judge
from backend_pool.offers.pool_info import PoolInfo
from proxy.base.settings import Settings
from proxy.comfy.session_nodes import LONGEST_BYTES, SessionNodes
from proxy.forward.upstreams import Upstream, Upstreams
from tests.backend_pool.infos import info, providers
from tests.engine.graphs import node

NO_FILES = Files(lambda _where, _kind: [], lambda _folder: [])
NOBODY = "No backend has the node {}."
HERS = "Your session has the node {}, but no backend has it"


@asynccontextmanager
async def session(folder: Path) -> AsyncIterator[Upstream]:
    """A session that has the node `Mine`, and misbehaves about others."""

    async def one(request: web.Request) -> web.StreamResponse:
        assert request.headers["X-Secret"] == "s"
        match request.match_info["kind"]:
            case "Mine" | "a/b":
                return web.json_response({request.match_info["kind"]: {}})
            case "Long":
                return web.Response(body=b"{" + b" " * (2 * LONGEST_BYTES))
            case "Page":
                return web.Response(text="<html>")
            case "Moved":
                raise web.HTTPFound("http://127.0.0.1:9/")
            case "Silent":
                await asyncio.Event().wait()
        return web.json_response({})

    app = web.Application()
    app.add_routes([web.get("/object_info/{kind}", one)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "s")).start()
    try:
        yield Upstream("k", folder / "s", "http://127.0.0.1", {"X-Secret": "s"})
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Mine", HERS),
        ("a/b", HERS),
        ("Long", HERS),
        ("Other", NOBODY),
        ("Page", NOBODY),
        ("Moved", NOBODY),
        ("Silent", NOBODY),
        ("x" * 500, NOBODY),
    ],
)
async def test_whose_node_it_is(tmp_path: Path, kind: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.comfy.session_nodes.TIMEOUT_S", 0.5 if kind == "Silent" else 20)
    upstreams = Upstreams(Settings(data_dir=tmp_path))
    pool, prompt = PoolInfo(providers(info("a"))), {"7": node(kind)}
    async with session(tmp_path) as upstream:
        nodes = SessionNodes(lambda user_id: upstream if user_id == 1 else None, upstreams)
        verdict = judge(prompt, pool, NO_FILES)
        hers = await nodes.explained(verdict, prompt, pool, 1)
        assert hers.error is not None and words.format(kind) in hers.error["details"]
        assert hers.error["details"].startswith("Node ID '#7'. ")
        assert await nodes.explained(verdict, prompt, pool, 2) is verdict, "no session runs"
        denied = PoolInfo(pool.providers, denied=[kind])
        told = judge(prompt, denied, NO_FILES)
        assert await nodes.explained(told, prompt, denied, 1) is told
        await upstreams.close()
