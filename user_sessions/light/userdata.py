"""`/userdata` and `/v2/userdata`: the user's workflows and other WebUI files, below `<user>/default`.

A file is one URL-encoded segment (`workflows%2Fa.json`). Statuses and texts are ComfyUI's; where it checks and then
writes (409 on an existing file), this is one atomic step. Times are milliseconds, as newer versions and the frontend
have it.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from proxy.base.errors import BadInput, ClusterError
from user_sessions.light.files import RangedFile, file_headers, inside, real
from user_sessions.light.spool import PREFIX, Spool, too_large

CHUNK_BYTES = 256 * 1024
STARTING_FOLDERS = ("workflows", "subgraphs")
"""Made beforehand: ComfyUI answers 404 until the first save, and browsers print that as an error."""


class Refused(Exception):
    """ComfyUI's plain answer to a bad request of this family."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.response = web.Response(status=status, text=text)


class UserData:
    """The userdata routes on one user's home."""

    def __init__(self, home: Path, limit_bytes: int) -> None:
        self._home = real(home)
        self._limit = limit_bytes

    def routes(self) -> list[web.RouteDef]:
        """Bare paths; the application adds the `/api` twins."""
        return [
            web.get("/userdata", self._list),
            web.get("/v2/userdata", self._walk),
            web.get("/userdata/{file}", self._get),
            web.post("/userdata/{file}", self._post),
            web.delete("/userdata/{file}", self._delete),
            web.post("/userdata/{file}/move/{dest}", self._move),
        ]

    def _path(self, name: str, status: int = 403) -> Path:
        """Where `name` is; ComfyUI decodes it a second time when a `%` is left."""
        try:
            path = inside(self._home, unquote(name))
        except ClusterError as error:
            raise Refused(status, "Invalid path") from error
        if path == self._home:
            raise Refused(status, "Invalid path")
        return path

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not os.path.exists(path):  # noqa: PTH110 - pathlib's raises on names that are too long
            raise Refused(404)
        return path

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        if not query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        try:
            folder = inside(self._home, unquote(query["dir"]))
        except ClusterError:
            return web.Response(status=403, text="Invalid directory")
        if not os.path.isdir(folder):  # noqa: PTH112 - as above
            return web.Response(status=404, text="Directory not found")
        found = await asyncio.to_thread(
            lambda: [
                _entry(path, folder, full=_true(query.get("full_info")), split=_true(query.get("split")))
                for path in _files(folder, deep=_true(query.get("recurse")))
            ]
        )
        return web.json_response(found)

    async def _walk(self, request: web.Request) -> web.Response:
        wish = unquote(request.query.get("path", ""))
        try:
            folder = inside(self._home, wish)
        except ClusterError:
            return web.Response(status=400, text="Invalid path requested")
        if not os.path.exists(folder):  # noqa: PTH110 - as above
            return web.json_response([]) if not wish else web.Response(status=404, text="Requested path not found")
        if not folder.is_dir():
            return web.Response(status=400, text="Requested path is not a directory")
        return web.json_response(await asyncio.to_thread(_tree, folder, self._home))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        try:
            path = self._existing(request.match_info["file"])
        except Refused as refused:
            return refused.response
        return RangedFile(path, file_headers(path.name, download=True))

    async def _post(self, request: web.Request) -> web.Response:
        try:
            path = self._path(request.match_info["file"])
            if path.is_dir():
                raise Refused(400, "This name belongs to a folder")
            await self._store(request, path)
        except Refused as refused:
            return refused.response
        return self._stored(request, path)

    async def _store(self, request: web.Request, path: Path) -> None:
        overwrite = request.query.get("overwrite", "true") != "false"
        if not overwrite and path.exists():
            raise Refused(409, "File already exists")
        if (request.content_length or 0) > self._limit:
            raise too_large(self._limit)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with Spool(path.parent, self._limit) as spool:
            async for chunk in request.content.iter_chunked(CHUNK_BYTES):
                await spool.write(chunk)
            await spool.finish()
            if overwrite:
                await asyncio.to_thread(spool.place_over, path)
            elif not await asyncio.to_thread(spool.place_new, path):
                raise Refused(409, "File already exists")

    async def _delete(self, request: web.Request) -> web.Response:
        try:
            path = self._existing(request.match_info["file"])
        except Refused as refused:
            return refused.response
        if path.is_dir():
            raise BadInput("This is a folder. Delete the files in it.")
        path.unlink(missing_ok=True)
        return web.Response(status=204)

    async def _move(self, request: web.Request) -> web.Response:
        try:
            source = self._existing(request.match_info["file"])
            target = self._path(request.match_info["dest"])
            if target == source:
                return self._stored(request, target)
            if target.is_dir() or source in target.parents:
                raise Refused(400, "This name belongs to a folder")
            if request.query.get("overwrite", "true") == "false" and target.exists():
                raise Refused(409, "File already exists")
        except Refused as refused:
            return refused.response
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(_move, source, target)
        return self._stored(request, target)

    def _stored(self, request: web.Request, path: Path) -> web.Response:
        full = _true(request.query.get("full_info"))
        return web.json_response(_entry(path, self._home, full=full, split=False))


def _move(source: Path, target: Path) -> None:
    import shutil  # renames, or copies where the sandbox forbids renames between directories

    shutil.move(source, target)


def _true(value: str | None) -> bool:
    return (value or "").lower() == "true"


def _files(folder: Path, *, deep: bool) -> Iterator[Path]:
    """Files below `folder`, hidden ones left out as ComfyUI's glob does, links that lead out too."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and path.is_file() and (not path.is_symlink() or _stays(path, folder)):
                yield path


def _stays(path: Path, folder: Path) -> bool:
    return folder in real(path).parents


def _entry(path: Path, base: Path, *, full: bool, split: bool) -> object:
    name = path.relative_to(base).as_posix()
    if full:
        stat = path.stat()
        return {
            "path": name,
            "size": stat.st_size,
            "modified": int(stat.st_mtime * 1000),
            "created": int(stat.st_ctime * 1000),
        }
    return [name, *name.split("/")] if split else name


def _tree(folder: Path, home: Path) -> list[dict[str, object]]:
    """All folders and files below, folders first, by name."""
    found: list[dict[str, object]] = []
    for parent, folders, names in os.walk(folder):
        base = Path(parent)
        found += [
            {"name": name, "path": (base / name).relative_to(home).as_posix(), "type": "directory"} for name in folders
        ]
        for name in names:
            path = base / name
            if name.startswith(PREFIX) or not path.is_file():
                continue
            stat = path.stat()
            found.append(
                {"name": name, "path": path.relative_to(home).as_posix(), "type": "file"}
                | {"size": stat.st_size, "modified": int(stat.st_mtime * 1000)}
            )
    return sorted(found, key=lambda entry: (entry["type"] != "directory", str(entry["name"]).lower()))
