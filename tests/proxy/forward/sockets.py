"""WebSockets of an upstream, and the bytes of a handshake."""

import base64
import hashlib
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

SocketHandler = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]


MB = 1 << 20


def socket_handler(work: SocketHandler, **options: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=8 * MB, **options)  # type: ignore[arg-type]
        await socket.prepare(request)
        await work(socket, request)
        return socket

    return handler


async def echo(socket: web.WebSocketResponse, _request: web.Request) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)


def handshake(target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def accepting(head: bytes) -> bytes:
    """The 101 that a client's handshake asks for."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )
