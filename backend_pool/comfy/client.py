"""One backend's ComfyUI API as calls with types, over one aiohttp connection pool.

Maps every transport failure to BackendGone and every refusal to BackendRefused; follows no redirect, and reads no more
of an answer than its kind may have. aiohttp, not httpx: it carries the websocket and the files too, and costs
a fifth of the CPU per call. Proxies of the environment are never used.
"""

import json
import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal, Self
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, ClientWebSocketResponse

from backend_pool.comfy.answer_body import ANSWER_BYTES, SMALL_BYTES, read_json, read_whole
from backend_pool.comfy.json_text import parse_aside
from backend_pool.comfy.remains import Remains
from backend_pool.errors import BackendBroken, BackendGone, BackendRefused, FileAbsent
from proxy.base.redirects import refuse_redirects
from proxy.base.settings import Settings

CHUNK = 256 * 1024
CONNECT_S = 5.0
REFUSALS = (400, 413, 422)
"""Verdicts on what was sent. Other 4xx (a password, a rate limit, a wrong path) are the backend's own trouble."""
Whereabouts = Literal["running", "pending", "history", "absent"]

PLAIN = {"Accept-Encoding": "identity"}
"""For files: a compressing backend tells no length."""
REDIRECTS = "it redirects to another address, which is not followed: add the backend by that address"

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

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings set."""
        return cls(
            call_s=settings.upstream_timeout_s,
            transfer_s=settings.transfer_timeout_s,
            ping_s=settings.ping_interval_s,
            max_frame_bytes=settings.max_frame_mb * 1024 * 1024,
        )

    @property
    def max_history_bytes(self) -> int:
        """A history entry holds the prompt, and of the outputs what came in frames too."""
        return ANSWER_BYTES + self.max_frame_bytes


class ComfyClient:
    """The public API of a ComfyUI server at `url`. Close it when done."""

    def __init__(self, url: str, timeouts: Timeouts, headers: Mapping[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        self.label = urlsplit(self.url).netloc.rpartition("@")[2]
        """Host and port for messages: the URL may hold a password."""
        self.breaks = 0
        """How often a call got no answer: the server may be another since."""
        self.remains = Remains()
        self._timeouts = timeouts
        self._session = ClientSession(
            trust_env=False,
            headers={"Accept-Encoding": "gzip", **(headers or {})},
            auto_decompress=False,
            trace_configs=[refuse_redirects()],
            timeout=ClientTimeout(total=timeouts.call_s, connect=min(CONNECT_S, timeouts.call_s)),
            connector=aiohttp.TCPConnector(limit=16),
        )

    def call(self, method: str, path: str, **options: Any) -> AbstractAsyncContextManager[ClientResponse]:
        """A call that is not ComfyUI's: the worker pack's."""
        return self._call(method, path, **options)

    def transfer_timeout(self) -> ClientTimeout:
        """For calls that carry files of any size."""
        return ClientTimeout(total=None, sock_read=self._timeouts.transfer_s, sock_connect=CONNECT_S)

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def get_json(self, path: str, timeout_s: float | None = None, limit: int = ANSWER_BYTES) -> Any:
        """GET a JSON document of at most `limit` bytes."""
        timeout = ClientTimeout(total=timeout_s or self._timeouts.call_s)
        async with self._call("GET", path, timeout=timeout) as response:
            return await read_json(response, limit)

    async def get_bytes(self, path: str, timeout_s: float, limit: int) -> bytes:
        """GET a whole body of at most `limit` bytes, for documents that are compared before they are parsed."""
        async with self._call("GET", path, timeout=ClientTimeout(total=timeout_s)) as response:
            if response.status != 200:
                raise BackendGone(f"{self.label}{path} answered {response.status}")
            return await read_whole(response, limit)

    async def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /prompt. BackendRefused has ComfyUI's 400 body; BackendGone means *unsure*: look before resending."""
        async with self._call("POST", "/prompt", json=body) as response:
            if response.status in REFUSALS:
                raise BackendRefused("The backend refused the prompt.", await _refusal(response))
            answer = await read_json(response, ANSWER_BYTES)
            if not isinstance(answer, dict):
                raise BackendBroken(f"{self.label}/prompt answered something that is not an object")
            return answer

    async def whereabouts(self, prompt_id: str) -> Whereabouts:
        """Where the backend has a prompt. History is read last: a prompt moves from the queue into it."""
        queue = await self.get_json("/queue")
        if not isinstance(queue, dict):
            raise BackendBroken(f"{self.label}/queue answered something that is not an object")
        if _lists(queue.get("queue_running"), prompt_id):
            return "running"
        if _lists(queue.get("queue_pending"), prompt_id):
            return "pending"
        return "history" if await self.history(prompt_id) is not None else "absent"

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a prompt, None when there is none."""
        found = await self.get_json(f"/history/{quote(prompt_id, safe='')}", limit=self._timeouts.max_history_bytes)
        entry = found.get(prompt_id) if isinstance(found, dict) else None
        return entry if isinstance(entry, dict) else None

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """POST a command whose answer does not matter: /interrupt, /queue, /history, /free."""
        async with self._call("POST", path, json=body) as response:
            if response.status >= 500:
                raise BackendBroken(f"{self.label}{path} answered {response.status}")

    async def upload(self, content: IO[bytes], filename: str, subfolder: str) -> None:
        """Stream an open file to the input directory, replacing one of that name. aiohttp reads it in threads."""
        await self._store(content, FileRef(filename, subfolder, "input"))

    async def overwrite(self, ref: FileRef, content: bytes) -> None:
        """Put other content into a file of any directory: core ComfyUI has no route that deletes one."""
        await self._store(content, ref)

    async def _store(self, content: IO[bytes] | bytes, ref: FileRef) -> None:
        form = aiohttp.FormData()
        form.add_field("image", content, filename=ref.filename, content_type="application/octet-stream")
        form.add_field("subfolder", ref.subfolder)
        form.add_field("type", ref.type)
        form.add_field("overwrite", "true")
        timeout = ClientTimeout(total=None, sock_read=self._timeouts.transfer_s, sock_connect=CONNECT_S)
        async with self._call("POST", "/upload/image", data=form, timeout=timeout) as response:
            if response.status in REFUSALS:
                reason = await _refusal(response)
                raise BackendRefused(f"The backend did not take an input file: {response.status}", reason)
            answer = await read_json(response, SMALL_BYTES)
        if not isinstance(answer, dict) or answer.get("name") != ref.filename:
            raise BackendBroken(f"{self.label}/upload/image stored {ref.filename} under another name")

    async def has(self, ref: FileRef, size: int) -> bool:
        """Whether the backend holds a file of that name and size; for content-addressed names that settles it."""
        query = {"filename": ref.filename, "subfolder": ref.subfolder, "type": ref.type}
        async with self._call("HEAD", "/view", params=query, headers=PLAIN) as response:
            return response.status == 200 and response.content_length == size

    @asynccontextmanager
    async def view(self, ref: FileRef, etag: str | None = None, start: int = 0) -> AsyncIterator[ClientResponse]:
        """GET /view as a stream; 304 when `etag` still fits, 206 from `start` on where the backend can do that.

        Raises FileAbsent for a 4xx, BackendBroken for a 5xx.
        """
        query = {"filename": ref.filename, "subfolder": ref.subfolder, "type": ref.type}
        timeout = ClientTimeout(total=None, sock_read=self._timeouts.transfer_s, sock_connect=CONNECT_S)
        headers = dict(PLAIN)
        headers |= {"If-None-Match": etag} if etag else {}
        headers |= {"Range": f"bytes={start}-"} if start else {}
        async with self._call("GET", "/view", params=query, timeout=timeout, headers=headers) as response:
            if response.status >= 500:
                raise BackendBroken(f"{self.label}/view answered {response.status}")
            check_plain(response, ref.filename)
            if response.status not in (200, 206, 304):
                raise FileAbsent(f"The backend does not have the file {ref.filename} any more ({response.status})")
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
            raise self._failure(error, self._timeouts.call_s) from error
        try:
            await socket.send_str(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            yield socket
        except (ConnectionError, aiohttp.ClientError) as error:
            raise BackendGone(f"{self.label}: {said(error, self._timeouts.call_s)}") from error
        finally:
            await socket.close()

    @asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[ClientResponse]:
        try:
            async with self._session.request(method, f"{self.url}{path}", **options) as response:
                if 300 <= response.status < 400 and response.status != 304:
                    raise BackendBroken(f"{self.label}: {REDIRECTS}")  # one that aiohttp would not have followed
                yield response
        except GONE as error:
            self.breaks += 1
            limit: ClientTimeout = options.get("timeout", self._session.timeout)
            patience_s = limit.total or limit.sock_read or self._timeouts.call_s
            raise self._failure(error, patience_s) from error

    def _failure(self, error: BaseException, patience_s: float) -> BackendGone:
        kind = BackendBroken if isinstance(error, aiohttp.TooManyRedirects) else BackendGone
        return kind(f"{self.label}: {said(error, patience_s)}")


def check_plain(response: ClientResponse, filename: str) -> None:
    """Refuse a file that was packed on the way though PLAIN was asked for: its size would be anybody's guess."""
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in ("identity", mimetypes.guess_type(filename)[1]):  # old aiohttp says gzip of any *.gz
        raise BackendBroken(f"{response.url.path} answered {filename} packed, which was not asked for")


