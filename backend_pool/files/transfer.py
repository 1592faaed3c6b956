"""One file on its way from a backend to a partial file, taken up again where a connection broke."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from aiohttp import ClientResponse

from backend_pool.comfy.client import CHUNK, ComfyClient, FileRef
from backend_pool.errors import BackendGone, FileGone
from backend_pool.files.incoming import close, create_incoming, write
from proxy.base.tasks import together

T = TypeVar("T")

CONTINUATIONS = 5
"""How often one transfer is taken up again; each time it must have got further."""


@dataclass(frozen=True)
class Fetched:
    """`path` is the partial file, whole by now; None when the version asked about is the backend's still."""

    path: Path | None
    headers: Mapping[str, str]


class _Part:
    """What has arrived so far, and of which version."""

    def __init__(self, path: Path, out: IO[bytes]) -> None:
        self.path = path
        self.size = 0
        self.expected: int | None = None
        self.version: str | None = None
        self._out = out

    async def take(self, response: ClientResponse) -> None:
        """Write what comes, after what is there when the backend goes on with the same version."""
        version = response.headers.get("ETag")
        if response.status != 206 or version != self.version or not _goes_on(response, self.size):
            if response.status == 206:
                raise FileGone("the backend changed the file meanwhile")
            await asyncio.to_thread(self._restart)
        self.version = version
        length = None if "Content-Encoding" in response.headers else response.content_length
        self.expected = None if length is None else self.size + length
        async for chunk in response.content.iter_chunked(CHUNK):
            await asyncio.to_thread(write, self._out, chunk)
            self.size += len(chunk)

    def may_go_on(self, before: int) -> bool:
        """Whether asking for the rest makes sense."""
        return self.version is not None and self.expected is not None and before < self.size < self.expected

    def _restart(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self.size = 0

    async def close(self) -> None:
        await to_its_end(lambda: close(self._out))


async def fetch(
    client: ComfyClient,
    source: FileRef,
    *,
    etag: str | None,
    root: Path,
    key: str,
    admit: Callable[[Mapping[str, str]], bool],
) -> Fetched:
    """Bring a file of a backend into `root`'s folder of partial files, under `key`; `admit` judges its headers.

    Raises FileGone, BackendGone, DiskFull.
    """
    part: _Part | None = None
    try:
        for _ in range(CONTINUATIONS + 1):
            before = part.size if part else 0
            try:
                async with client.view(source, None if part else etag, start=before) as response:
                    if response.status == 304:
                        return Fetched(None, response.headers)
                    if not admit(response.headers):
                        raise FileGone(f"{source.filename} was not made by this job")
                    part = part or _Part(*await asyncio.to_thread(create_incoming, root, key))
                    await part.take(response)
                    headers = response.headers.copy()
                break
            except BackendGone:
                if part is None or not part.may_go_on(before):
                    raise
        else:
            raise FileGone(f"{source.filename} broke off again and again")
    finally:
        if part is not None:
            await part.close()
    if part.expected is not None and part.size != part.expected:
        raise FileGone(f"{source.filename} arrived incomplete")
    return Fetched(part.path, headers)


def _goes_on(response: ClientResponse, size: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {size}-")


async def to_its_end(work: Callable[[], T]) -> T:
    """Run `work` in a thread; also when cancelled it is over on return, so that what it made can be removed."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def side_by_side(works: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
    """Results in order, `most` at a time; when one fails the others are ended and its error is raised."""
    gate = asyncio.Semaphore(most)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    return await together("transfer", [one(work) for work in works])
