"""A small ComfyUI client that keeps every frame as it came, so that tests can compare servers frame by frame.

Each wait ends after `WAIT_S` seconds. Judges nothing: the tests do.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

WAIT_S = 60.0
PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
FLAGS = {"supports_preview_metadata": True}


@dataclass(frozen=True)
class Frame:
    """One message: `kind` is the JSON type, or "binary N" with N the event number and `payload` what follows it."""

    kind: str
    data: dict[str, Any]
    payload: bytes = b""

    @classmethod
    def of(cls, message: aiohttp.WSMessage) -> Self:
        if message.type is aiohttp.WSMsgType.BINARY:
            (event,) = struct.unpack_from(">I", message.data)
            return cls(f"binary {event}", {}, message.data[4:])
        assert message.type is aiohttp.WSMsgType.TEXT, message
        decoded = json.loads(message.data)
        assert set(decoded) == {"type", "data"}
        return cls(decoded["type"], decoded["data"] or {})

    @property
    def ends_job(self) -> bool:
        return self.kind == "executing" and self.data.get("node") is None


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Socket:
    """An open /ws with all frames seen so far."""

    ws: aiohttp.ClientWebSocketResponse
    frames: list[Frame] = field(default_factory=list)

    async def read(self) -> Frame:
        frame = Frame.of(await asyncio.wait_for(self.ws.receive(), WAIT_S))
        self.frames.append(frame)
        return frame

    async def until(self, wanted: Callable[[Frame], bool]) -> list[Frame]:
        """Read on to the first frame that is `wanted`; all frames read, that one last."""
        seen = [await self.read()]
        while not wanted(seen[-1]):
            seen.append(await self.read())
        return seen

    async def job(self, prompt_id: str) -> list[Frame]:
        """Frames of one job to its end; `status` frames, whose place is a race in ComfyUI, left out."""
        frames = await self.until(lambda frame: frame.ends_job and frame.data.get("prompt_id") == prompt_id)
        return [frame for frame in frames if frame.kind not in {"status", "feature_flags"}]


class Comfy:
    """HTTP and sockets of one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=WAIT_S))

    async def close(self) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        async with self._http.request(method, self.url + path, **options) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any = None) -> Answer:
        return await self.call("POST", path, json=body)

    async def submit(self, prompt: Mapping[str, Any], client_id: str, **more: Any) -> str:
        """Queue a prompt that must be accepted; its prompt_id."""
        answer = await self.post("/prompt", {"prompt": prompt, "client_id": client_id, **more})
        assert answer.status == 200, answer.body
        return str(answer.json()["prompt_id"])

    async def upload(self, name: str, content: bytes, **fields: str) -> Answer:
        form = aiohttp.FormData(quote_fields=False)  # names as a browser sends them
        form.add_field("image", content, filename=name, content_type="image/png")
        for key, value in fields.items():
            form.add_field(key, value)
        return await self.call("POST", "/upload/image", data=form)

    async def history(self, prompt_id: str) -> dict[str, Any]:
        entry = (await self.get(f"/history/{prompt_id}")).json()[prompt_id]
        assert isinstance(entry, dict)
        return entry

    @asynccontextmanager
    async def socket(self, client_id: str, flags: Mapping[str, Any] | None = None) -> AsyncIterator[Socket]:
        """An open socket after its first `status`, and after the answer to `flags` when given."""
        url = f"{self.url}/ws?clientId={client_id}"
        async with self._http.ws_connect(url, max_msg_size=32 * 1024 * 1024) as ws:
            socket = Socket(ws)
            await socket.until(lambda frame: frame.kind == "status")
            if flags is not None:
                await ws.send_json({"type": "feature_flags", "data": flags})
                await socket.until(lambda frame: frame.kind == "feature_flags")
            yield socket


def preview_metadata(frame: Frame) -> tuple[dict[str, Any], bytes]:
    """Metadata and picture of a binary 4 frame."""
    (length,) = struct.unpack_from(">I", frame.payload)
    metadata = json.loads(frame.payload[4 : 4 + length])
    assert isinstance(metadata, dict)
    return metadata, frame.payload[4 + length :]
