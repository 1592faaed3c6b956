"""One browser's `/ws`: a bounded queue of frames towards it, its feature flags, and the reading of what it sends.

A slow browser never holds a runner up. Overflow policy: the oldest preview goes first, then the oldest progress; when
neither is left the socket is closed, and the client comes back and is replayed.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from backend_pool.frames import PREVIEW_IMAGE_WITH_METADATA, Frame, binary_type, decode, encode, without_metadata
from proxy.base.logs import events

log = events(__name__)

DROPPABLE = ('{"type": "progress_state"', '{"type": "progress"')
OVERLOADED = 1013


class UserSocket:
    """A connected tab. `sid` is its clientId, the one it must use to submit prompts."""

    def __init__(self, socket: WebSocket, user_id: int, sid: str, *, limit: int, max_upload_mb: int) -> None:
        self.user_id = user_id
        self.sid = sid
        self._socket = socket
        self._limit = limit
        self._max_upload_mb = max_upload_mb
        self._frames: deque[Frame] = deque()
        self._ready = asyncio.Event()
        self._overflowed = False
        self.features: dict[str, Any] = {}
        """The flags the client announced."""

    def push(self, frame: Frame) -> None:
        """Queue a frame; returns at once."""
        if len(self._frames) >= self._limit and not self._make_room():
            self._overflowed = True
        else:
            self._frames.append(frame)
        self._ready.set()

    async def serve(self, beside: Coroutine[Any, Any, None]) -> None:
        """Send and receive until either side ends; `beside` runs as long."""
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(), name=f"tab {self.sid}")
                leg = group.create_task(beside, name=f"leg {self.sid}")
                await self._receive()
                sender.cancel()
                leg.cancel()
        except* (WebSocketDisconnect, OSError) as gone:
            log.debug("browser gone", user=self.user_id, error=gone.exceptions[0])

    async def _send(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._frames:
                frame = self._frames.popleft()
                if isinstance(frame, str):
                    await self._socket.send_text(frame)
                else:
                    await self._socket.send_bytes(self._fitting(frame))
            if self._overflowed:
                log.warning("browser too slow, socket closed", user=self.user_id)
                await self._socket.close(OVERLOADED, "too slow")
                return

    async def _receive(self) -> None:
        """The first message may be feature flags; ComfyUI ignores everything else (server.py websocket_handler)."""
        first = True
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            if first and isinstance(text, str):
                self._negotiate(text)
            first = False

    def _negotiate(self, text: str) -> None:
        message = decode(text)
        if message is None or message.type != "feature_flags":
            return
        self.features = message.data
        self.push(encode("feature_flags", server_features(self._max_upload_mb)))

    def _fitting(self, frame: bytes) -> bytes:
        wants_metadata = self.features.get("supports_preview_metadata") is True
        if not wants_metadata and binary_type(frame) == PREVIEW_IMAGE_WITH_METADATA:
            return without_metadata(frame)
        return frame

    def _make_room(self) -> bool:
        previews = (at for at, frame in enumerate(self._frames) if isinstance(frame, bytes))
        progress = (
            at for at, frame in enumerate(self._frames) if isinstance(frame, str) and frame.startswith(DROPPABLE)
        )
        victim = next(previews, None)
        if victim is None:
            victim = next(progress, None)
        if victim is not None:
            del self._frames[victim]
        return victim is not None


def server_features(max_upload_mb: int) -> dict[str, object]:
    """What the proxy tells a client that announces its flags: previews are ours, so their flag is too."""
    return {"supports_preview_metadata": True, "max_upload_size": max_upload_mb * 1024 * 1024, "extension": {}}
