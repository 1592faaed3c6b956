"""Reading a request to ComfyUI's own routes: who sent it, its JSON whatever its Content-Type, its size limit.

Errors leave as ComfyUI-shaped JSON (CLIENT_DEMANDS E1, B1).
"""

import json
import math
from typing import Any

from starlette.requests import ClientDisconnect, Request

from proxy import auth
from proxy.access_cache import Identity
from proxy.base.errors import BadInput, TooLarge

DEPTH_LIMIT = 100
"""Levels of nesting a body may have; workflows with subgraphs need about 20."""


def identity(request: Request) -> Identity:
    """The sender; the edge lets nobody unknown through."""
    found = auth.identity(request.scope)
    assert found is not None
    return found


async def read_json(request: Request, limit_mb: int, *, empty: Any = None) -> Any:
    """The body as JSON, `empty` for an empty one. Raises BadInput or TooLarge."""
    body = await read_body(request, limit_mb)
    if not body.strip():
        if empty is not None:
            return empty
        raise BadInput("The request has no body. Send JSON.")
    try:
        return _shallow(json.loads(body, parse_constant=_refuse_constant, parse_float=_finite))
    except RecursionError as error:
        raise BadInput("The JSON is nested too deeply.") from error
    except ValueError as error:
        raise BadInput("The body is not JSON.", str(error)) from error


async def read_object(request: Request, limit_mb: int) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object."""
    body = await read_json(request, limit_mb, empty={})
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object.")
    return body


async def read_body(request: Request, limit_mb: int) -> bytes:
    """The whole body, never more than the limit in memory."""
    limit = limit_mb * 1024 * 1024
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"The request is larger than {limit_mb} MB.")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise BadInput("The request ended early.") from error
    return b"".join(chunks)


def ids(body: dict[str, Any], key: str) -> list[str]:
    """A list of ids in a command such as `{"delete": [...]}`."""
    listed = body.get(key)
    return [str(item) for item in listed] if isinstance(listed, list) else []


def _shallow(value: Any) -> Any:
    """The value; raises RecursionError for one that copying or writing it as JSON would overflow a stack with."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH_LIMIT):
        if not level:
            return value
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
    raise RecursionError


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
