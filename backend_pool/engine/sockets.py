"""The engine's WebSocket clients: who is connected, what they negotiated, and the frames on their way.

Each client has a queue and a writer of its own, so a slow one delays nobody. Overflow policy: previews and
progress_state go first, oldest first; a client that still cannot keep up is closed and may come back. The worker waits
a little for the loop before such a frame is dropped, since it can make them faster than they can be passed on.
"""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from aiohttp import web

from backend_pool.engine import frames
from proxy.base.clock import monotonic_s
from proxy.base.logs import events
from proxy.base.tasks import Tasks

log = events(__name__)

FRAMES_KEPT = 1024
BYTES_KEPT = 64 * 1024 * 1024
HANDED_OVER = 64
HAND_OVER_TIMEOUT_S = 1.0
SEND_TIMEOUT_S = 60.0


@dataclass
class Client:
    """One socket. `waiting` holds (frame, may be dropped)."""

    ws: web.WebSocketResponse
    transport: asyncio.Transport | None
    features: dict[str, Any] = field(default_factory=dict)
    waiting: deque[tuple[str | bytes, bool]] = field(default_factory=deque)
    size: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, frame: str | bytes, droppable: bool) -> bool:
        """Queue a frame, dropping older ones if need be; False when there is no room."""
        while len(self.waiting) >= FRAMES_KEPT or (self.waiting and self.size + len(frame) > BYTES_KEPT):
            index = next((i for i, (_, may_go) in enumerate(self.waiting) if may_go), None)
            if index is None:
                return False
            self.size -= len(self.waiting[index][0])
            del self.waiting[index]
        self.waiting.append((frame, droppable))
        self.size += len(frame)
        self.ready.set()
        return True

    def take(self) -> str | bytes:
        """The next frame to write."""
        frame, _ = self.waiting.popleft()
        self.size -= len(frame)
        return frame

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        self.waiting.clear()
        if self.transport is not None:
            self.transport.abort()


class Sockets:
    """Sends frames to one sid or to all. `send` and `preview` may be called from any thread, order is kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clients: dict[str, Client] = {}
        self._tasks = Tasks()
        self._muted_until_s = 0.0
        self._room = threading.BoundedSemaphore(HANDED_OVER)

    def add(self, sid: str, client: Client) -> None:
        """Register a client; one of the same sid is forgotten, as in ComfyUI, but keeps its socket."""
        self._clients[sid] = client
        self._tasks.start("socket writer", self._write(client))

    def remove(self, sid: str, client: Client) -> None:
        """Forget a client, unless the sid has a newer one by now (ComfyUI removes that one; a known bug)."""
        client.ready.set()
        if self._clients.get(sid) is client:
            del self._clients[sid]

    def send(self, event: str, data: dict[str, Any], sid: str | None = None) -> None:
        """Queue `{"type", "data"}` for one sid, or for everybody."""
        text = json.dumps({"type": event, "data": data})
        if event == "progress_state":
            self._hand_over(lambda: self._deliver(text, True, sid))
        else:
            self._loop.call_soon_threadsafe(self._deliver, text, False, sid)

    def preview(self, jpeg: bytes, metadata: dict[str, Any], sid: str | None) -> None:
        """Queue a preview as type 4 or 1, whichever the client negotiated; without a sid, type 1 to everybody."""
        self._hand_over(lambda: self._deliver_preview(jpeg, metadata, sid))

    def has_metadata(self, sid: str | None) -> bool:
        """Whether the client negotiated `supports_preview_metadata`."""
        client = self._clients.get(sid) if sid is not None else None
        return client is not None and client.features.get("supports_preview_metadata") is True

    def abort_all_soon(self) -> None:
        """Cut every connection without a close frame, as a crash of the network would; from any thread."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def mute(self, seconds: float | None) -> None:
        """Lose every frame from now on, for so many seconds or for ever; from any thread."""
        self._muted_until_s = inf if seconds is None else monotonic_s() + seconds

    def _abort_all(self) -> None:
        for client in list(self._clients.values()):
            client.abort()

    def _hand_over(self, deliver: Callable[[], None]) -> None:
        """Pass a frame that may be lost from the worker thread to the loop, a bounded number at a time."""
        if self._room.acquire(timeout=HAND_OVER_TIMEOUT_S):
            self._loop.call_soon_threadsafe(self._handed_over, deliver)

    def _handed_over(self, deliver: Callable[[], None]) -> None:
        self._room.release()
        deliver()

    def _deliver_preview(self, jpeg: bytes, metadata: dict[str, Any], sid: str | None) -> None:
        if self.has_metadata(sid):
            self._deliver(frames.preview_with_metadata(jpeg, metadata), True, sid)
        else:
            self._deliver(frames.preview(jpeg), True, sid)

    def _deliver(self, frame: str | bytes, droppable: bool, sid: str | None) -> None:
        if monotonic_s() < self._muted_until_s:
            return
        for client in [self._clients.get(sid)] if sid is not None else list(self._clients.values()):
            if client is not None and not client.put(frame, droppable):
                log.warning("socket too slow, closing it")
                client.abort()

    async def _write(self, client: Client) -> None:
        while not client.ws.closed:
            if not client.waiting:
                client.ready.clear()
                await client.ready.wait()
                if not client.waiting:
                    return
            frame = client.take()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await (client.ws.send_str(frame) if isinstance(frame, str) else client.ws.send_bytes(frame))
            except (ConnectionError, TimeoutError, RuntimeError):
                client.abort()
                return
