"""The WebSocket relay: messages, close codes, refusals, and sides that vanish or stall."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from proxy.base.settings import Settings
from tests.proxy.forward.rig import WAIT_S, Rig, browser, open_files, running, shut

SocketHandler = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]
MB = 1 << 20


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_frame_mb=2)) as rig:
        yield rig


def socket_handler(work: SocketHandler, **options: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=8 * MB, **options)  # type: ignore[arg-type]
        await socket.prepare(request)
        await work(socket, request)
        return socket

    return handler


async def echo(socket: web.WebSocketResponse, _request: web.Request) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)


async def test_text_and_binary_both_ways_in_order(rig: Rig) -> None:
    rig.handler = socket_handler(echo)
    async with browser() as client, client.ws_connect(rig.url + "/ws?clientId=a%2Fb", max_msg_size=4 * MB) as socket:
        for size in (0, 1, 125, 126, 65_536, MB):
            await socket.send_str("ü" * (size // 2))
            await socket.send_bytes(b"\x00" * size)
        for size in (0, 1, 125, 126, 65_536, MB):
            assert await socket.receive_str(timeout=WAIT_S) == "ü" * (size // 2)
            assert await socket.receive_bytes(timeout=WAIT_S) == b"\x00" * size
    await rig.settled()


async def test_handshake_headers_and_target(rig: Rig) -> None:
    seen: list[web.Request] = []

    async def note(socket: web.WebSocketResponse, request: web.Request) -> None:
        seen.append(request)
        await socket.send_str("hello")

    rig.handler = socket_handler(note)
    sent = {"Cookie": "comfy_cluster_login=x; a=1", "Origin": rig.url, "Authorization": "Bearer t"}
    async with browser() as client, client.ws_connect(rig.url + "/ws%2Fx?q=%20", headers=sent) as socket:
        assert await socket.receive_str(timeout=WAIT_S) == "hello"
    request = seen[0]
    assert request.raw_path == "/ws%2Fx?q=%20"
    assert request.headers["Cookie"] == "a=1"
    assert request.headers["X-Cluster-Session-Secret"] == "s3cret"
    assert "Origin" not in request.headers and "Authorization" not in request.headers
    assert len(request.headers.getall("Sec-WebSocket-Key")) == 1
    assert "Sec-WebSocket-Extensions" not in request.headers


async def test_subprotocols_are_the_upstreams_choice(rig: Rig) -> None:
    rig.handler = socket_handler(echo, protocols=["two"])
    async with browser() as client:
        async with client.ws_connect(rig.url + "/ws", protocols=["one", "two"]) as socket:
            assert socket.protocol == "two"
        async with client.ws_connect(rig.url + "/ws") as socket:
            assert socket.protocol is None


@pytest.mark.parametrize(("code", "arrives"), [(1000, 1000), (1001, 1001), (4001, 4001), (1011, 1011)])
async def test_close_codes_pass_both_ways(rig: Rig, code: int, arrives: int) -> None:
    ended: asyncio.Queue[int | None] = asyncio.Queue()

    async def close(socket: web.WebSocketResponse, request: web.Request) -> None:
        if request.path == "/mine":
            await socket.close(code=code, message=b"why")
        else:
            await socket.receive()
            ended.put_nowait(socket.close_code)

    rig.handler = socket_handler(close)
    async with browser() as client:
        async with client.ws_connect(rig.url + "/mine") as socket:
            message = await socket.receive(timeout=WAIT_S)
            assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, arrives, "why")
        async with client.ws_connect(rig.url + "/yours") as socket:
            await socket.close(code=code)
            async with asyncio.timeout(WAIT_S):
                assert await ended.get() == arrives
    await rig.settled()


@pytest.mark.parametrize(("status", "arrives"), [(404, 404), (401, 401), (500, 502), (200, 502), (302, 502)])
async def test_refused_handshakes(rig: Rig, status: int, arrives: int) -> None:
    asked = 0

    async def refuse(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    rig.handler = refuse
    async with browser() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(rig.url + "/ws")
    assert caught.value.status == arrives
    assert asked == 1, "the redirect was followed"
    await rig.settled()


async def test_refusal_has_the_error_shape(rig: Rig) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=500)

    rig.handler = refuse
    answer = await rig.exchange(handshake("/ws"))
    assert answer.startswith(b"HTTP/1.1 502") and b'{"error": {"type": "bad_gateway"' in answer


async def test_no_upstream_is_502_and_a_silent_one_504(tmp_path: Path) -> None:
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with running("unix", tmp_path, Settings(upstream_timeout_s=0.2)) as rig, browser() as client:
        rig.handler = silent
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(rig.url + "/ws")
        assert caught.value.status == 504
        async with rig.serving_raw(_nothing):
            pass
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(rig.url + "/ws")
        assert caught.value.status == 502
        await rig.settled()


async def _nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


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


def handshake(target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def accepting(head: bytes) -> bytes:
    """The 101 that a client's handshake asks for."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )
