"""How the engine's routes read bodies and answer errors: ComfyUI's shapes, and never a 500 for what a client sent."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from backend_pool.engine.engine import Engine
from proxy.base.errors import CallerError, error_body

ENGINE = web.AppKey("engine", Engine)
DEPTH_LIMIT = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def engine_of(request: web.Request) -> Engine:
    """The engine a request belongs to."""
    return request.config_dict[ENGINE]


async def json_object(request: web.Request, *, empty_allowed: bool = False) -> dict[str, Any]:
    """The body as a JSON object. Raises a 400 in ComfyUI's error shape for anything else."""
    raw = await request.read()
    if empty_allowed and not raw.strip():
        return {}
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad_request("The body is not JSON.", str(error)[:200]) from error
    if not isinstance(data, dict):
        raise bad_request("The body must be a JSON object.", f"Received {type(data).__name__}")
    if _too_deep(data):
        raise bad_request(f"The body is nested deeper than {DEPTH_LIMIT} levels.", "")
    return data


def bad_request(message: str, details: str) -> web.HTTPBadRequest:
    """A 400 in the shape of POST /prompt's."""
    body = error_body("invalid_prompt", message, details) | {"node_errors": {}}
    return web.HTTPBadRequest(text=json.dumps(body), content_type="application/json")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other sites' pages (a browser sends their Origin to loopback too), and map our own errors."""
    origin, host = request.headers.get("Origin"), request.headers.get("Host")
    if origin and host and urlsplit(origin).netloc.lower() != host.lower():
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    try:
        return await handler(request)
    except CallerError as error:
        return web.json_response(error.body(), status=error.status)


def _too_deep(data: Any) -> bool:
    """Nested further than what can be copied and written again without overflowing the stack."""
    level = [data]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
