"""One HTTP/1.1 connection to a session: sends a request, parses the answer, hands the body over as it comes.

Owns the transport and the parser's state. Bounded: reading pauses above READ_LIMIT bytes of body (overflow: wait), a
head above HEAD_LIMIT is refused. Written for the per-request path, where a general client spends five times the CPU.
"""

import asyncio
from typing import cast

import httptools

from proxy.forward.headers import Headers

HEAD_LIMIT = 64 * 1024
HEADERS_LIMIT = 256
READ_LIMIT = 128 * 1024
BODILESS = frozenset({204, 304})


class UpstreamBroken(ConnectionError):
    """The upstream refused, closed too early, or spoke nonsense."""


class NotSent(UpstreamBroken):
    """There was no connection: nothing of the request can have reached anybody."""


class Connection(asyncio.Protocol):
    """One request at a time: `send`, `write`..., `head`, then `read` until `ended`."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.lost = self.reused = False
        self.idle_since = 0.0
        self._asked = self._spoiled = self._bodiless = self._read_paused = False
        self.headers: Headers = []
        self._chunks: list[bytes] = []
        self._begin()
        self._complete = True
        self._error: UpstreamBroken | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None

    def send(self, method: str, head: bytes) -> None:
        """Begin a request with its head and, if it is whole, its body."""
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = method == "HEAD"
        self._asked = True
        self._begin()
        if self.lost:  # as soon as it was open
            self._error = UpstreamBroken("the connection was closed by the upstream")
        self.transport.write(head)

    async def write(self, data: bytes) -> None:
        """A piece of the request's body; waits while the upstream does not read."""
        if self.lost:
            raise UpstreamBroken("the connection was lost while sending")
        self.transport.write(data)
        if self._write_paused:
            self._drained = self._loop.create_future()
            await self._drained

    async def head(self) -> None:
        """Wait for `status` and `headers`. Raises UpstreamBroken."""
        while not self.status:
            await self._wait()

    def read_now(self) -> bytes:
        """What has come of the body; may be nothing."""
        chunks, self._chunks, self._size = self._chunks, [], 0
        if self._read_paused and not self.lost:
            self._read_paused = False
            self.transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        """More of the body, nothing at its end. Raises UpstreamBroken when it is cut short."""
        while not self._chunks and not self._complete:
            await self._wait()
        return self.read_now()

    @property
    def ended(self) -> bool:
        """Whether the whole answer has been read."""
        return self._complete and not self._chunks

    @property
    def closed(self) -> bool:
        """Whether either side has closed it."""
        return self.lost or self.transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return (
            self.ended and self._keep_alive and not self._spoiled and not self.lost and not self.transport.is_closing()
        )

    def spoil(self) -> None:
        """The request was not sent whole: no other may follow it."""
        self._spoiled = True

    def rest(self) -> None:
        """Nothing is expected from now on; whatever comes closes the connection."""
        self._asked = False

    def close(self) -> None:
        """Let go: politely when the answer is complete, at once when it is not."""
        if self._complete and not self._spoiled:
            self.transport.close()
        else:
            self.transport.abort()

    def _begin(self) -> None:
        self._complete = self._interim = self._until_eof = self._keep_alive = self._read_paused = False
        self.status = self._size = self._head_bytes = 0
        self.headers = []
        self._chunks = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP: {error}")
            return
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._fail("the answer's head is too large")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._until_eof and exc is None:
            self._complete = True
        if not self._complete and self._error is None:
            self._error = UpstreamBroken(f"the connection was lost: {exc or 'closed by the upstream'}")
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # later ones are trailers, which no browser asks for
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim = True
            self.headers = []
            return
        if not 200 <= status < 600:
            raise ValueError(f"status {status}")
        size = sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_LIMIT or len(self.headers) > HEADERS_LIMIT:
            raise ValueError("the head is too large")
        self.status = status
        self._keep_alive = self._parser.should_keep_alive()
        if self._bodiless or status in BODILESS:
            self._complete = True
        else:
            framing = {name for name, _ in self.headers}
            self._until_eof = b"content-length" not in framing and b"transfer-encoding" not in framing
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            self._keep_alive = False  # a body where none may be: thrown away with the connection
            return
        self._chunks.append(body)
        self._size += len(body)
        if self._size > READ_LIMIT and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        self._complete = True
        self._wake()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str) -> None:
        self._error = self._error or UpstreamBroken(why)
        self._keep_alive = False
        self.transport.abort()
        self._wake()
