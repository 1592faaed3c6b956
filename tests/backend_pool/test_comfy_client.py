"""A backend's failures in words that an operator can act on, and the log of an outage."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend_pool.backends.health import Health
from backend_pool.comfy.client import ComfyClient, Timeouts
from backend_pool.errors import BackendGone
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled
from tests.backend_pool.rig import rig

QUICK = Timeouts(call_s=0.5, transfer_s=0.5, ping_s=5, max_frame_bytes=1000)


@asynccontextmanager
async def listener(answer: bytes | None) -> AsyncIterator[int]:
    """A port that sends these bytes and hangs up, or says nothing at all."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await over.wait()
        else:
            await reader.read(1)
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


async def words(url: str) -> str:
    """What a failed call says."""
    client = ComfyClient(url, QUICK)
    try:
        with pytest.raises(BackendGone) as caught:
            await client.get_json("/queue")
        return str(caught.value)
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "did not answer in 0.5 s"),
        (b"", "it closed the connection"),
        (b"220 smtp.example ready\r\n", "it does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "its answer broke off"),
    ],
)
async def test_failures_in_words(answer: bytes | None, said: str) -> None:
    """No class names and no password."""
    async with listener(answer) as port:
        assert await words(f"http://ann:hunter2@127.0.0.1:{port}") == f"127.0.0.1:{port}: {said}"


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it meanwhile
        port = taken.getsockname()[1]
        assert await words(f"http://127.0.0.1:{port}") == f"127.0.0.1:{port}: connection refused"
    assert await words("http://nowhere.invalid:8188") == "nowhere.invalid:8188: no such host"


async def test_plain_http_behind_https() -> None:
    async with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert await words(f"https://127.0.0.1:{port}") == f"127.0.0.1:{port}: it does not speak HTTPS"


async def test_an_outage_is_logged_once(tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """It was a line each half second for as long as the backend was away."""
    engine = start("--step-ms", "50")
    with caplog.at_level(logging.INFO):
        async with rig(tmp_path, engine.url, backend_down_after_s=2.5) as r:
            prompt_id = await r.submit(sampled(steps=10_000))
            await r.heard.until(prompt_id, "execution_start")
            engine.kill()
            await r.eventually(lambda: r.health() == [Health.DOWN])
            assert r.pool.members[1].error == f"{engine.url.removeprefix('http://')}: connection refused"
    assert sum("backend connection lost" in record.getMessage() for record in caplog.records) == 1
