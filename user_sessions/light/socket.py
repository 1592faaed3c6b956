"""The session's own `/ws`: status with the sid, the answer to feature_flags, log lines to those who subscribed.

Runs no prompts, so it announces none; the proxy adds the jobs' events for the browser. Each socket has a bounded
outbox whose overflow drops the oldest frame, so that a slow reader costs 256 frames at most.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping

from aiohttp import WSCloseCode, WSMsgType, web

from proxy.base.tasks import Tasks
from user_sessions.light.logs import TERMINAL, Entry, LogRing

HEARTBEAT_S = 20.0
CLOSE_TIMEOUT_S = 1.0
"""How long a browser may take to agree to a close; the host kills a session that takes long to end."""

OUTBOX_FRAMES = 256
IDLE_STATUS = {"exec_info": {"queue_remaining": 0}}


class Outbox:
    """Frames on their way to one socket."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[str] = asyncio.Queue(OUTBOX_FRAMES)

    def put(self, kind: str, data: object) -> None:
        """Queue a frame; drops the oldest when full."""
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(json.dumps({"type": kind, "data": data}))

    async def drain(self, socket: web.WebSocketResponse) -> None:
        """Send until the socket is gone."""
        while not socket.closed:
            try:
                await socket.send_str(await self._frames.get())
            except ConnectionError:  # aiohttp's ClientConnectionResetError is one: the reader sees the end too
                return


class Sockets:
    """All open sockets of this session by their sid, and who reads the log."""

    def __init__(self, features: Mapping[str, object], ring: LogRing, tasks: Tasks) -> None:
        self._features = features
        self._open: dict[str, Outbox] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._log_readers: set[str] = set()
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        ring.listener = self._logged

    def routes(self) -> list[web.RouteDef]:
        """Bare paths; the application adds the `/api` twins."""
        return [web.get("/ws", self._serve)]

    def subscribe(self, sid: str, enabled: bool) -> None:
        """Send log lines to that socket, or stop; an unknown sid counts for nothing."""
        if enabled and sid in self._open:
            self._log_readers.add(sid)
        else:
            self._log_readers.discard(sid)

    async def close(self, app: web.Application) -> None:
        """End all sockets when the session stops."""
        await asyncio.gather(
            *(socket.close(code=WSCloseCode.GOING_AWAY) for socket in self._sockets), return_exceptions=True
        )

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, timeout=CLOSE_TIMEOUT_S)
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        outbox = Outbox()
        self._open[sid] = outbox
        self._sockets.add(socket)
        outbox.put("status", {"status": IDLE_STATUS, "sid": sid})
        writer = self._tasks.start("socket writer", outbox.drain(socket))
        try:
            await self._listen(socket, outbox)
        finally:
            writer.cancel()
            self._sockets.discard(socket)
            # a late end of an old socket must not unregister the new one of the same sid, as ComfyUI's does
            if self._open.get(sid) is outbox:
                del self._open[sid]
                self._log_readers.discard(sid)
        return socket

    async def _listen(self, socket: web.WebSocketResponse, outbox: Outbox) -> None:
        """Only the first readable message counts, and only when it is `feature_flags`."""
        first = True
        async for message in socket:
            if message.type is not WSMsgType.TEXT or not first:
                continue
            try:
                frame = json.loads(message.data)
            except (ValueError, RecursionError):
                continue
            first = False
            if isinstance(frame, dict) and frame.get("type") == "feature_flags":
                outbox.put("feature_flags", self._features)

    def _logged(self, entry: Entry) -> None:
        """From any thread."""
        if self._log_readers:
            self._loop.call_soon_threadsafe(self._publish, entry)

    def _publish(self, entry: Entry) -> None:
        for sid in self._log_readers:
            self._open[sid].put("logs", {"entries": [entry], "size": TERMINAL})
