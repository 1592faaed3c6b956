"""Tokens are seen by the proxy alone: no log, no session, no backend and no file ever holds one."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from tests.cluster import start_cluster
from tests.contract import graphs
from tests.engines import start_engine
from tests.system.inside import socket_of
from tests.system.people import Someone, painting

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Tap:
    """Every byte that goes one way through a relay on the way to somebody."""

    def __init__(self, connect: Connect) -> None:
        self.heard = bytearray()
        self._connect = connect

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, sink = await self._connect()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, sink, self.heard))
            group.create_task(self._copy(upstream, writer, None))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while chunk := await source.read(65536):
                if kept is not None:
                    kept += chunk
                sink.write(chunk)
                await sink.drain()
        sink.close()


async def every_way(someone: Someone) -> None:
    """Each kind of request with each way to send a token, the failing ones too."""
    token, base = someone.person.token, someone.cluster.url
    paths = [
        "/api/settings",
        "/queue",
        "/nothing/here",
        "/view?filename=none.png",
        "/cluster/api/v1/me",
        "/cluster/none",
    ]
    headers = [{"Authorization": f"Bearer {token}"}, {"Authorization": token}, {"X-API-Key": token}]
    async with aiohttp.ClientSession() as http:
        for path in paths:
            joined = f"{path}{'&' if '?' in path else '?'}token={token}"
            urls = [f"{base}/t/{token}{path}", f"{base}{joined}", f"{base}{joined}&token=bad"]
            for url in urls:
                async with http.get(
                    url, headers={"Referer": url, "Cookie": f"x=1; comfy_cluster_login={token}"}
                ) as got:
                    await got.read()
            for header in headers:
                async with http.get(base + path, headers=header) as got:
                    await got.read()
        for url in (f"{base}/t/{token}/ws?clientId=a", f"{base}/ws?token={token}", f"{base}/t/{token}/none/ws"):
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                async with http.ws_connect(url) as ws:
                    await ws.receive()
        body = {"prompt": {}, "token": "x"}
        async with http.post(f"{base}/api/prompt?token={token}", json=body) as refused:
            assert refused.status == 400
        async with http.post(f"{base}/t/{token}/upload/image", data={"image": "no file"}) as refused:
            await refused.read()


async def test_tokens_reach_nobody_but_the_proxy(tmp_path: Path) -> None:
    engine = start_engine(tmp_path / "engine")
    host, port = engine.url.removeprefix("http://").split(":")
    to_backend = Tap(lambda: asyncio.open_connection(host, int(port)))
    server = await asyncio.start_server(to_backend, "127.0.0.1", 0)
    backend = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    env = {"COMFY_CLUSTER_LOG_LEVEL": "debug"}
    with await asyncio.to_thread(start_cluster, tmp_path, "--engines", "0", "--backend", backend, env=env) as cluster:
        ann = Someone(cluster, await asyncio.to_thread(cluster.user, "ann"))
        token = ann.person.token.encode()
        await ann.comfy.post("/cluster/api/v1/session/start")
        session = socket_of(cluster, ann.person.slug)
        real = session.rename(session.with_name("real.sock"))
        to_session = Tap(lambda: asyncio.open_unix_connection(real))
        tapped = await asyncio.start_unix_server(to_session, session)
        await every_way(ann)
        await ann.comfy.upload("a.png", b"x")
        await ann.runs(painting(1), "job", extra_data={"api_key_comfy_org": "paid-secret"})
        await ann.runs(graphs.saved(2), "job")
        await ann.leave()
        assert b"/settings" in to_session.heard
        assert b"/prompt" in to_backend.heard
        assert b"paid-secret" in to_backend.heard  # what is for the backend does get there
        assert token not in to_session.heard
        assert token not in to_backend.heard
        assert await asyncio.to_thread(cluster.stop) == 0
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(path.parent.name == "logs" for path in written)
        for path in written:
            content = path.read_bytes()
            assert token not in content, path
            assert b"paid-secret" not in content, path
    tapped.close()
    server.close()
    assert engine.stop() == 0
