"""The browser's connection: uvicorn's protocols with what they lack. Pass them as uvicorn's `http=` and `ws=`.

HTTP: the size of a request's head (431), the time a head may take (408), an end to bodies that nobody reads any more,
`abort`, an ASGI extension that resets a connection, and writing head and body at once. WebSocket: a refused handshake
counts as finished; an ASGI extension that lowers the size of messages. Knows no routes.
"""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request

from proxy.forward.http import ABORT

HEAD_LIMIT = 64 * 1024
HEADERS_LIMIT = 200
HEAD_TIMEOUT_S = 30.0
LINGER_S = 30.0
"""How long a client may go on sending a body after its answer was complete."""
HOLD_LIMIT = 4096
MESSAGE_LIMIT = "comfy_cluster.message_limit"
"""ASGI extension of WebSockets: `set(bytes)` before accepting bounds what this client's messages may hold in all their
fragments; a larger one ends the socket with 1009."""

REFUSALS = {431: b"Request Header Fields Too Large", 408: b"Request Timeout"}


class _JoinedWrites(asyncio.Transport):
    """A transport that holds one small write until the next one or the loop's next turn.

    uvicorn writes a response's head and body apart, and the event loop makes a system call of each.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.inner = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held:
            data, self._held = b"".join((self._held, data)), b""
        elif 0 < len(data) <= HOLD_LIMIT:
            self._held = bytes(data)
            self._loop.call_soon(self.flush)
            return
        self.inner.write(data)

    def flush(self) -> None:
        """Write what is held; nothing may be held while others write to `inner`."""
        if self._held:
            held, self._held = self._held, b""
            self.inner.write(held)

    def close(self) -> None:
        self.flush()
        self.inner.close()

    def abort(self) -> None:
        self._held = b""
        self.inner.abort()

    def is_closing(self) -> bool:
        return self.inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.inner.get_extra_info(name, default)


class ClientProtocol(HttpToolsProtocol):
    """One browser connection."""

    head_timeout_s: ClassVar[float] = HEAD_TIMEOUT_S
    linger_s: ClassVar[float] = LINGER_S

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._extensions = {ABORT: {"abort": self._abort}}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _JoinedWrites(transport, self.loop)
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_linger_timer()
        super().connection_lost(exc)
        self._extensions = {}  # breaks the reference cycle

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_LIMIT:
            self._refuse(431)
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_head_timer()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_LIMIT or len(self.headers) > HEADERS_LIMIT:
            self._refuse(431)
            raise ValueError("the request's head is too large")  # the parser stops here
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # `cycle` is the request parsed last, which a pipelined one still to be answered may be.
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(self.linger_s, self.transport.close)

    def on_message_complete(self) -> None:
        self._stop_linger_timer()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        assert isinstance(self.transport, _JoinedWrites)
        self.transport.flush()
        self.transport = self.transport.inner  # the WebSocket protocol sets itself as the protocol of this one
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():  # a refusal of ours has been written already
            super().send_400_response(msg)

    def _head_late(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        self._stop_head_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # pipelined behind an answer under way: nothing may be written into that
            return
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (status, REFUSALS[status])
        )
        self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_linger_timer(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _abort(self) -> None:
        self.transport.abort()


class ClientWebSocket(WebSocketsSansIOProtocol):
    """One browser's WebSocket."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # the application starts after this
            extensions = cast(dict[str, dict[str, object]], self.scope["extensions"])
            extensions[MESSAGE_LIMIT] = {"set": self._limit_messages}

    def _limit_messages(self, size: int) -> None:
        self.conn.max_message_size = min(size, self.conn.max_message_size or size)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # uvicorn forgets this when an HTTP response refuses the handshake, and logs each refusal as our error.
            self.handshake_complete = True
