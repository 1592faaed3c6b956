"""What passes from a session's own socket to a tab: its log lines and its packs' events, never what the proxy tells."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from starlette.websockets import WebSocket

from proxy.base.settings import Settings
from proxy.forward.session_leg import OURS, SessionLeg
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.tabs.user_socket import UserSocket

WAIT_S = 20.0


class Session:
    """A session's /ws on a Unix socket; `say` sends to whoever is connected."""

    def __init__(self, path: Path) -> None:
        self.upstream = Upstream(path.stem, path, "http://127.0.0.1", {"X-Secret": "s"})
        self.joined: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue()
        self._sockets: list[web.WebSocketResponse] = []

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        flags = await socket.receive_json()
        await self.joined.put((request.query["clientId"], request.headers.get("X-Secret", ""), flags))
        async for _ in socket:
            pass
        return socket

    async def say(self, *frames: str | bytes) -> None:
        for frame in frames:
            await (self._sockets[-1].send_str(frame) if isinstance(frame, str) else self._sockets[-1].send_bytes(frame))


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[Session]:
    session = Session(path)
    app = web.Application()
    app.add_routes([web.get("/ws", session.serve)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    yield session
    await runner.cleanup()


class Leg:
    """A tab's leg to whichever session is there now, and what the tab is sent."""

    def __init__(self, tmp_path: Path) -> None:
        self.session: Session | None = None
        self.lost: asyncio.Queue[str | None] = asyncio.Queue()
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        settings = Settings(data_dir=tmp_path)
        self.upstreams = Upstreams(settings)
        self._web_socket = WebSocket({"type": "websocket", "headers": []}, self._said.get, self._sent.put)
        self._tab = UserSocket(self._web_socket, 1, "my tab/1", limit=100, max_upload_mb=1)
        self._leg = SessionLeg(self._find, self.lost.put, self.upstreams, settings, self._tab)

    def _find(self) -> Upstream | None:
        return self.session.upstream if self.session else None

    async def run(self) -> None:
        await self._web_socket.accept()
        await self._tab.serve(self._leg.run())

    def close(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def heard(self) -> Any:
        message = await asyncio.wait_for(self._sent.get(), WAIT_S)
        return await self.heard() if message["type"] == "websocket.accept" else message["text"]


@pytest.fixture
async def leg(tmp_path: Path) -> AsyncIterator[Leg]:
    made = Leg(tmp_path)
    async with asyncio.TaskGroup() as group:
        group.create_task(made.run())
        yield made
        made.close()
    await made.upstreams.close()


async def joined(session: Session) -> tuple[str, str, Any]:
    return await asyncio.wait_for(session.joined.get(), WAIT_S)


async def test_only_what_is_the_sessions_to_tell_passes(tmp_path: Path, leg: Leg) -> None:
    async with running(tmp_path / "a.sock") as session:
        leg.session = session
        sid, secret, flags = await joined(session)
        assert (sid, secret, flags) == ("my tab/1", "s", {"type": "feature_flags", "data": {}})
        forged = [json.dumps({"type": kind, "data": {"prompt_id": "p"}}) for kind in sorted(OURS)]
        nonsense: list[str | bytes] = ["", "{", "[1]", '{"type": 3}', "[" * 50_000, b"", b"\0\0\0\1\0\0\0\1jpeg"]
        lines = json.dumps({"type": "logs", "data": {"entries": [{"t": "now", "m": "a line"}]}})
        event = json.dumps({"type": "pack.event", "data": [1, 2]})
        await session.say(*forged, *nonsense, lines, event)
        assert [await leg.heard(), await leg.heard()] == [lines, event]


async def test_it_follows_the_session_through_restarts(tmp_path: Path, leg: Leg) -> None:
    assert await asyncio.wait_for(leg.lost.get(), WAIT_S) is None  # it looks for a crashed one first
    for name in ("a", "b"):
        async with running(tmp_path / f"{name}.sock") as session:
            leg.session = session
            await joined(session)
            await session.say(event := json.dumps({"type": "hello", "data": {"from": name}}))
            assert await leg.heard() == event
            leg.session = None
        assert await asyncio.wait_for(leg.lost.get(), WAIT_S) == name
