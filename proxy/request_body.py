"""Reading a request's body whole: never more than its limit in memory, never longer than its sender keeps sending.

A body that stands still, or that trickles in for ever, costs its sender the connection (408). Knows no routes.
"""

import asyncio

from starlette.requests import Request

from proxy.base.errors import CallerError, TooLarge

IDLE_S = 30.0
"""How long a body may stand still."""


class TooSlow(CallerError):
    """The body did not come in time."""

    status = 408
    kind = "request_timeout"


async def read_body(request: Request, limit: int, total_s: float) -> bytes:
    """The whole body. Raises TooLarge as soon as it is over `limit` bytes or says so, TooSlow after `total_s`."""
    too_large = TooLarge(f"The request is larger than {_size(limit)}.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > 12 or int(declared) > limit):
        raise too_large
    loop = asyncio.get_running_loop()
    end = loop.time() + total_s
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(min(end, loop.time() + IDLE_S)) as patience:
            async for chunk in request.stream():
                patience.reschedule(min(end, loop.time() + IDLE_S))
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise TooSlow("The request's body did not come in time. Send it again.") from None
    return b"".join(chunks)


def _size(limit: int) -> str:
    return f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit >> 10} kB"
