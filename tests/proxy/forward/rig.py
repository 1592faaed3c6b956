"""A real uvicorn that relays to a real upstream, over TCP or a Unix socket, on free ports and in one event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import uvicorn
from aiohttp import web

from proxy.access.origin import Scope
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.forward.http import Again, forward_http
from proxy.forward.relay_watch import Receive, Send
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.forward.ws import forward_ws
from proxy.http_server import ClientProtocol
from tests.prompt_server import PromptServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNK = b"x" * 65536
WAIT_S = 20.0


class Rig:
    """`rig.handler` answers at the upstream; `rig.statuses` holds what the relay returned."""

    def __init__(self, kind: str, folder: Path, settings: Settings, protocol: type[ClientProtocol]) -> None:
        self.kind = kind
        self.socket = folder / "up.sock" if kind == "unix" else None
        self.settings = settings
        self.upstreams = Upstreams(settings)
        self.upstream = Upstream("one", self.socket, "http://session", {"X-Cluster-Session-Secret": "s3cret"})
        self.handler: Handler | None = None
        self.port = 0
        self.private = True
        self.again: Again | None = None
        self.statuses: list[int] = []
        self.open = 0
        self.quiet = asyncio.Event()
        self.protocol = protocol
        self.writers: list[asyncio.StreamWriter] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open += 1
        self.quiet.clear()
        try:
            if scope["type"] == "websocket":
                await forward_ws(scope, receive, send, self.upstream, self.upstreams, self.settings)
            else:
                args = (scope, receive, send, self.upstream, self.upstreams, self.settings)
                self.statuses.append(await forward_http(*args, private=self.private, again=self.again))
        finally:
            self.open -= 1
            if not self.open:
                self.quiet.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def settled(self) -> None:
        """Until no relay runs and no background task of one is left."""
        async with asyncio.timeout(WAIT_S):
            while self.open or len(self.upstreams.tasks):
                await self.quiet.wait()
                await asyncio.sleep(0)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection of a browser."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def exchange(self, request: bytes) -> bytes:
        """Send raw bytes and read until the server closes."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            async with asyncio.timeout(WAIT_S):
                return await reader.read()
        finally:
            await shut(writer)

    @asynccontextmanager
    async def serving_raw(self, handler: RawHandler) -> AsyncIterator[None]:
        """An upstream that speaks bytes instead of HTTP, in place of the usual one."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            finally:
                await shut(writer)

        server: asyncio.Server
        if self.socket is None:
            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            await self._at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        else:
            self.socket = self.socket.with_name("raw.sock")
            server = await asyncio.start_unix_server(handle, str(self.socket))
            await self._at("http://raw")
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def serve_upstream(self, stack: AsyncExitStack) -> None:
        app = web.Application(client_max_size=1 << 30)

        async def dispatch(request: web.Request) -> web.StreamResponse:
            assert self.handler is not None
            return await self.handler(request)

        app.router.add_route("*", r"/{tail:[\s\S]*}", dispatch)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.02)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if self.socket is None:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            await self._at(f"http://127.0.0.1:{runner.addresses[0][1]}")
        else:
            await web.UnixSite(runner, str(self.socket)).start()

    async def serve_proxy(self, stack: AsyncExitStack) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            interface="asgi3",
            proxy_headers=False,
            http=self.protocol,
            ws="websockets-sansio",
            ws_max_size=self.settings.max_frame_mb << 20,
            ws_ping_interval=self.settings.ping_interval_s,
            lifespan="off",
            access_log=False,
            server_header=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = PromptServer(config)
        tasks = Tasks()
        running = tasks.start("uvicorn", server.serve([listener]))

        async def stop() -> None:
            server.end()
            await asyncio.wait({running}, timeout=WAIT_S)
            await tasks.stop()

        stack.push_async_callback(stop)
        async with asyncio.timeout(WAIT_S):
            await server.ready()

    async def _at(self, base_url: str) -> None:
        self.upstream = Upstream("one", self.socket, base_url, self.upstream.headers)


@asynccontextmanager
async def running(
    kind: str, folder: Path, settings: Settings, protocol: type[ClientProtocol] = ClientProtocol
) -> AsyncIterator[Rig]:
    """A rig that serves."""
    rig = Rig(kind, folder, settings, protocol)
    async with AsyncExitStack() as stack:
        await rig.serve_upstream(stack)
        stack.push_async_callback(rig.upstreams.close)
        await rig.serve_proxy(stack)
        try:
            yield rig
        finally:
            for writer in rig.writers:
                await shut(writer)


@asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that changes nothing and follows nothing."""
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(
        auto_decompress=False, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


async def shut(writer: asyncio.StreamWriter) -> None:
    """Close a connection whatever state it is in."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Ending:
    """A handler that records how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.how = ""

    async def download(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(CHUNK)
                self.began.set()
        except (ConnectionError, asyncio.CancelledError) as error:
            self.how = type(error).__name__
            raise
        finally:
            self.ended.set()

    async def upload(self, request: web.Request) -> web.StreamResponse:
        try:
            async for _ in request.content.iter_any():
                self.began.set()
        except (OSError, asyncio.CancelledError, aiohttp.ClientError, aiohttp.http_exceptions.BadHttpMessage) as error:
            self.how = type(error).__name__
            raise
        finally:
            self.ended.set()
        return web.Response(text="complete")

    async def thinking(self, _request: web.Request) -> web.StreamResponse:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.how = "CancelledError"
            raise
        finally:
            self.ended.set()
        raise AssertionError
