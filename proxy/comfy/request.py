"""Reading a request to ComfyUI's own routes: who sent it, its JSON whatever its Content-Type, what it may cost.

Errors leave as ComfyUI-shaped JSON (client demands E1, B1).
"""

import asyncio
import json
import math
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import ClientDisconnect, Request

from proxy.access import auth
from proxy.access.cache import Identity
from proxy.base.errors import BadInput
from proxy.base.settings import Settings
from proxy.request_body import read_body

DEPTH_LIMIT = 100
"""Levels of nesting a body may have; workflows with subgraphs need about 20."""
CONTAINER_LIMIT = 250_000
"""Lists and objects a body may have; a workflow of a thousand nodes has about 20,000."""
VALUE_LIMIT = 500_000
COMMAND_MB = 1
"""Largest body of a command: some 25,000 job ids."""
IDS_LIMIT = 20_000
"""Ids in one command; SQLite takes 32,766 values in a statement."""
INLINE_LIMIT = 256 * 1024
PARSED_AT_ONCE = 2
PARSING: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
"""Turns at parsing large bodies; a semaphore belongs to the loop that waits on it."""


class NotJson(BadInput):
    """A body that no parser takes."""


def identity(request: Request) -> Identity:
    """The sender; the edge lets nobody unknown through."""
    found = auth.identity(request.scope)
    assert found is not None
    return found


async def read_prompt(request: Request, settings: Settings) -> Any:
    """What a POST /prompt says. Raises BadInput, TooLarge or TooSlow."""
    body = await _read(request, settings.max_prompt_mb, settings)
    if not body.strip():
        raise BadInput("The request has no body. Send JSON.")
    return await _parsed(body)


async def read_command(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object of a command such as POST /queue; an empty body is an empty object."""
    body = await _read(request, COMMAND_MB, settings)
    command = await _parsed(body) if body.strip() else {}
    if not isinstance(command, dict):
        raise BadInput("The body must be a JSON object.")
    return command


async def _read(request: Request, limit_mb: int, settings: Settings) -> bytes:
    try:
        return await read_body(request, limit_mb << 20, settings.transfer_timeout_s)
    except ClientDisconnect as error:
        raise BadInput("The request ended early.") from error


async def _parsed(body: bytes) -> Any:
    """The body as JSON. Large ones are parsed beside the event loop, two at a time: each takes many times its size."""
    try:
        if len(body) <= INLINE_LIMIT:
            return _parse(body)
        async with PARSING.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(PARSED_AT_ONCE)):
            return await asyncio.to_thread(_parse, body)
    except RecursionError as error:
        raise BadInput("The JSON is nested too deeply.") from error
    except ValueError as error:
        raise NotJson("The body is not JSON.", str(error)) from error


def _parse(body: bytes) -> Any:
    # The parser is one C call that holds the interpreter from begin to end, in whatever thread: what it costs is known
    # before, since no value comes without one of these signs.
    if body.count(b"[") + body.count(b"{") > CONTAINER_LIMIT or body.count(b",") > VALUE_LIMIT:
        raise BadInput("The JSON has too many parts. A prompt needs far fewer.")
    return _shallow(json.loads(body, parse_constant=_refuse_constant, parse_float=_finite))


def ids(body: dict[str, Any], key: str) -> list[str]:
    """A list of ids in a command such as `{"delete": [...]}`. Raises BadInput when there are too many."""
    listed = body.get(key)
    if not isinstance(listed, list):
        return []
    if len(listed) > IDS_LIMIT:
        raise BadInput(f"`{key}` may name at most {IDS_LIMIT} jobs. Send several requests.")
    return [str(item) for item in listed]


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
