"""One browser's `/ws`: a bounded queue of frames towards it, its feature flags, and the reading of what it sends.

A slow browser never holds a runner up. Overflow policy: the oldest preview goes first, then the oldest progress, then
the oldest text that a node shows; when none is left the socket is closed, and the client comes back and is replayed.
The session's own frames wait instead.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Any, ClassVar

from starlette.websockets import WebSocket, WebSocketDisconnect

from backend_pool.comfy.frames import (
    PREVIEW_IMAGE_WITH_METADATA,
    TEXT,
    Frame,
    binary_type,
    decode,
    encode,
    without_metadata,
)
from proxy.base.logs import events

log = events(__name__)

DROPPABLE = ('{"type": "progress_state"', '{"type": "progress"', '{"type": "cluster_queue"')
QUEUE_WANTED = "cluster_queue"
"""Type of what our extension in the WebUI sends to be told of the queue; ComfyUI and sessions ignore such messages."""
WISH_LENGTH = 200
"""Characters that such a message may have; longer ones are not looked into."""
BYTES_LIMIT = 32 * 1024 * 1024
"""What may wait for one browser in all; characters of text frames count as bytes."""
MESSAGE_BYTES = 1024 * 1024
"""Largest message of a browser; feature flags, the only one that counts, are some hundred bytes."""
CLOSE_TIMEOUT_S = 5.0


class Ended(Exception):
    """We close the socket, with this code and reason."""

    code: ClassVar[int]
    reason: ClassVar[str]


class TooSlow(Ended):
    """The browser does not read what it must not miss."""

    code, reason = 1013, "too slow"


class TooManyTabs(Ended):
    """The user has opened more tabs since than one may have."""

    code, reason = 4000, "too many tabs"


class TooLong(Ended):
    """The browser sent what no ComfyUI client sends."""

    code, reason = 1009, "message too big"


class Restarted(Ended):
    """The user's session was restarted by something that waits for the socket to come back."""

    code, reason = 1012, "service restart"


class UserSocket:
    """A connected tab. `sid` is its clientId, the one it must use to submit prompts."""

    def __init__(self, socket: WebSocket, user_id: int, sid: str, *, limit: int, max_upload_mb: int) -> None:
        self.user_id = user_id
        self.sid = sid
        self._socket = socket
        self._limit = limit
        self._max_upload_mb = max_upload_mb
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._over = asyncio.Event()
        self._why: Ended = TooSlow()
        self.features: dict[str, Any] = {}
        """The flags the client announced."""
        self.announced = False
        """Whether it announced any, as the frontend does and few programs do."""
        self.wants_queue = False
        """Whether it asked to be told what the user's jobs may expect."""

    def push(self, frame: Frame) -> None:
        """Queue a frame; returns at once."""
        while self._full(frame):
            if not self._drop_one():
                self.end(TooSlow())
                return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._ready.set()
        if self._half_full():
            self._room.clear()

    def end(self, why: Ended) -> None:
        """Close the socket soon; frames that still wait are dropped."""
        self._why = why
        self._over.set()

    async def relay(self, frame: Frame) -> None:
        """Queue a frame of somebody who can wait until there is room."""
        await self._room.wait()
        self.push(frame)

    async def serve(self, beside: Coroutine[Any, Any, None]) -> None:
        """Send and receive until either side ends; `beside` runs as long."""
        try:
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(self._send(), name=f"tab {self.sid}"),
                    group.create_task(self._give_up(), name=f"limit {self.sid}"),
                    group.create_task(beside, name=f"leg {self.sid}"),
                ]
                await self._receive()
                for task in others:
                    task.cancel()
        except* (WebSocketDisconnect, OSError) as gone:
            log.debug("browser gone", user=self.user_id, error=gone.exceptions[0])
        except* Ended as ended:
            why = ended.exceptions[0]
            assert isinstance(why, Ended)
            log.warning("tab closed", user=self.user_id, reason=why.reason)
            self._frames.clear()
            with contextlib.suppress(OSError, RuntimeError, TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._socket.close(why.code, why.reason)

    async def _give_up(self) -> None:
        await self._over.wait()
        raise self._why

    async def _send(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._frames:
                frame = self._take(0)
                if isinstance(frame, str):
                    await self._socket.send_text(frame)
                else:
                    await self._socket.send_bytes(self._fitting(frame))

    async def _receive(self) -> None:
        """The first message may be feature flags; ComfyUI ignores everything else (server.py websocket_handler), and we
        all but our own extension's wish."""
        first = True
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            if len(text or received.get("bytes") or "") > MESSAGE_BYTES:
                raise TooLong
            if isinstance(text, str) and _wants_queue(text):
                self.wants_queue = True
            elif first and isinstance(text, str):
                self._negotiate(text)
            first = False

    def _negotiate(self, text: str) -> None:
        message = decode(text)
        if message is None or message.type != "feature_flags":
            return
        self.features, self.announced = message.data, True
        self.push(encode("feature_flags", server_features(self._max_upload_mb)))

    def _fitting(self, frame: bytes) -> bytes:
        wants_metadata = self.features.get("supports_preview_metadata") is True
        if not wants_metadata and binary_type(frame) == PREVIEW_IMAGE_WITH_METADATA:
            return without_metadata(frame)
        return frame

    def _full(self, frame: Frame) -> bool:
        waiting = len(self._frames)
        return waiting >= self._limit or (waiting > 0 and self._bytes + len(frame) > BYTES_LIMIT)

    def _half_full(self) -> bool:
        return 2 * len(self._frames) > self._limit or 2 * self._bytes > BYTES_LIMIT

    def _take(self, at: int) -> Frame:
        frame = self._frames[at]
        del self._frames[at]
        self._bytes -= len(frame)
        if not self._half_full():
            self._room.set()
        return frame

    def _drop_one(self) -> bool:
        """Give up a frame that a later one makes good; False when there is none."""
        for droppable in (_is_preview, _is_progress, _is_text_of_a_node):
            victim = next((at for at, frame in enumerate(self._frames) if droppable(frame)), None)
            if victim is not None:
                self._take(victim)
                return True
        return False


def _wants_queue(text: str) -> bool:
    """However its JSON is spaced: libraries differ."""
    message = decode(text) if len(text) <= WISH_LENGTH else None
    return message is not None and message.type == QUEUE_WANTED


def _is_preview(frame: Frame) -> bool:
    return isinstance(frame, bytes) and binary_type(frame) != TEXT


def _is_text_of_a_node(frame: Frame) -> bool:
    return isinstance(frame, bytes)


def _is_progress(frame: Frame) -> bool:
    return isinstance(frame, str) and frame.startswith(DROPPABLE)


def server_features(max_upload_mb: int) -> dict[str, object]:
    """What the proxy tells a client that announces its flags: previews are ours, so their flag is too."""
    return {
        "supports_preview_metadata": True,
        "max_upload_size": max_upload_mb * 1024 * 1024,
        "extension": {"manager": {"supports_v4": True}},
    }
