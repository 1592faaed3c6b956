"""A ComfyUI client as scripts are written: a socket, a prompt, frames until `executing` null."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

WAIT_S = 60.0

Frame = dict[str, Any]
"""A JSON frame; a binary one is {"type": "binary", "data": bytes}."""


class Client:
    """One connected client of the server at `url`."""

    def __init__(self, url: str, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, sid: str) -> None:
        self.url = url
        self.http = http
        self.ws = ws
        self.sid = sid

    async def get(self, path: str) -> Any:
        """JSON of a 200."""
        async with self.http.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status, and JSON if there is any."""
        async with self.http.post(self.url + path, json=body) as response:
            kind = response.content_type
            return response.status, await (response.json() if kind == "application/json" else response.read())

    async def submit(self, prompt: Any, **more: Any) -> str:
        """Queue a prompt; its id."""
        status, body = await self.post("/prompt", {"prompt": prompt, "client_id": self.sid} | more)
        assert status == 200, body
        return str(body["prompt_id"])

    async def frame(self) -> Frame:
        """The next frame."""
        message = await asyncio.wait_for(self.ws.receive(), WAIT_S)
        if message.type is aiohttp.WSMsgType.BINARY:
            return {"type": "binary", "data": message.data}
        assert message.type is aiohttp.WSMsgType.TEXT, message
        frame: Frame = message.json()
        return frame

    async def until(self, kind: str, **data: Any) -> list[Frame]:
        """Frames up to and with the first of that type whose data has these values."""
        frames = [await self.frame()]
        while frames[-1]["type"] != kind or any(frames[-1]["data"].get(k, ...) != v for k, v in data.items()):
            frames.append(await self.frame())
        return frames

    async def run(self, prompt: Any, **more: Any) -> tuple[dict[str, Any], list[Frame]]:
        """Submit, wait for the end; the history entry and the frames."""
        prompt_id = await self.submit(prompt, **more)
        frames = await self.until("executing", node=None, prompt_id=prompt_id)
        entry: dict[str, Any] = (await self.get(f"/history/{prompt_id}"))[prompt_id]
        return entry, frames

    async def arm(self, **fault: Any) -> None:
        """Order a fault."""
        status, body = await self.post("/engine/faults", fault)
        assert status == 200, body


@asynccontextmanager
async def connect(url: str, *, sid: str | None = None, metadata: bool = True) -> AsyncIterator[Client]:
    """A client past its first frames; `metadata` negotiates previews of type 4."""
    sid = sid or uuid.uuid4().hex
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/ws?clientId={sid}", max_msg_size=0) as ws:
        client = Client(url, http, ws, sid)
        first = await client.frame()
        assert first["type"] == "status" and first["data"]["sid"] == sid
        if metadata:
            await ws.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            await client.until("feature_flags")
        yield client


def kinds(frames: list[Frame]) -> list[str]:
    """Types of frames without the broadcast `status`."""
    return [frame["type"] for frame in frames if frame["type"] != "status"]
