"""What the proxy adds to a session's list of extensions, whatever the session answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import Unavailable
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.starter import Starter
from proxy.webui import SCRIPT, STARTER, WebUi

WAIT_S = 10.0


@asynccontextmanager
async def session(path: Path, answer: Callable[[], web.Response]) -> AsyncIterator[Upstream]:
    """Something on a Unix socket that answers GET /extensions so."""

    async def extensions(_request: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.add_routes([web.get("/extensions", extensions)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    yield Upstream("s", path, "http://127.0.0.1")
    await runner.cleanup()


@asynccontextmanager
async def made(tmp_path: Path) -> AsyncIterator[WebUi]:
    settings = Settings(data_dir=tmp_path)
    db, tasks = Database(sqlite_url(tmp_path / "cluster.db")), Tasks()
    pool, upstreams = Pool(Registry(db), settings, tasks), Upstreams(settings)
    yield WebUi(upstreams, Starter(pool, settings))
    await upstreams.close()
    await tasks.stop()
    await pool.close()
    await asyncio.to_thread(db.close)


def listed(body: bytes) -> Any:
    return json.loads(body)


async def test_our_script_comes_after_the_session_s(tmp_path: Path) -> None:
    own = ["/extensions/core/a.js", "/extensions/pack/b.js"]
    async with made(tmp_path) as webui, session(tmp_path / "s.sock", lambda: web.json_response(own)) as upstream:
        answer = await webui.answer("/api/extensions", upstream)
        assert listed(bytes(answer.body)) == [*own, SCRIPT]
        assert answer.headers["cache-control"] == "no-store"


async def test_a_list_that_is_none_leaves_ours(tmp_path: Path) -> None:
    async with made(tmp_path) as webui, session(tmp_path / "s.sock", lambda: web.json_response({"a": 1})) as upstream:
        assert listed(bytes((await webui.answer("/extensions", upstream)).body)) == [SCRIPT]


async def test_nonsense_and_silence_are_told_as_an_outage(tmp_path: Path) -> None:
    async with made(tmp_path) as webui:
        async with session(tmp_path / "s.sock", lambda: web.Response(text="<html>")) as upstream:
            with pytest.raises(Unavailable):
                await webui.answer("/extensions", upstream)
        with pytest.raises(Unavailable):
            await webui.answer("/extensions", Upstream("gone", tmp_path / "gone.sock", "http://127.0.0.1"))


async def test_only_its_own_paths_are_its(tmp_path: Path) -> None:
    async with made(tmp_path) as webui:
        assert [path for path in ("/extensions", "/api/extensions", STARTER) if not webui.answers(path)] == []
        assert not webui.answers("/extensions/pack/b.js") and not webui.answers("/extensionsx")
