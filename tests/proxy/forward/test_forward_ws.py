"""The WebSocket relay: messages, close codes, refusals."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from proxy.base.settings import Settings
from tests.proxy.forward.rig import WAIT_S, Rig, browser, running
from tests.proxy.forward.sockets import MB, echo, handshake, socket_handler


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path, Settings(max_frame_mb=2)) as rig:
        yield rig


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
