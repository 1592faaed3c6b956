"""A strange backend with files on disk: takes uploads, breaks transfers off, waits until several come at once."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import BodyPartReader, web

from tests.backend_pool.strange_backend import INFO, Strange

TOGETHER_S = 20.0
LOAD = {"LoadAny": {"input": {"required": {"file": ["COMBO", {"file_upload": True, "options": []}]}}}}


@dataclass
class FileBackend(Strange):
    """`root` holds its input, output and temp."""

    root: Path = Path()
    break_after: list[int] = field(default_factory=list)
    """Bytes after which the next transfers break off, one entry each."""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every GET /view."""
    heads: int = 0
    uploads: list[str] = field(default_factory=list)
    together: int = 1
    """GETs of /view that must be in flight before any is answered."""
    needs_inputs: bool = False
    """Refuse prompts whose LoadAny names no file of the input directory."""
    _waiting: int = 0
    _met: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.info = INFO | LOAD

    def path(self, kind: str, subfolder: str, name: str) -> Path:
        """Where a file lies."""
        return self.root / kind / subfolder / name

    async def view(self, request: web.Request) -> web.StreamResponse:  # type: ignore[override]
        """GET and HEAD /view."""
        query = request.query
        path = self.path(query.get("type", "output"), query.get("subfolder", ""), query["filename"])
        if not path.is_file():
            return web.Response(status=404)
        if request.method == "HEAD":
            self.heads += 1
            return web.FileResponse(path)
        self.ranges.append(request.headers.get("Range"))
        self._waiting += 1
        if self._waiting >= self.together:
            self._met.set()
        async with asyncio.timeout(TOGETHER_S):
            await self._met.wait()
        if self.break_after:
            return await self._broken(request, path, self.break_after.pop(0))
        return web.FileResponse(path)

    async def prompt(self, request: web.Request) -> web.Response:
        """POST /prompt."""
        nodes = (await request.json())["prompt"].values()
        names = [entry["inputs"]["file"] for entry in nodes if entry["class_type"] == "LoadAny"]
        if self.needs_inputs and not all((self.root / "input" / name).is_file() for name in names):
            return web.json_response({"error": {"type": "x", "message": "no such file"}}, status=400)
        return await super().prompt(request)

    async def _broken(self, request: web.Request, path: Path, length: int) -> web.StreamResponse:
        found = path.stat()
        etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'  # as aiohttp makes it
        response = web.StreamResponse(headers={"Content-Length": str(found.st_size), "ETag": etag})
        await response.prepare(request)
        await response.write(path.read_bytes()[:length])
        assert request.transport is not None
        request.transport.close()
        return response

    async def upload(self, request: web.Request) -> web.Response:
        """POST /upload/image, streamed to disk."""
        fields = {"type": "input", "subfolder": ""}
        partial, name = self.root / "upload", ""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            if part.name != "image":
                fields[str(part.name)] = await part.text()
                continue
            name = str(part.filename)
            with partial.open("wb") as out:
                while chunk := await part.read_chunk(1 << 18):
                    out.write(chunk)
        target = self.path(fields["type"], fields["subfolder"], name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        self.uploads.append(f"{fields['type']}/{fields['subfolder']}/{name}")
        return web.json_response({"name": name, "subfolder": fields["subfolder"], "type": fields["type"]})
