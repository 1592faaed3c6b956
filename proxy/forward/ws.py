"""Relays one WebSocket to a session, message by message, with close codes.

Owns the pairing of the two legs: when one ends, the other is closed. Messages wait in bounded buffers (overflow: wait,
down to TCP). Pings: the browser's leg is uvicorn's (`ws_ping_interval`), the upstream's is ours, because a library
heartbeat takes a slow browser, for which we stop reading, for a dead upstream.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from typing import NoReturn

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType
from yarl import URL

from proxy.access.origin import Scope
from proxy.base.errors import error_body
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.forward.headers import request_headers, target
from proxy.forward.relay_watch import Message, Receive, Send
from proxy.forward.upstreams import Upstream, Upstreams

log = events(__name__)

Socket = aiohttp.ClientWebSocketResponse

CLOSE_TIMEOUT_S = 2.0
GOING_AWAY = 1001
"""What the other side is told when one vanished without a close frame."""
UNSENDABLE = frozenset({1004, 1005, 1006, 1015})


class _Closed(Exception):
    """One side ended. `by_upstream` says which, so that the other can be told."""

    def __init__(self, by_upstream: bool, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.by_upstream = by_upstream
        self.code = code
        self.reason = reason


async def forward_ws(  # noqa: PLR0917 - the edge's contract
    scope: Scope, receive: Receive, send: Send, upstream: Upstream, upstreams: Upstreams, settings: Settings
) -> None:
    """Relay until a side ends. An upstream that refuses makes the handshake fail with its 4xx, or with 502 or 504."""
    if (await receive())["type"] != "websocket.connect":
        return
    try:
        socket = await _connect(scope, upstream, upstreams, settings)
    except aiohttp.WSServerHandshakeError as error:
        await _refuse(send, error.status if 400 <= error.status < 500 else 502, "The workspace refused the WebSocket.")
        return
    except TimeoutError:
        log.warning("upstream websocket timed out", upstream=upstream.key)
        await _refuse(send, 504, "The workspace could not be reached in time. Try again.")
        return
    except (aiohttp.ClientError, OSError, ValueError) as error:
        log.warning("upstream websocket failed", upstream=upstream.key, reason=repr(error))
        await _refuse(send, 502, "The workspace did not answer. It may be restarting: try again.")
        return
    try:
        await _Relay(socket, receive, send, settings).run()
    finally:
        await _close(socket, GOING_AWAY)  # does nothing to one that is closed


async def _connect(scope: Scope, upstream: Upstream, upstreams: Upstreams, settings: Settings) -> Socket:
    async with asyncio.timeout(settings.upstream_timeout_s):
        return await upstreams.websocket_client(upstream).ws_connect(
            URL(upstream.base_url + target(scope).decode("ascii"), encoded=True),
            headers=[(_text(name), _text(value)) for name, value in request_headers(scope, upstream.headers)],
            protocols=scope.get("subprotocols") or (),
            compress=0,  # a Unix socket or a local network: the browser's leg negotiates its own
            autoping=False,
            max_msg_size=settings.max_frame_mb << 20,
            timeout=ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
        )


class _Relay:
    """Two pumps and a heartbeat; the first to end takes the others with it."""

    def __init__(self, socket: Socket, receive: Receive, send: Send, settings: Settings) -> None:
        self._socket = socket
        self._receive = receive
        self._send = send
        self._ping_s = settings.ping_interval_s
        self._stall_s = settings.transfer_timeout_s
        self._heard = True
        self._sending_down = False

    async def run(self) -> None:
        """Relay, then tell the side that is left."""
        with contextlib.suppress(OSError):  # uvicorn's ClientDisconnected
            await self._send({"type": "websocket.accept", "subprotocol": self._socket.protocol})
        try:
            async with asyncio.TaskGroup() as group:  # lives as long as the sockets: pings find the dead ones
                group.create_task(self._up(), name="websocket up")
                group.create_task(self._down(), name="websocket down")
                group.create_task(self._heartbeat(), name="websocket heartbeat")
        except* _Closed as ends:
            end = ends.exceptions[0]
            assert isinstance(end, _Closed)
            await self._tell(end)

    async def _tell(self, end: _Closed) -> None:
        code = _sendable(end.code)
        if not end.by_upstream:
            await _close(self._socket, code, end.reason)
            return
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._send({"type": "websocket.close", "code": code, "reason": end.reason})

    async def _up(self) -> None:
        """Browser to upstream."""
        while True:
            message: Message = await self._receive()
            if message["type"] == "websocket.disconnect":
                # uvicorn says 1005 for a browser that vanished, too, but then without a reason.
                code = message.get("code", 1005) if "reason" in message else 1006
                raise _Closed(False, code, message.get("reason") or "")
            text = message.get("text")
            try:
                if text is not None:
                    await self._moving(self._socket.send_str(text), True)
                else:
                    await self._moving(self._socket.send_bytes(message["bytes"]), True)
            except (aiohttp.ClientError, OSError) as error:
                await asyncio.sleep(CLOSE_TIMEOUT_S)  # its close frame may be waiting to be read by the other pump
                raise _Closed(True, 1006) from error

    async def _down(self) -> None:
        """Upstream to browser."""
        while True:
            message = await self._socket.receive()
            self._heard = True
            if message.type is WSMsgType.TEXT:
                await self._to_browser({"type": "websocket.send", "text": message.data})
            elif message.type is WSMsgType.BINARY:
                await self._to_browser({"type": "websocket.send", "bytes": message.data})
            elif message.type is WSMsgType.PING:
                await self._moving(self._socket.pong(message.data), True)
            elif message.type is not WSMsgType.PONG:
                self._ended(message)

    def _ended(self, message: aiohttp.WSMessage) -> NoReturn:
        if message.type is WSMsgType.CLOSE:
            raise _Closed(True, message.data or 1005, message.extra or "")
        if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            raise _Closed(True, message.data.code, "the workspace sent an unusable frame")
        raise _Closed(True, 1006)

    async def _to_browser(self, message: Message) -> None:
        self._sending_down = True
        try:
            await self._moving(self._send(message), False)
        except (OSError, RuntimeError) as error:  # uvicorn: gone, or closed by its own ping or frame check
            raise _Closed(False, 1006) from error
        self._sending_down = False

    async def _moving(self, sending: Awaitable[None], to_upstream: bool) -> None:
        """A send may take as long as a transfer may stand still; then the slow side counts as vanished."""
        try:
            async with asyncio.timeout(self._stall_s):
                await sending
        except TimeoutError as error:
            raise _Closed(to_upstream, 1006) from error

    async def _heartbeat(self) -> None:
        """Ping the upstream; two intervals without a word from it, while we listen, mean it is gone."""
        while True:
            self._heard = False
            await asyncio.sleep(self._ping_s)
            if self._heard or self._sending_down:
                continue
            try:
                await self._moving(self._socket.ping(), True)
            except (aiohttp.ClientError, OSError) as error:
                raise _Closed(True, 1006) from error
            await asyncio.sleep(self._ping_s)
            if not self._heard and not self._sending_down:
                raise _Closed(True, 1006)


def _text(value: bytes) -> str:
    """Header bytes as the client library wants them: it writes UTF-8, so Latin-1 is transliterated, never dropped."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _sendable(code: int) -> int:
    if code == 1006:
        return GOING_AWAY
    return 1000 if code in UNSENDABLE or not 1000 <= code < 5000 else code


async def _close(socket: Socket, code: int, reason: str = "") -> None:
    with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close(code=code, message=reason.encode())


async def _refuse(send: Send, status: int, message: str) -> None:
    kind = {404: "not_found", 502: "bad_gateway", 504: "gateway_timeout"}.get(status, "refused")
    body = json.dumps(error_body(kind, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    with contextlib.suppress(OSError):
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
