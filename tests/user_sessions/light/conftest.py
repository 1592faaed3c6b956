"""A real light session on a Unix socket, and ways to talk to it: an HTTP client and raw bytes."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from proxy.base.tasks import Tasks
from user_sessions.directories import prepare_public, prepare_user
from user_sessions.light.runtime import LightRuntime
from user_sessions.listener import bind
from user_sessions.runtime import SECRET_HEADER, SessionSpec

SECRET = "s3cret-of-this-session"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Running:
    """A served session. `http` sends the secret with everything."""

    spec: SessionSpec
    http: aiohttp.ClientSession

    @property
    def home(self) -> Path:
        """Where userdata lives."""
        return self.spec.directories.user / "default"

    async def raw(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request head as it is (clients tidy paths up); returns status and the whole answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.spec.socket))
        try:
            text = f"{head}\r\nHost: x\r\n{SECRET_HEADER}: {SECRET}\r\nConnection: close\r\n"
            text += f"Content-Length: {len(body)}\r\n\r\n"
            writer.write(text.encode("utf-8", "surrogateescape") + body)
            answer = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        finally:
            writer.close()
        return int(answer.split(b" ", 2)[1]), answer


@asynccontextmanager
async def serving(runtime: LightRuntime, spec: SessionSpec) -> AsyncIterator[Running]:
    """Run a session in this loop until the block ends."""
    ready = asyncio.Event()
    tasks = Tasks()
    task = tasks.start("session", runtime.serve(spec, bind(spec.socket), ready.set))
    waiting = tasks.start("ready", ready.wait())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tasks.stop)
        await asyncio.wait({task, waiting}, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        http = aiohttp.ClientSession(
            "http://session",
            connector=aiohttp.UnixConnector(str(spec.socket)),
            headers={SECRET_HEADER: SECRET},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            auto_decompress=False,
        )
        yield Running(spec, await stack.enter_async_context(http))


def spec_in(folder: Path, max_upload_mb: int = 2) -> SessionSpec:
    """A session of a user in that data directory."""
    directories = prepare_user(folder, "ann")
    public = prepare_public(folder)
    return SessionSpec("id", "ann", directories, public, folder / "s.sock", SECRET, folder / "log", max_upload_mb)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name: the path of a Unix socket has room for 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="light-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def runtime() -> LightRuntime:
    """The runtime of all tests, with the installed frontend and no cache."""
    runtime = LightRuntime(None)
    runtime.warm()
    return runtime


@pytest.fixture
async def session(folder: Path, runtime: LightRuntime) -> AsyncIterator[Running]:
    """A served session with an upload limit of 2 MB."""
    async with serving(runtime, spec_in(folder)) as running:
        yield running
