"""Request bodies through the HTTP relay: lengths, chunks, limits, answers that come early."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.base.settings import Settings
from tests.proxy.forward.echo import echo, seen
from tests.proxy.forward.rig import WAIT_S, Rig, browser, running, shut


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_upload_mb=1)) as rig:
        yield rig


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("size", [0, 5, 200_000, 1 << 20])
async def test_uploads_keep_their_length(rig: Rig, method: str, size: int) -> None:
    rig.handler = echo
    async with browser() as client, client.request(method, rig.url + "/up", data=b"x" * size) as response:
        answer = await response.json()
    assert (answer["method"], answer["length"]) == (method, size)
    assert seen(answer, "content-length") == [str(size)]
    assert seen(answer, "transfer-encoding") == []


async def test_chunked_uploads_stay_chunked(rig: Rig) -> None:
    rig.handler = echo
    sent = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a" * 70_000
        await asyncio.sleep(0)
        sent.set()
        yield b"b" * 70_000

    async with browser() as client, client.post(rig.url + "/up", data=chunks()) as response:
        answer = await response.json()
    assert answer["length"] == 140_000
    assert sent.is_set()


async def test_upload_streams_before_it_is_complete(rig: Rig) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(request: web.Request) -> web.Response:
        async for chunk in request.content.iter_any():
            arrived.put_nowait(chunk)
        return web.Response(text="done")

    rig.handler = handler
    reader, writer = await rig.connect()
    writer.write(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\nConnection: close\r\n\r\nfour")
    async with asyncio.timeout(WAIT_S):
        assert await arrived.get() == b"four"
        writer.write(b"more")
        assert await arrived.get() == b"more"
        assert (await reader.read()).endswith(b"done")
    await shut(writer)


async def test_expect_100_continue(rig: Rig) -> None:
    rig.handler = echo
    reader, writer = await rig.connect()
    writer.write(
        b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    async with asyncio.timeout(WAIT_S):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        answer = await reader.read()
    assert b'"length": 4' in answer and b'"expect"' not in answer
    await shut(writer)


async def test_too_large_by_its_length_is_refused_at_once(rig: Rig) -> None:
    rig.handler = echo
    reader, writer = await rig.connect()
    writer.write(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\nfirst")
    async with asyncio.timeout(WAIT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"}}}")
    assert head.startswith(b"HTTP/1.1 413") and b"connection: close" in head
    assert b'"type": "too_large"' in body
    await shut(writer)
    await rig.settled()
    assert rig.statuses == [413]


async def test_too_large_reaches_a_client_that_sends_everything_first(rig: Rig) -> None:
    rig.handler = echo
    reader, writer = await rig.connect()
    writer.write(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        for _ in range(80):
            writer.write(b"x" * 100_000)
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
    await shut(writer)


async def test_too_large_while_streaming(rig: Rig) -> None:
    rig.handler = echo

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 50_000

    async with browser() as client, client.post(rig.url + "/up", data=chunks()) as response:
        assert response.status == 413
        assert (await response.json())["error"]["type"] == "too_large"


async def test_expect_100_continue_is_refused_without_asking_for_the_body(rig: Rig) -> None:
    rig.handler = echo
    answer = await rig.exchange(
        b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413")


async def test_upstream_may_answer_before_the_upload_ends(rig: Rig) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=403, text="no")

    rig.handler = handler
    async with browser() as client:
        async with client.post(rig.url + "/up", data=b"x" * 900_000) as response:
            assert (response.status, await response.text()) == (403, "no")
        rig.handler = echo
        async with client.get(rig.url + "/after") as response:
            assert response.status == 200
