"""The HTTP relay when a side vanishes, dies, stalls or lies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.base.settings import Settings
from tests.proxy.forward.rig import CHUNK, WAIT_S, Ending, Rig, browser, open_files, running, shut


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_upload_mb=1)) as rig:
        yield rig


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Rig]:
    settings = Settings(max_upload_mb=64, transfer_timeout_s=0.3, upstream_timeout_s=0.3)
    async with running("unix", tmp_path, settings) as rig:
        yield rig


async def leave_in_the_middle(rig: Rig, request: bytes, ending: Ending) -> None:
    reader, writer = await rig.connect()
    writer.write(request)
    async with asyncio.timeout(WAIT_S):
        await ending.began.wait()
        writer.transport.abort()
        await ending.ended.wait()
    await shut(writer)
    await rig.settled()
    assert ending.how, "the upstream ended its work as if nothing had happened"
    del reader


async def test_browser_vanishes_mid_download(rig: Rig) -> None:
    before = open_files()
    for _ in range(5):
        ending = Ending()
        rig.handler = ending.download
        await leave_in_the_middle(rig, b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n", ending)
    await files_back_to(before)


async def test_browser_vanishes_mid_upload(rig: Rig) -> None:
    before = open_files()
    for framing in (b"Content-Length: 1000000\r\n\r\nsome", b"Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"):
        ending = Ending()
        rig.handler = ending.upload
        await leave_in_the_middle(rig, b"POST /up HTTP/1.1\r\nHost: h\r\n" + framing, ending)
    await files_back_to(before)


async def test_browser_vanishes_while_the_upstream_thinks(rig: Rig) -> None:
    before = open_files()
    for request in (
        b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
    ):
        ending = Ending()

        async def handler(request: web.Request, ending: Ending = ending) -> web.StreamResponse:
            return await ending.thinking(request)

        rig.handler = handler
        reader, writer = await rig.connect()
        writer.write(request)
        async with asyncio.timeout(WAIT_S):
            await ending.began.wait()
            writer.transport.abort()
            await rig.settled()
        await shut(writer)
        del reader
    assert rig.statuses == [499, 499]
    await files_back_to(before)


async def files_back_to(before: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while open_files() > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "head", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"], ids=["content-length", "chunked"]
)
async def test_upstream_dies_mid_body_and_the_browser_sees_it(rig: Rig, head: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n64\r\n" + b"p" * 100 + b"\r\n")
        await writer.drain()

    async with rig.serving_raw(handler), browser() as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get(rig.url + "/") as response:
                await response.read()
        await rig.settled()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "garbage", "odd status", "two lengths", "many headers", "huge header"],
)
async def test_upstream_that_speaks_nonsense(rig: Rig, answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with rig.serving_raw(handler), browser() as client, client.get(rig.url + "/") as response:
        assert response.status == 502
        assert (await response.json())["error"]["type"] == "bad_gateway"


async def test_control_bytes_in_response_headers_do_not_pass(rig: Rig) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Bad: a\x01b\r\nX-Good: 1\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with rig.serving_raw(handler), browser() as client, client.get(rig.url + "/") as response:
        assert response.status in {200, 502}  # the parser may refuse it before the rule does
        assert "X-Bad" not in response.headers


async def test_no_upstream_is_502(rig: Rig) -> None:
    async with rig.serving_raw(_close_at_once):
        gone = rig.upstream
    rig.upstream = gone
    async with browser() as client:
        for method in ("GET", "POST"):
            async with client.request(method, rig.url + "/x", data=b"") as response:
                assert response.status == 502
                assert (await response.json())["error"]["message"]


async def _close_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


@pytest.mark.parametrize(("method", "body", "most"), [("GET", b"", 2), ("POST", b"x", 1), ("PUT", b"x", 1)])
async def test_only_bodiless_idempotent_requests_are_sent_twice(rig: Rig, method: str, body: bytes, most: int) -> None:
    asked = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")  # the pooled connection dies with the next request on it
            asked += 1

    async with rig.serving_raw(handler), browser() as client:
        async with client.get(rig.url + "/") as response:
            assert response.status == 200
        async with client.request(method, rig.url + "/", data=body) as response:
            assert response.status == 502
    assert asked == 1 + most


async def test_stale_pooled_connection_is_replaced(rig: Rig) -> None:
    served = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            await reader.readuntil(b"\r\n\r\n")
            served += 1
            if served == 2:
                return  # closes without an answer, as a server whose idle limit has just passed
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            if served == 3:
                await writer.drain()
                return

    async with rig.serving_raw(handler), browser() as client:
        for _ in range(2):
            async with client.get(rig.url + "/") as response:
                assert (response.status, await response.read()) == (200, b"ok")
    assert served == 3


async def test_upstream_that_never_answers_is_504(impatient: Rig) -> None:
    impatient.handler = Ending().thinking
    async with browser() as client:
        for data in (None, b"x" * 300_000):
            async with client.post(impatient.url + "/", data=data) as response:
                assert response.status == 504
                assert (await response.json())["error"]["type"] == "gateway_timeout"
    await impatient.settled()


async def test_upstream_that_stalls_mid_body_is_cut(impatient: Rig) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"some")
        await asyncio.Event().wait()
        return response

    impatient.handler = handler
    async with browser() as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get(impatient.url + "/") as response:
                await response.read()


async def test_browser_that_stops_reading_is_cut(impatient: Rig) -> None:
    ending = Ending()
    impatient.handler = ending.download
    reader, writer = await impatient.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        await ending.ended.wait()
        await impatient.settled()
    assert ending.how
    await shut(writer)
    del reader


async def test_browser_that_stops_sending_is_cut(impatient: Rig) -> None:
    ending = Ending()
    impatient.handler = ending.upload
    answer = await impatient.exchange(
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 99\r\n\r\nbit"
    )
    assert answer.startswith(b"HTTP/1.1 504")
    await impatient.settled()


async def test_slow_but_moving_download_outlives_the_stall_limit(impatient: Rig) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10):
            await response.write(b"x")
            await asyncio.sleep(impatient.settings.transfer_timeout_s / 4)
        return response

    impatient.handler = handler
    async with browser() as client, client.get(impatient.url + "/") as response:
        assert await response.read() == b"x" * 10


async def test_slow_browser_makes_the_upstream_wait(rig: Rig) -> None:
    sent = 0
    total = 64 << 20

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(total)})
        await response.prepare(request)
        while sent < total:
            await response.write(CHUNK)
            sent += len(CHUNK)
        return response

    rig.handler = handler
    reader, writer = await rig.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(60):
        seen = -1
        while sent in {0, total} or sent != seen:  # until it stands still, half way
            seen = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < total // 2, "the relay or its server swallowed the body"
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readuntil(b"\r\n\r\n")
        received = 0
        while chunk := await reader.read(1 << 20):
            received += len(chunk)
    assert received == total
