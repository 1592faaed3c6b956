"""Reads a backend's event socket ahead of whoever acts on its frames, which may take as long as bringing a file home.

So the end of a prompt is noticed when the backend tells of it, not when all files before it have arrived.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import ClientWebSocketResponse, WSMessage, WSMsgType

HELD_BYTES = 16 * 1024 * 1024
"""Frames kept for later; beyond that the socket is left alone until some are taken."""


class ReadAhead:
    """Frames in their order. `noticed` is called with each text frame as it arrives."""

    def __init__(self, socket: ClientWebSocketResponse, noticed: Callable[[str], None]) -> None:
        self._socket = socket
        self._noticed = noticed
        self._frames: deque[WSMessage] = deque()
        self._held = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    async def receive(self, timeout_s: float) -> WSMessage:
        """The next frame, in time. Raises TimeoutError."""
        if not self._frames:
            self._came.clear()
            async with asyncio.timeout(timeout_s):
                await self._came.wait()
        frame = self._frames.popleft()
        self._held -= _size(frame)
        self._room.set()
        return frame

    async def read(self) -> None:
        """Read to the socket's end, beside whoever takes the frames."""
        while True:
            while self._held > HELD_BYTES:
                self._room.clear()
                await self._room.wait()  # whoever takes the frames has deadlines of its own
            frame = await self._socket.receive()  # ends with the socket, which pings
            self._frames.append(frame)
            self._held += _size(frame)
            if frame.type is WSMsgType.TEXT:
                self._noticed(frame.data)
            self._came.set()
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return


def _size(frame: WSMessage) -> int:
    return len(frame.data) if isinstance(frame.data, str | bytes) else 0
