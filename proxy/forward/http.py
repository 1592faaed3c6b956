"""Relays one HTTP request to a session and its answer back, byte for byte, streaming both ways.

Owns the order of events of a relay and what becomes visible when a side fails; the header rules are in `headers`, the
watching in `relay_watch`. Never decides who may ask. One chunk is in flight each way: a slow side makes the other wait.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

from proxy.access.origin import SAFE_METHODS, Scope, header_values
from proxy.base.errors import error_body
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.forward.headers import request_headers, response_headers, target
from proxy.forward.relay_watch import End, Ended, Message, Receive, Send, Watch
from proxy.forward.upstream_connection import BODILESS, Connection, NotSent, UpstreamBroken
from proxy.forward.upstream_pool import Pool
from proxy.forward.upstreams import Upstream, Upstreams

log = events(__name__)

Again = Callable[[], Awaitable[Upstream | None]]

ABORT = "comfy_cluster.abort"
"""ASGI extension of `http_server.ClientProtocol`: `{"abort": callable}` resets the client's connection."""
REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
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
    again: Again | None = None,
) -> int:
    """Relay and return the status sent. `private`: no shared cache may keep it. `again` names the upstream to ask
    once more when it broke off before a safe request's answer began, or before anything of another was sent."""
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
        await _exchange(request, answer, watch, upstreams.http(upstream), upstreams.tasks)
    except Ended as ended:
        if ended.why is End.TOO_LARGE and not answer.status:
            return await _too_large(scope, receive, send, settings)
        if ended.why is End.STALLED:
            await answer.fail(504, "The workspace did not answer in time. Try again.", upstream, "stalled")
        return answer.status or 499
    except TimeoutError:
        await answer.fail(504, "The workspace could not be reached in time. Try again.", upstream, "no connection")
    except OSError as error:
        fresh = await again() if again is not None and request.repeatable(error) and not answer.status else None
        if fresh is not None:
            receive = request.replayed(receive)
            return await forward_http(scope, receive, send, fresh, upstreams, settings, private=private)
        await answer.fail(502, "The workspace did not answer. It may be restarting: try again.", upstream, str(error))
    return answer.status


async def _exchange(request: "_Request", answer: "_Answer", watch: Watch, pool: Pool, tasks: Tasks) -> None:
    """One request over one connection, which goes back to its pool whatever happens."""
    async with watch:
        connection = await request.send(pool, watch, tasks)
        try:
            await answer.relay(connection, watch)
        finally:
            request.stop_upload(connection)
            pool.give(connection)


class _Request:
    """What is sent to the upstream. Raises ValueError for what HTTP cannot carry."""

    def __init__(self, scope: Scope, upstream: Upstream, settings: Settings) -> None:
        self.method: str = scope["method"]
        self.limit = settings.max_upload_mb << 20
        lengths = header_values(scope, b"content-length")
        self.length = int(lengths[0]) if lengths else 0
        self.sized = bool(lengths)
        self.has_body = self.length > 0 or bool(header_values(scope, b"transfer-encoding"))
        host = upstream.base_url.partition("://")[2].encode()
        lines = [b"%s %s HTTP/1.1\r\nhost: %s" % (self.method.encode(), target(scope), host)]
        lines += [b"%s: %s" % pair for pair in request_headers(scope, upstream.headers)]
        self._head = b"\r\n".join(lines)
        if self._head.count(b"\n") != len(lines):  # the first of them holds two
            raise ValueError("A header holds a line break.")
        self._upload: asyncio.Task[None] | None = None
        self._body: bytes | None = None if self.has_body else b""

    def repeatable(self, error: OSError) -> bool:
        """Whether it can be sent once more after `error`: its body is at hand, and nothing was done by it so far."""
        return self._body is not None and (self.method in SAFE_METHODS or isinstance(error, NotSent))

    def replayed(self, receive: Receive) -> Receive:
        """`receive` with the body that was read from it in front."""
        body = [self._body] if self._body else []

        async def again() -> Message:
            return {"type": "http.request", "body": body.pop(), "more_body": False} if body else await receive()

        return again

    async def send(self, pool: Pool, watch: Watch, tasks: Tasks) -> Connection:
        """The connection, once the head of the answer is there."""
        if not self.has_body:
            length = b"\r\ncontent-length: 0" if self.sized else b""
            return await pool.ask(self.method, b"%s%s\r\n\r\n" % (self._head, length), repeatable=True)
        self._body = body = await watch.body()
        if body is not None:
            whole = b"%s\r\ncontent-length: %d\r\n\r\n%s" % (self._head, len(body), body)
            return await pool.ask(self.method, whole, repeatable=False)
        connection = await pool.take()
        try:
            framing = b"content-length: %d" % self.length if self.sized else b"transfer-encoding: chunked"
            connection.send(self.method, b"%s\r\n%s\r\n\r\n" % (self._head, framing))
            self._upload = tasks.start("upload", self._write(connection, watch))
            await connection.head()
        except BaseException:
            self.stop_upload(connection)
            pool.give(connection)
            raise
        return connection

    def stop_upload(self, connection: Connection) -> None:
        """The answer is over: what has not been sent by now never will be."""
        if self._upload is not None and not self._upload.done():
            connection.spoil()
            self._upload.cancel()

    async def _write(self, connection: Connection, watch: Watch) -> None:
        try:
            while (chunk := await watch.chunk()) is not None:
                await connection.write(chunk if self.sized else b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if not self.sized:
                await connection.write(b"0\r\n\r\n")
        except UpstreamBroken:
            return  # whoever waits for the answer learns it there, and an early answer is still read


class _Answer:
    """The client's side of a relay: knows whether it has begun, since nothing can be taken back after that."""

    def __init__(self, scope: Scope, send: Send, private: bool) -> None:
        self._scope = scope
        self._send = send
        self._private = private
        self.status = 0

    async def relay(self, connection: Connection, watch: Watch) -> None:
        """Send head and body as they come. A body cut short raises UpstreamBroken."""
        status = connection.status
        headers = response_headers(connection.headers, bodiless=status in BODILESS, private=self._private)
        chunk = connection.read_now()  # a small body has often come with its head: one write instead of two
        watch.moved()
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        while True:
            last = connection.ended
            if chunk or last:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})
                watch.moved()
            if last:
                return
            chunk = await connection.read()
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
