"""One WebSocket through the local relay: both legs, message by message; when one ends, the other is closed alike."""

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp import WSMsgType, hdrs, web
from yarl import URL

MAX_FRAME = 128 << 20
PING_S = 20.0
GOING_AWAY = 1001
SAYABLE = range(1000, 5000)
UNSAYABLE = frozenset({1004, 1005, 1006, 1015})

Leg = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def join(
    request: web.Request, client: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]
) -> web.WebSocketResponse:
    """Relay until a side ends. Raises aiohttp.WSServerHandshakeError when the server refuses."""
    wanted = [name.strip() for name in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",") if name.strip()]
    async with client.ws_connect(
        url, headers=headers, protocols=wanted, max_msg_size=MAX_FRAME, heartbeat=PING_S, autoclose=True
    ) as upstream:
        chosen = [upstream.protocol] if upstream.protocol else []
        browser = web.WebSocketResponse(protocols=chosen, max_msg_size=MAX_FRAME, heartbeat=PING_S)
        await browser.prepare(request)
        async with asyncio.TaskGroup() as group:  # each pump ends when either leg does: closing one wakes the other
            group.create_task(_pump(browser, upstream), name="relay up")
            group.create_task(_pump(upstream, browser), name="relay down")
        return browser


async def _pump(source: Leg, target: Leg) -> None:
    try:
        while True:
            message = await source.receive()
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            else:
                break
    except (ConnectionError, aiohttp.ClientError):  # the target vanished; its own pump says so
        await source.close(code=GOING_AWAY)
        return
    code = source.close_code or GOING_AWAY
    await target.close(code=code if code in SAYABLE and code not in UNSAYABLE else GOING_AWAY)
