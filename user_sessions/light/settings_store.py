"""The user's WebUI settings: `<user>/default/comfy.settings.json`, read, merged and replaced as a whole under a lock.

The same file as ComfyUI's single-user mode, so a user may change the runtime. ComfyUI rewrites it in place without a
lock: two tabs lose each other's changes, and a crash leaves half a file that empties all settings.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from proxy.base.clock import now_ms
from proxy.base.errors import BadInput
from proxy.base.logs import events
from user_sessions.light.answers import json_body

log = events(__name__)

FILE = "comfy.settings.json"


class SettingsStore:
    """The settings file of one user and its routes."""

    def __init__(self, home: Path, first: Mapping[str, object]) -> None:
        self._file = home / FILE
        self._first = dict(first)
        self._lock = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Bare paths; the application adds the `/api` twins."""
        return [
            web.get("/settings", self._all),
            web.post("/settings", self._merge),
            web.get("/settings/{id}", self._one),
            web.post("/settings/{id}", self._set),
        ]

    async def _all(self, request: web.Request) -> web.Response:
        async with self._lock:
            return web.json_response(await asyncio.to_thread(self._read))

    async def _one(self, request: web.Request) -> web.Response:
        async with self._lock:
            settings = await asyncio.to_thread(self._read)
        return web.json_response(settings.get(request.match_info["id"]))

    async def _merge(self, request: web.Request) -> web.Response:
        changes = await json_body(request)
        if not isinstance(changes, dict):
            raise BadInput("Settings must be a JSON object.")
        return await self._change(changes)

    async def _set(self, request: web.Request) -> web.Response:
        return await self._change({request.match_info["id"]: await json_body(request)})

    async def _change(self, changes: Mapping[str, object]) -> web.Response:
        async with self._lock:
            # shielded: a browser that leaves must not let the next writer in while the thread still writes
            await asyncio.shield(asyncio.to_thread(self._write, changes))
        return web.Response()

    def _read(self) -> dict[str, object]:
        try:
            settings = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return dict(self._first)
        except (ValueError, RecursionError):
            settings = None
        if isinstance(settings, dict):
            return settings
        aside = self._file.with_name(f"{FILE}.damaged-{now_ms()}")
        self._file.replace(aside)
        log.warning("the settings file is damaged and was set aside", file=aside.name)
        return dict(self._first)

    def _write(self, changes: Mapping[str, object]) -> None:
        text = json.dumps({**self._read(), **changes}, indent=4)
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._file.with_name(f".{FILE}.part")
        try:
            with partial.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._file)
        finally:
            partial.unlink(missing_ok=True)
