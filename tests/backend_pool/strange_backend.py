"""A stranger's server that speaks just enough of ComfyUI's protocol, and answers what custom nodes make it answer.

The embedded engine is too well-behaved for this: ui outputs of odd shapes, NaN, megabytes, a password in front.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeVar

from aiohttp import web

from backend_pool.worker_pack.wire import PREFIX
from proxy.base.clock import now_ms

INFO: dict[str, Any] = {
    "EmptyImage": {"input": {"required": {}}},
    "SaveImage": {"input": {"required": {"filename_prefix": ["STRING", {}]}}, "output_node": True},
}


@dataclass
class Strange:
    """What it says. `ui` is the history's outputs as JSON text, so that it may hold what Python would not write."""

    ui: str = "{}"
    files: dict[str, bytes] = field(default_factory=dict)
    info: Any = field(default_factory=lambda: INFO)
    login: str = ""
    """`name:password`, or nothing for no login."""
    about: Any = None
    """What it says of its worker pack, if it has one."""
    url: str = ""
    refusal: Any = None
    """The 400 that answers every prompt, if any."""
    history: dict[str, str] = field(default_factory=dict)
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    prompts: list[Any] = field(default_factory=list)
    between: list[Any] = field(default_factory=list)
    """What it sends between a job's start and end: bytes, or frames as JSON; `ID` stands for the prompt's id."""
    asked: list[str] = field(default_factory=list)
    """Method and path of every request."""

    @web.middleware
    async def gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """401 for everybody without the password."""
        wanted = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        if self.login and request.headers.get("Authorization") != wanted:
            return web.Response(status=401, text="no")
        self.asked.append(f"{request.method} {request.path}")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def stats(self, _request: web.Request) -> web.Response:
        """GET /system_stats."""
        return web.json_response({"system": {}, "devices": []})

    async def object_info(self, _request: web.Request) -> web.Response:
        """GET /object_info."""
        return web.json_response(self.info)

    async def pack(self, _request: web.Request) -> web.Response:
        """GET of the worker pack's account of itself."""
        return web.Response(status=404) if self.about is None else web.json_response(self.about)

    async def queue(self, _request: web.Request) -> web.Response:
        """GET /queue: nothing ever waits here."""
        return web.json_response({"queue_running": [], "queue_pending": []})

    async def one(self, request: web.Request) -> web.Response:
        """GET /history/{id}."""
        prompt_id = request.match_info["id"]
        entry = self.history.get(prompt_id)
        text = "{}" if entry is None else f"{{{json.dumps(prompt_id)}: {entry}}}"
        return web.Response(text=text, content_type="application/json")

    async def view(self, request: web.Request) -> web.Response:
        """GET /view."""
        content = self.files.get(request.query["filename"])
        if content is None:
            return web.Response(status=404)
        return web.Response(body=content, headers={"Last-Modified": formatdate(usegmt=True)})

    async def prompt(self, request: web.Request) -> web.Response:
        """POST /prompt: ends at once."""
        body = await request.json()
        self.prompts.append(body)
        if self.refusal is not None:
            return web.json_response(self.refusal, status=400)
        prompt_id = body["prompt_id"]
        begun = ["execution_start", {"prompt_id": prompt_id, "timestamp": now_ms()}]
        told = ["execution_success", {"prompt_id": prompt_id, "timestamp": now_ms()}]
        status = {"status_str": "success", "completed": True, "messages": [begun, told]}
        self.history[prompt_id] = f'{{"outputs": {self.ui}, "status": {json.dumps(status)}, "meta": {{}}}}'
        frames: list[Any] = [{"type": "execution_start", "data": {"prompt_id": prompt_id}}]
        frames += [
            f if isinstance(f, bytes) else json.loads(json.dumps(f).replace("ID", prompt_id)) for f in self.between
        ]
        frames += [{"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}]
        socket = self.sockets.get(body["client_id"])
        if socket is not None:
            for frame in frames:
                await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_json(frame))
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": {}})

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """GET /ws."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[request.query["clientId"]] = socket
        async for _ in socket:
            pass
        return socket

    async def upload(self, _request: web.Request) -> web.Response:
        """POST /upload/image: not here."""
        return web.Response(status=404)

    async def done(self, _request: web.Request) -> web.Response:
        """POST /history, /interrupt."""
        return web.Response()


S = TypeVar("S", bound=Strange)


@asynccontextmanager
async def strange_backend(**says: Any) -> AsyncIterator[Strange]:
    """A running one, on a free port."""
    async with serving(Strange(**says)) as strange:
        yield strange


@asynccontextmanager
async def serving(strange: S) -> AsyncIterator[S]:
    """This one, on a free port."""
    app = web.Application(middlewares=[strange.gate], client_max_size=1024**4)
    app.add_routes(
        [
            web.get("/system_stats", strange.stats),
            web.get("/object_info", strange.object_info),
            web.get("/queue", strange.queue),
            web.get(f"{PREFIX}/about", strange.pack),
            web.get("/history/{id}", strange.one),
            web.get("/view", strange.view),
            web.get("/ws", strange.socket),
            web.post("/prompt", strange.prompt),
            web.post("/upload/image", strange.upload),
            web.post("/history", strange.done),
            web.post("/queue", strange.done),
            web.post("/interrupt", strange.done),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None  # aiohttp has no public way to the port
    host, port = site._server.sockets[0].getsockname()[:2]  # type: ignore[attr-defined]
    strange.url = f"http://{strange.login}{'@' if strange.login else ''}{host}:{port}"
    try:
        yield strange
    finally:
        async with asyncio.timeout(10):
            await runner.cleanup()
