"""GET /ws: a client's socket, from its first `status` to its close."""

import json
import uuid
from typing import Any

from aiohttp import WSMsgType, web

from backend_pool.engine.answers import engine_of
from backend_pool.engine.engine import Engine
from backend_pool.engine.routes_info import feature_flags
from backend_pool.engine.sockets import Client

routes = web.RouteTableDef()


@routes.get("/ws")
async def websocket(request: web.Request) -> web.WebSocketResponse:
    """ComfyUI's defaults: no heartbeat, 4 MiB inbound, and only the first message counts."""
    engine = engine_of(request)
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    sid = request.query.get("clientId") or uuid.uuid4().hex
    client = Client(ws, request.transport)
    engine.sockets.add(sid, client)
    try:
        engine.sockets.send("status", {"status": engine.queue_info(), "sid": sid}, sid)
        if engine.executor.client_id == sid and engine.executor.last_node_id is not None:
            engine.sockets.send("executing", {"node": engine.executor.last_node_id}, sid)
        first = True
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                if first:
                    _negotiate(engine, sid, client, message.data)
                first = False
    finally:
        engine.sockets.remove(sid, client)
    return ws


def _negotiate(engine: Engine, sid: str, client: Client, text: str) -> None:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(data, dict) or data.get("type") != "feature_flags":
        return
    flags = data.get("data")
    client.features = flags if isinstance(flags, dict) else {}
    engine.sockets.send("feature_flags", feature_flags(engine.options.max_upload_mb), sid)
