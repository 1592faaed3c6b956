"""The HTTP relay and requests that are malformed, endless or meant to be read in two ways."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.base.settings import Settings
from proxy.http_server import ClientProtocol
from tests.proxy.forward.rig import WAIT_S, Ending, Rig, running, shut


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_upload_mb=1)) as rig:
        yield rig


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /evil HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_malformed_requests_never_reach_the_upstream_in_two(rig: Rig, request_bytes: bytes) -> None:
    targets: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        targets.append(request.raw_path)
        await request.read()
        return web.Response(text="ok")

    rig.handler = handler
    reader, writer = await rig.connect()
    writer.write(request_bytes)
    writer.write_eof()
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    await shut(writer)
    await rig.settled()
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 50")) or not answer
    assert len(targets) <= 1 and "/evil" not in targets


async def test_absurd_chunk_sizes_do_not_fill_memory(rig: Rig) -> None:
    ending = Ending()
    rig.handler = ending.upload
    answer = await rig.exchange(
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n"
        + b"x" * (3 << 20)
    )
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "bomb",
    [
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 2_000_000,
    ],
    ids=["many", "long", "long target", "endless"],
)
async def test_header_bombs(rig: Rig, bomb: bytes) -> None:
    reader, writer = await rig.connect()
    writer.write(bomb)
    async with asyncio.timeout(WAIT_S):
        try:
            answer = await reader.read()
        except ConnectionResetError:  # it was still sending
            answer = b""
    await shut(writer)
    assert answer.startswith(b"HTTP/1.1 431") or not answer
    assert rig.statuses == []


async def test_head_that_never_ends_is_cut(tmp_path: Path) -> None:
    class Hasty(ClientProtocol):
        head_timeout_s = 0.2

    async with running("tcp", tmp_path, Settings(), Hasty) as rig:
        rig.handler = Ending().upload
        for sent, expected in ((b"", b""), (b"GET / HTTP/1.1\r\nHost: ", b"HTTP/1.1 408")):
            assert (await rig.exchange(sent)).startswith(expected)
        reader, writer = await rig.connect()
        async with asyncio.timeout(WAIT_S):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readuntil(b"complete")).startswith(b"HTTP/1.1 200")
            writer.write(b"GET /second HTTP/1.1\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 408")
        await shut(writer)


async def test_a_body_that_goes_on_after_its_answer_ends_with_the_connection(tmp_path: Path) -> None:
    class Hasty(ClientProtocol):
        linger_s = 0.2

    async def early(_request: web.Request) -> web.Response:
        return web.Response(status=401)

    async with running("tcp", tmp_path, Settings(), Hasty) as rig:
        rig.handler = early
        reader, writer = await rig.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nx")
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
            trickling = True
            while trickling:
                try:
                    writer.write(b"x")
                    trickling = await asyncio.wait_for(reader.read(4096), 0.02) != b""
                except TimeoutError:
                    continue
                except ConnectionError:
                    trickling = False
        await shut(writer)


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    rig.handler = handler
    answer = await rig.exchange(
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    assert answer.index(b"/1") < answer.index(b"/2")
    assert rig.statuses == [200, 200]
