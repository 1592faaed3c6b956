"""A line between the server and a worker, which advertises its address: answers on it wait, or come slowly.

Each connection is relayed byte by byte; what is asked is read from the first line of each request.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

CHUNK = 64 * 1024


class Link:
    """`to` names the worker's address once it is known. `bytes_per_s` slows answers to what `slow` names."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        """First lines of all requests."""
        self.slow = "/file?"
        self.bytes_per_s: float | None = None
        self._target: tuple[str, int] | None = None
        self._word, self._holds = "", 0
        self._caught, self._go = asyncio.Event(), asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    def to(self, url: str) -> None:
        """The worker's own address."""
        place = urlsplit(url)
        self._target = (place.hostname or "", place.port or 80)

    def hold(self, word: str, times: int = 1) -> None:
        """The next request whose first line has the word gets no answer before `let_go`."""
        self._word, self._holds = word, times
        self._caught, self._go = asyncio.Event(), asyncio.Event()

    async def caught(self) -> None:
        """Wait for it."""
        async with asyncio.timeout(60):
            await self._caught.wait()

    def let_go(self) -> None:
        """Let all answers pass."""
        self._holds = 0
        self._go.set()

    def times(self, word: str) -> int:
        """How many requests had the word in their first line."""
        return sum(word in line for line in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError):
                await self._relay(reader, writer)
        finally:
            await _closed(writer)
            self._open.discard(task)

    async def cut(self) -> None:
        """End all connections."""
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(list(self._open), timeout=60)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target is None:
            return
        held: list[asyncio.Event] = []
        slow = asyncio.Event()
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._there(reader, far_writer, held, slow))
                group.create_task(self._back(far_reader, writer, held, slow))
        finally:
            await _closed(far_writer)

    async def _there(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: list[asyncio.Event], slow: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                line = chunk.split(b"\r\n", 1)[0].decode("latin-1")
                if line.endswith(" HTTP/1.1"):
                    self._heed(line, held, slow)
                writer.write(chunk)
                await writer.drain()
        writer.close()

    def _heed(self, line: str, held: list[asyncio.Event], slow: asyncio.Event) -> None:
        self.asked.append(line)
        if self.slow in line:
            slow.set()
        if self._holds and self._word in line:
            self._holds -= 1
            held.append(self._go)
            self._caught.set()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: list[asyncio.Event], slow: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                for gate in held:
                    await gate.wait()
                if self.bytes_per_s is not None and slow.is_set():
                    await asyncio.sleep(len(chunk) / self.bytes_per_s)
                writer.write(chunk)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[Link]:
    """A line on a free port."""
    link = Link()
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
    link.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield link
    finally:
        link.let_go()
        server.close()
        await link.cut()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """A transport that is open at the loop's end is a warning in a later test."""
    writer.close()
    try:
        async with asyncio.timeout(5):
            await writer.wait_closed()
    except TimeoutError:  # nobody reads the rest
        writer.transport.abort()
    except OSError:
        pass