def _lists(items: Any, prompt_id: str) -> bool:
    entries = items if isinstance(items, list) else []
    return any(isinstance(item, list) and len(item) > 1 and item[1] == prompt_id for item in entries)


async def _refusal(response: ClientResponse) -> Any:
    """The body of a refusal: JSON if it is, else the beginning of its text."""
    content = await read_whole(response, ANSWER_BYTES)
    try:
        return await parse_aside(content)
    except ValueError:
        return content[:500].decode(errors="replace")


def said(error: BaseException, patience_s: float) -> str:
    """A transport's failure in people's words; aiohttp's own may hold the URL with its password."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return f"did not answer in {min(CONNECT_S, patience_s):g} s"
        case TimeoutError():
            return f"did not answer in {patience_s:g} s"
        case aiohttp.ClientConnectorDNSError():
            return "no such host"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not accepted"
        case aiohttp.ClientSSLError():
            return "it does not speak HTTPS"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()) | ConnectionRefusedError():
            return "connection refused"
        case aiohttp.ClientConnectorError():
            return (error.os_error.strerror or "it cannot be reached").lower()
        case aiohttp.TooManyRedirects():
            return REDIRECTS
        case aiohttp.WSServerHandshakeError():
            return f"it answered {error.status} to a WebSocket"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "it closed the connection"
        case aiohttp.ClientPayloadError():
            return "its answer broke off"
    return "it does not speak HTTP"
