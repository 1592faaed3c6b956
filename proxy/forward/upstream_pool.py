"""Keep-alive connections to one session.

Owns idle connections and the count of all. Bounded: `limit` connections, overflow waits `timeout_s` and then raises
TimeoutError. Decides when a request may be repeated: once, if it has no body and its pooled connection was stale.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

from proxy.forward.upstream_connection import Connection, NotSent, UpstreamBroken

KEEPALIVE_S = 15.0
"""Shorter than any server's own idle limit (aiohttp: 75 s), so that a pooled connection is rarely a dead one."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Pool:
    """`take`, use, `give`; or `ask` for a request whose body is whole."""

    def __init__(self, socket: Path | None, base_url: str, *, limit: int, timeout_s: float) -> None:
        parts = urlsplit(base_url)
        self._socket = socket
        self._host = parts.hostname or "localhost"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(limit)
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._at_rest = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection, pooled unless `fresh`. Raises UpstreamBroken or TimeoutError."""
        if self._slots.locked():
            async with asyncio.timeout(self._timeout_s):
                await self._slots.acquire()
        else:
            await self._slots.acquire()
        try:
            connection = (None if fresh else self._pooled()) or await self._open()
        except BaseException:
            self._slots.release()
            raise
        self._busy.add(connection)
        self._at_rest.clear()
        return connection

    async def ready(self) -> None:
        """Have a live connection at hand. Raises UpstreamBroken or TimeoutError when nobody is at the other end."""
        while self._idle and self._idle[-1].closed:
            self._idle.pop()
        if not self._idle and not self._slots.locked():
            self._rest(await self._open())

    def give(self, connection: Connection) -> None:
        """Back to the pool, or closed when it cannot serve again."""
        if connection not in self._busy:
            return
        self._busy.discard(connection)
        if not self._busy:
            self._at_rest.set()
        self._slots.release()
        if self._closed or not connection.reusable:
            connection.close()
            return
        self._rest(connection)

    async def ask(self, method: str, head: bytes, *, repeatable: bool) -> Connection:
        """Send a whole request and wait for the head of its answer."""
        connection = await self.take()
        try:
            connection.send(method, head)
            await connection.head()
        except UpstreamBroken:
            stale = connection.reused
            self.give(connection)
            if not (stale and repeatable and method in IDEMPOTENT):
                raise
            return await self._ask_again(method, head)
        except BaseException:
            self.give(connection)
            raise
        return connection

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._busy)

    async def drain(self, limit_s: float) -> None:
        """Take no more; requests under way may come to their end within that time."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        if self._busy:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._at_rest.wait()
        await self.close()

    async def close(self) -> None:
        """Close all; requests under way fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def _ask_again(self, method: str, head: bytes) -> Connection:
        connection = await self.take(fresh=True)
        try:
            connection.send(method, head)
            await connection.head()
        except BaseException:
            self.give(connection)
            raise
        return connection

    def _rest(self, connection: Connection) -> None:
        connection.rest()
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEPALIVE_S, self._sweep)

    def _pooled(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                connection.reused = True
                return connection
        return None

    async def _open(self) -> Connection:
        if self._closed:
            raise NotSent("the pool is closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._socket is not None:
                    path = str(self._socket)
                    _, connection = await self._loop.create_unix_connection(lambda: Connection(self._loop), path)
                else:
                    _, connection = await self._loop.create_connection(
                        lambda: Connection(self._loop), self._host, self._port, ssl=self._tls
                    )
        except TimeoutError:
            raise
        except OSError as error:
            raise NotSent(f"no connection: {error}") from error
        return connection

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = self._loop.time() - KEEPALIVE_S
        while self._idle and (self._idle[0].lost or self._idle[0].idle_since <= oldest):
            self._idle.popleft().close()
        if self._idle:
            self._sweeper = self._loop.call_later(KEEPALIVE_S, self._sweep)
