"""Long lists of jobs as JSON, read and sent a part at a time: a history of hundreds of megabytes costs a few of them.

What fits into one answer is sent as one, with its length.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.responses import Response, StreamingResponse

from backend_pool.jobs.queries import JobQueries, Listed
from backend_pool.model import Job, JobDocument

WHOLE_SIZE = 1024 * 1024
JSON = "application/json"

Encode = Callable[[Job, JobDocument], str]


async def entries(
    queries: JobQueries, listed: Sequence[Listed], encode: Encode, *, submitted: bool = True
) -> AsyncIterator[bytes]:
    """What `encode` makes of each job, with commas between; without `submitted` it may not touch what was sent."""
    comma = ""
    async for part in queries.parts(listed, submitted=submitted):
        text = await asyncio.to_thread(_joined, part, encode)
        if text:
            yield f"{comma}{text}".encode("ascii")
            comma = ","


async def response(pieces: AsyncIterator[bytes]) -> Response:
    """The answer made of these pieces. Raises what reading the first ones raises; later failures cut the answer off."""
    start = b""
    async for piece in pieces:
        start += piece
        if len(start) > WHOLE_SIZE:
            return StreamingResponse(_with(start, pieces), media_type=JSON)
    return Response(start, media_type=JSON)


async def _with(start: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for piece in pieces:
        yield piece


def _joined(part: Sequence[tuple[Job, JobDocument]], encode: Encode) -> str:
    return ",".join(encode(job, document) for job, document in part)
