"""Ends a relayed request when the client leaves, sends too much, or nothing moves any more.

Owns the one caller of ASGI's `receive` (two at once would steal each other's messages) and one timer per request. A
request answered within GRACE_S costs no task: the reader that notices `http.disconnect` starts after it.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

from proxy.base.tasks import Tasks

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GRACE_S = 0.05


class End(enum.Enum):
    """Why a relay was ended from outside."""

    GONE = "the client left"
    STALLED = "nothing moved"
    TOO_LARGE = "the body is over the limit"


class Ended(Exception):
    """Raised at the end of `async with Watch(...)`, in place of the cancellation that unwound it."""

    def __init__(self, why: End) -> None:
        super().__init__(why.value)
        self.why = why


class Watch:
    """`async with Watch(...) as watch:` around everything that waits for the upstream or the client."""

    def __init__(self, receive: Receive, tasks: Tasks, *, stall_s: float, body_limit: int) -> None:
        self._receive = receive
        self._tasks = tasks
        self._stall_s = stall_s
        self._body_limit = body_limit
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._why: End | None = None
        self._moved = self._loop.time()
        self._received = 0
        self._reader: asyncio.Task[None] | None = None
        self._reading_first = False
        self._late = False
        self._chunks: asyncio.Queue[bytes | None] | None = None

    async def __aenter__(self) -> "Watch":
        await self._scope.__aenter__()
        self._timer = self._loop.call_later(min(GRACE_S, self._stall_s), self._tick)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._reader is not None:
            self._reader.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Ended(self._why or End.STALLED) from None

    def moved(self) -> None:
        """Bytes went somewhere: the stand-still limit counts from now."""
        self._moved = self._loop.time()

    def end(self, why: End) -> None:
        """Unwind the `async with` body at its next wait."""
        if self._why is None:
            self._why = why
            self._scope.reschedule(self._loop.time())

    async def body(self) -> bytes | None:
        """The request body when it has come whole; None when it comes in pieces, for `chunk`."""
        self._reading_first = True
        message = await self._receive()
        self._reading_first = False
        first = self._take(message)
        if not message.get("more_body", False):
            if self._late:
                self._start_reader()
            return first
        self._chunks = asyncio.Queue(1)
        if first:
            self._chunks.put_nowait(first)
        self._start_reader()
        return None

    async def chunk(self) -> bytes | None:
        """The next piece, None at the end. One is read ahead (overflow: wait)."""
        assert self._chunks is not None
        return await self._chunks.get()

    def _take(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise Ended(End.GONE)
        self.moved()
        body: bytes = message.get("body", b"")
        self._received += len(body)
        if self._received > self._body_limit:
            raise Ended(End.TOO_LARGE)
        return body

    def _start_reader(self) -> None:
        self._reader = self._tasks.start("watch client", self._read())

    async def _read(self) -> None:
        whole = False
        try:
            while True:
                message = await self._receive()
                chunk = self._take(message)
                if self._chunks is None or whole:
                    continue  # only the client's leaving is of interest now
                if chunk:
                    await self._chunks.put(chunk)
                    self.moved()
                if not message.get("more_body", False):
                    await self._chunks.put(None)
                    whole = True
        except Ended as ended:
            self.end(ended.why)

    def _tick(self) -> None:
        self._late = True
        if self._reader is None and not self._reading_first:
            self._start_reader()
        due = self._moved + self._stall_s
        if due <= self._loop.time():
            self.end(End.STALLED)
        else:
            self._timer = self._loop.call_at(due, self._tick)
