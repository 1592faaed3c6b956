"""`GET /view`: a user's file as it is, as a preview, or one channel of it. All parameters of ComfyUI 0.8.0.

400 for a name that is absolute or has `..` in it and for an unknown type, 403 for a subfolder that leads out, 404.
"""

import asyncio
from pathlib import Path

from aiohttp import hdrs, web

from proxy.base.errors import BadInput, NotFound
from user_sessions.light.files import HARMLESS, Areas, RangedFile, annotated, disposition, file_headers
from user_sessions.light.mask import one_channel, preview


class View:
    """The view route on a user's areas."""

    def __init__(self, areas: Areas, drawing: asyncio.Semaphore) -> None:
        self._areas = areas
        self._drawing = drawing

    def routes(self) -> list[web.RouteDef]:
        """Bare paths; the application adds the `/api` twins."""
        return [web.get("/view", self._view)]

    async def _view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "filename" not in query:
            raise NotFound("Say which file: `filename` is missing.")
        name, area = annotated(query["filename"])
        area = area or query.get("type", "output")
        if not name or name.startswith("/") or ".." in name:
            raise BadInput("This is not a usable file name.")
        if self._areas.root(area) is None:
            raise BadInput("The type must be input, output or temp.")
        path = self._areas.find(area, query.get("subfolder", ""), Path(name).name)
        if path is None:
            raise NotFound("There is no such file.")
        channel = query.get("channel", "rgba")
        if "preview" in query:
            return await self._drawn(path, query["preview"], query.get("channel", ""))
        if channel in {"rgb", "a"}:
            return await self._drawn(path, None, channel)
        return RangedFile(path, file_headers(path.name))

    async def _drawn(self, path: Path, wish: str | None, channel: str) -> web.Response:
        async with self._drawing:
            if wish is not None:
                body, content_type = await asyncio.to_thread(preview, path, wish, channel)
            else:
                body, content_type = await asyncio.to_thread(one_channel, path, channel)
        headers = {hdrs.CONTENT_DISPOSITION: disposition("", path.name), **HARMLESS}
        return web.Response(body=body, content_type=content_type, headers=headers)
