"""One backend's ComfyUI API as calls with types, over one aiohttp connection pool.

Maps every transport failure to BackendGone and every refusal to BackendRefused. aiohttp, not httpx: it carries the
websocket and the files too, and costs a fifth of the CPU per call. Proxies of the environment are never used.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, ClientWebSocketResponse

from backend_pool.errors import BackendBroken, BackendGone, BackendRefused, FileGone

CHUNK = 256 * 1024
Whereabouts = Literal["running", "pending", "history", "absent"]

GONE = (aiohttp.ClientError, TimeoutError, ConnectionError)
"""Not OSError: the caller writes to disk inside these calls, and a full disk is not the backend's fault."""


@dataclass(frozen=True)
class FileRef:
    """A file as ComfyUI names it in `ui` outputs and `/view`."""

    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True)
class Timeouts:
    """Seconds: `call_s` for a whole API call, `transfer_s` for how long a transfer may stand still."""

    call_s: float
    transfer_s: float
    ping_s: float
    max_frame_bytes: int


class ComfyClient:
    """The public API of a ComfyUI server at `url`. Close it when done."""

    def __init__(self, url: str, timeouts: Timeouts) -> None:
        self.url = url.rstrip("/")
        self._timeouts = timeouts
        self._session = ClientSession(
            trust_env=False,
            timeout=ClientTimeout(total=timeouts.call_s, connect=min(5.0, timeouts.call_s)),
            connector=aiohttp.TCPConnector(limit=16),
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def get_json(self, path: str, timeout_s: float | None = None) -> Any:
        """GET a JSON document."""
        timeout = ClientTimeout(total=timeout_s or self._timeouts.call_s)
        async with self._call("GET", path, timeout=timeout) as response:
            return await _json(response)

    async def get_bytes(self, path: str, timeout_s: float) -> bytes:
        """GET a whole body, for documents that are compared before they are parsed."""
        async with self._call("GET", path, timeout=ClientTimeout(total=timeout_s)) as response:
            if response.status != 200:
                raise BackendGone(f"{self.url}{path} answered {response.status}")
            return await response.read()

    async def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /prompt. BackendRefused has ComfyUI's 400 body; BackendGone means *unsure*: look before resending."""
        async with self._call("POST", "/prompt", json=body) as response:
            if 400 <= response.status < 500:
                raise BackendRefused("The backend refused the prompt.", await _json(response))
            answer = await _json(response)
            if not isinstance(answer, dict):
                raise BackendGone(f"{self.url}/prompt answered something that is not an object")
            return answer

    async def whereabouts(self, prompt_id: str) -> Whereabouts:
        """Where the backend has a prompt. History is read last: a prompt moves from the queue into it."""
        queue = await self.get_json("/queue")
        for place, key in (("running", "queue_running"), ("pending", "queue_pending")):
            if any(item[1] == prompt_id for item in queue.get(key, [])):
                return "running" if place == "running" else "pending"
        return "history" if await self.history(prompt_id) is not None else "absent"

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a prompt, None when there is none."""
        found = await self.get_json(f"/history/{quote(prompt_id, safe='')}")
        entry = found.get(prompt_id) if isinstance(found, dict) else None
        return entry if isinstance(entry, dict) else None

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """POST a command whose answer does not matter: /interrupt, /queue, /history, /free."""
        async with self._call("POST", path, json=body) as response:
            if response.status >= 500:
                raise BackendGone(f"{self.url}{path} answered {response.status}")

    async def upload(self, source: Path, filename: str, subfolder: str) -> str:
        """Stream a file to the input directory, replacing one of that name. Returns the name ComfyUI gave it."""
        with source.open("rb") as content:
            form = aiohttp.FormData()
            form.add_field("image", content, filename=filename, content_type="application/octet-stream")
            form.add_field("subfolder", subfolder)
            form.add_field("overwrite", "true")
            timeout = ClientTimeout(total=None, sock_read=self._timeouts.transfer_s, sock_connect=5)
            async with self._call("POST", "/upload/image", data=form, timeout=timeout) as response:
                if response.status != 200:
                    text = (await response.text())[:500]
                    raise BackendRefused(f"The backend did not take the file {filename}: {response.status}", text)
                answer = await _json(response)
        return str(answer["name"])

    @asynccontextmanager
    async def view(self, ref: FileRef, etag: str | None = None) -> AsyncIterator[ClientResponse]:
        """GET /view as a stream; 304 when `etag` still fits. Raises FileGone for anything but 200 and 304."""
        query = {"filename": ref.filename, "subfolder": ref.subfolder, "type": ref.type}
        timeout = ClientTimeout(total=None, sock_read=self._timeouts.transfer_s, sock_connect=5)
        headers = {"If-None-Match": etag} if etag else {}
        async with self._call("GET", "/view", params=query, timeout=timeout, headers=headers) as response:
            if response.status not in (200, 304):
                raise FileGone(f"{self.url}/view answered {response.status} for {ref}")
            yield response

    @asynccontextmanager
    async def events(self, client_id: str) -> AsyncIterator[ClientWebSocketResponse]:
        """The event socket of one clientId, feature flags sent first (they are lost on every reconnect)."""
        try:
            socket = await self._session.ws_connect(
                f"{self.url}/ws?clientId={quote(client_id, safe='')}",
                heartbeat=self._timeouts.ping_s,
                max_msg_size=self._timeouts.max_frame_bytes,
            )
        except GONE as error:
            raise BackendGone(f"{self.url}/ws: {error!r}") from error
        try:
            await socket.send_str(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            yield socket
        except (ConnectionError, aiohttp.ClientError) as error:
            raise BackendGone(f"{self.url}/ws: {error!r}") from error
        finally:
            await socket.close()

    @asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[ClientResponse]:
        try:
            async with self._session.request(method, f"{self.url}{path}", **options) as response:
                yield response
        except GONE as error:
            raise BackendGone(f"{self.url}{path}: {error!r}") from error


async def _json(response: ClientResponse) -> Any:
    if response.status >= 500:
        raise BackendBroken(f"{response.url.path} answered {response.status}")
    try:
        return json.loads(await response.read())
    except ValueError as error:
        raise BackendBroken(f"{response.url.path} did not answer JSON") from error
