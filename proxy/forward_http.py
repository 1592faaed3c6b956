"""Relays one HTTP request to a session and its answer back, byte for byte, streaming both ways.

Owns the order of events of a relay and what becomes visible when a side fails; the header rules are in `headers`, the
watching in `relay_watch`. Never decides who may ask. One chunk is in flight each way: a slow side makes the other wait.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from proxy.base.errors import error_body
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.headers import Scope, header_values, request_headers, response_headers, target
from proxy.relay_watch import End, Ended, Receive, Send, Watch
from proxy.upstreams import Upstream, Upstreams

log = events(__name__)

ABORT = "comfy_cluster.abort"
"""ASGI extension of `http_server.ClientProtocol`: `{"abort": callable}` resets the client's connection."""
REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
BODILESS = frozenset({204, 304})
LINGER_S = 15.0
LINGER_SILENCE_S = 2.0
"""How long an over-large upload is read and thrown away after its 413: a reset would destroy the answer under way."""


async def forward_http(  # noqa: PLR0917 - the edge's contract
    scope: Scope,
    receive: Receive,
    send: Send,
    upstream: Upstream,
    upstreams: Upstreams,
    settings: Settings,
    *,
    private: bool = True,
) -> int:
    """Relay and return the status sent. `private`: nothing of the answer may be kept by a shared cache."""
    try:
        request = _Request(scope, upstream, settings)
    except ValueError as error:
        return await _refuse(send, 400, "bad_request", "The request cannot be forwarded.", str(error))
    if scope["method"] in REFUSED_METHODS:
        return await _refuse(send, 405, "method_not_allowed", f"{scope['method']} is not forwarded.")
    if request.length > request.limit:
        return await _too_large(scope, receive, send, settings)

    answer = _Answer(scope, send, private)
    watch = Watch(receive, upstreams.tasks, stall_s=settings.transfer_timeout_s, body_limit=request.limit)
    try:
        async with watch:
            response = await request.send(upstreams.client(upstream), watch)
            try:
                await answer.relay(response, watch)
            finally:
                response.close()  # does nothing once the body has ended and the connection is back in the pool
    except Ended as ended:
        if ended.why is End.TOO_LARGE and not answer.status:
            return await _too_large(scope, receive, send, settings)
        if ended.why is End.STALLED:
            await answer.fail(504, "The workspace did not answer in time. Try again.", upstream, "stalled")
        return answer.status or 499
    except TimeoutError as error:
        await answer.fail(504, "The workspace could not be reached in time. Try again.", upstream, repr(error))
    except (aiohttp.ClientError, OSError) as error:
        await answer.fail(502, "The workspace did not answer. It may be restarting: try again.", upstream, repr(error))
    return answer.status


class _Request:
    """What is sent to the upstream. Raises ValueError for a target no URL can carry."""

    def __init__(self, scope: Scope, upstream: Upstream, settings: Settings) -> None:
        path = target(scope)
        if not path.startswith("/"):
            raise ValueError("The path must start with a slash.")
        self.method: str = scope["method"]
        self.url = URL(upstream.base_url + path, encoded=True)
        self.limit = settings.max_upload_mb << 20
        lengths = header_values(scope, b"content-length")
        self.length = int(lengths[0]) if lengths else 0
        self.sized = bool(lengths)
        self.has_body = self.length > 0 or bool(header_values(scope, b"transfer-encoding"))
        self._headers = request_headers(scope, upstream.headers)

    async def send(self, client: aiohttp.ClientSession, watch: Watch) -> aiohttp.ClientResponse:
        """The response, once its headers are there."""
        data = await watch.body() if self.has_body else None
        if isinstance(data, bytes) and self.method not in {"POST", "PATCH"}:
            data = _once(data)  # the client library repeats what it can, and a body is not ours to send twice
        if self.sized:
            self._headers.append(("Content-Length", str(self.length)))
        return await client.request(self.method, self.url, headers=self._headers, data=data, allow_redirects=False)


class _Answer:
    """The client's side of a relay: knows whether it has begun, since nothing can be taken back after that."""

    def __init__(self, scope: Scope, send: Send, private: bool) -> None:
        self._scope = scope
        self._send = send
        self._private = private
        self.status = 0

    async def relay(self, response: aiohttp.ClientResponse, watch: Watch) -> None:
        """Send head and body as they come. A body cut short raises aiohttp.ClientPayloadError."""
        status, content = response.status, response.content
        if not 200 <= status < 600:
            raise aiohttp.ClientPayloadError(f"status {status}")
        headers = response_headers(response.raw_headers, bodiless=status in BODILESS, private=self._private)
        chunk = content.read_nowait(-1)  # a small body has often come with its head: one write instead of two
        watch.moved()
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        while True:
            last = content.at_eof()
            if chunk or last:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})
                watch.moved()
            if last:
                return
            chunk = await content.readany()
            watch.moved()

    async def fail(self, status: int, message: str, upstream: Upstream, why: str) -> None:
        """An error page before the first byte; after it a reset, so that nobody takes the part for the whole."""
        log.warning("upstream failed", upstream=upstream.key, reason=why, begun=bool(self.status))
        if not self.status:
            self.status = status
            kind = "gateway_timeout" if status == 504 else "bad_gateway"
            await _refuse(self._send, status, kind, message)
            return
        extensions = self._scope.get("extensions") or {}
        if ABORT in extensions:
            extensions[ABORT]["abort"]()
        # Without the extension the server closes a connection whose response was left unfinished.


async def _refuse(send: Send, status: int, kind: str, message: str, details: str = "") -> int:
    await _error(send, status, kind, message, details, close=False)
    return status


async def _too_large(scope: Scope, receive: Receive, send: Send, settings: Settings) -> int:
    """413 at once, then let the client finish talking: many read the answer only after they have sent everything."""
    message = f"The upload is larger than {settings.max_upload_mb} MB."
    if header_values(scope, b"expect"):
        await _error(send, 413, "too_large", message, "max_upload_mb", close=True)
        return 413
    await _error(send, 413, "too_large", message, "max_upload_mb", close=True, more=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            more = True
            while more:
                async with asyncio.timeout(LINGER_SILENCE_S):
                    more = (await receive()).get("more_body", False)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return 413


async def _error(
    send: Send, status: int, kind: str, message: str, details: str, *, close: bool, more: bool = False
) -> None:
    body = json.dumps(error_body(kind, message, details)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
