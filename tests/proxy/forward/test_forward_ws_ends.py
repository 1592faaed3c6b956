"""WebSockets through the relay whose sides vanish, stall, or say too much."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from proxy.base.settings import Settings
from tests.proxy.forward.rig import WAIT_S, Rig, browser, open_files, running, shut
from tests.proxy.forward.sockets import MB, accepting, echo, handshake, socket_handler


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_frame_mb=2)) as rig:
        yield rig


async def test_browser_vanishes(rig: Rig) -> None:
    before = open_files()
    ended: asyncio.Queue[int | None] = asyncio.Queue()

    async def wait(socket: web.WebSocketResponse, _request: web.Request) -> None:
        await socket.send_str("here")
        await socket.receive()
        ended.put_nowait(socket.close_code)

    rig.handler = socket_handler(wait)
    for _ in range(5):
        reader, writer = await rig.connect()
        writer.write(handshake("/ws"))
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            assert await reader.readexactly(6) == b"\x81\x04here"
            writer.transport.abort()
            assert await ended.get() == 1001
        await shut(writer)
    await rig.settled()
    async with asyncio.timeout(WAIT_S):
        while open_files() > before:
            await asyncio.sleep(0.01)


async def test_browser_vanishes_while_frames_are_on_the_way(rig: Rig) -> None:
    ended = asyncio.Event()

    async def flood(socket: web.WebSocketResponse, _request: web.Request) -> None:
        try:
            while not socket.closed:
                await socket.send_bytes(b"x" * 100_000)
        except (ConnectionError, RuntimeError):
            pass
        finally:
            ended.set()

    rig.handler = socket_handler(flood)
    reader, writer = await rig.connect()
    writer.write(handshake("/ws"))
    async with asyncio.timeout(WAIT_S):
        await reader.readexactly(300_000)
        writer.transport.abort()
        await ended.wait()
    await shut(writer)
    await rig.settled()


async def test_upstream_vanishes(rig: Rig) -> None:
    async def vanish(_socket: web.WebSocketResponse, request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    rig.handler = socket_handler(vanish)
    async with browser() as client, client.ws_connect(rig.url + "/ws") as socket:
        message = await socket.receive(timeout=WAIT_S)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    await rig.settled()


async def test_close_storm_leaves_nothing(rig: Rig) -> None:
    before = open_files()

    async def chatter(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.send_str("x")
        if request.path == "/0":
            await socket.close(code=4000)
        elif request.path == "/1":
            assert request.transport is not None
            request.transport.abort()
        else:
            await echo(socket, request)

    rig.handler = socket_handler(chatter)

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        async with client.ws_connect(f"{rig.url}/{number % 4}") as socket:
            await socket.receive(timeout=WAIT_S)
            if number % 4 == 2:
                await socket.close(code=4002)

    async with browser() as client:
        for _ in range(4):
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(one(client, number))
    await rig.settled()
    async with asyncio.timeout(WAIT_S):
        while open_files() > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", ["browser", "upstream"])
async def test_frames_over_the_limit_close_both_sides(rig: Rig, by: str) -> None:
    ended: asyncio.Queue[int | None] = asyncio.Queue()

    async def work(socket: web.WebSocketResponse, _request: web.Request) -> None:
        with contextlib.suppress(ConnectionError):  # cut off while it still sends
            if by == "upstream":
                await socket.send_bytes(b"x" * (3 * MB))
            await socket.receive()
        ended.put_nowait(socket.close_code)

    rig.handler = socket_handler(work)
    async with browser() as client, client.ws_connect(rig.url + "/ws", max_msg_size=8 * MB) as socket:
        if by == "browser":
            await socket.send_bytes(b"x" * (3 * MB))
        message = await socket.receive(timeout=WAIT_S)
        assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED}
        assert socket.close_code == 1009
        async with asyncio.timeout(WAIT_S):
            assert await ended.get() == 1009 or by == "upstream"
    await rig.settled()


async def test_slow_browser_makes_the_upstream_wait(rig: Rig) -> None:
    sent = 0

    async def flood(socket: web.WebSocketResponse, _request: web.Request) -> None:
        nonlocal sent
        while sent < 400:
            await socket.send_bytes(b"x" * 100_000)
            sent += 1

    rig.handler = socket_handler(flood)
    reader, writer = await rig.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(handshake("/ws"))
    async with asyncio.timeout(60):
        seen = -1
        while sent == 0 or sent != seen:
            seen = sent
            await asyncio.sleep(0.2)
        assert sent < 300, "the relay swallowed the frames"
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(400 * (100_000 + 10))
    await shut(writer)


async def test_pings_keep_both_legs_and_find_a_dead_upstream(tmp_path: Path) -> None:
    settings = Settings(ping_interval_s=0.1)
    async with running("unix", tmp_path, settings) as rig:
        rig.handler = socket_handler(echo, autoping=True)
        reader, writer = await rig.connect()
        writer.write(handshake("/alive"))
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b"\r\n\r\n")
            assert (await reader.readexactly(6))[0] == 0x89, "no ping on the browser's leg"
        await shut(writer)

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(accepting(head))
            frames = await reader.readexactly(6)
            assert frames[0] == 0x89, "no ping on the upstream's leg"
            await reader.read()

        async with rig.serving_raw(deaf), browser() as client, client.ws_connect(rig.url + "/deaf") as socket:
            message = await socket.receive(timeout=WAIT_S)
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        await rig.settled()


async def test_quiet_upstream_that_answers_pings_stays(tmp_path: Path) -> None:
    async with running("tcp", tmp_path, Settings(ping_interval_s=0.05)) as rig:
        pings = asyncio.Semaphore(0)

        async def count(socket: web.WebSocketResponse, _request: web.Request) -> None:
            async for message in socket:
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                    pings.release()
                else:
                    await socket.send_str(message.data)

        rig.handler = socket_handler(count, autoping=False)
        async with browser() as client, client.ws_connect(rig.url + "/ws") as socket:
            async with asyncio.timeout(WAIT_S):
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"
                for _ in range(5):
                    await pings.acquire()
                await socket.send_str("still here")
                assert await socket.receive_str(timeout=WAIT_S) == "still here"
