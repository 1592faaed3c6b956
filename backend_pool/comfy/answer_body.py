"""The body of a backend's answer: read in pieces, unpacked here and not by aiohttp, never more than the caller allows.

A megabyte of gzip can be a gigabyte of text, so what counts is the size after unpacking. Overflow: BackendBroken, and
the connection is closed.
"""

import asyncio
import zlib
from typing import Any

from aiohttp import ClientResponse

from backend_pool.comfy.json_text import parse_aside
from backend_pool.errors import BackendBroken

MIB = 1024 * 1024
SMALL_BYTES = MIB
"""For answers of a few fields."""
LIST_BYTES = 4 * MIB
"""For one folder's models: 40,000 names of a hundred bytes."""
ANSWER_BYTES = 16 * MIB
"""For queues, refusals, lists of files: as much as a prompt may have."""
WHOLE_BYTES = 64 * MIB
"""For object_info; that of hundreds of node packs has a dozen."""
ANY_ZLIB = 32 + zlib.MAX_WBITS
"""Lets zlib tell gzip from deflate."""


async def read_whole(response: ClientResponse, limit: int) -> bytes:
    """All of it. Raises BackendBroken for more than `limit` bytes and for a packing nobody asked for."""
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", "deflate"):
        raise BackendBroken(f"{response.url.path} answered packed as {packing[:20]!r}, which was not asked for")
    unpacker = None if packing == "identity" else zlib.decompressobj(ANY_ZLIB)
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        # One byte more than is allowed settles it; in a thread, since 64 KiB can become megabytes.
        piece = part if unpacker is None else await _unpacked(unpacker, part, limit - size + 1, response)
        size += len(piece)
        if size > limit:
            response.close()
            raise BackendBroken(f"{response.url.path} answered more than {limit / MIB:g} MB")
        parts.append(piece)
    if unpacker is not None and size and not unpacker.eof:
        raise BackendBroken(f"{response.url.path} broke off")
    return b"".join(parts)


async def read_json(response: ClientResponse, limit: int) -> Any:
    """Its JSON value. Raises BackendBroken for an error's status, and for what is no JSON."""
    if response.status >= 400:
        raise BackendBroken(f"{response.url.path} answered {response.status}")
    return await parsed(await read_whole(response, limit), response)


async def parsed(content: bytes, response: ClientResponse) -> Any:
    """The value of a body that was read. Raises BackendBroken."""
    try:
        return await parse_aside(content)
    except ValueError as error:
        raise BackendBroken(f"{response.url.path} did not answer JSON") from error


async def _unpacked(unpacker: "zlib._Decompress", part: bytes, room: int, response: ClientResponse) -> bytes:
    try:
        return await asyncio.to_thread(unpacker.decompress, part, room)
    except zlib.error as error:
        raise BackendBroken(f"{response.url.path} answered what cannot be unpacked") from error
