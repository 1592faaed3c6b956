"""The frontend's files as the light runtime serves them: compressed once for all sessions, kept by browsers.

ComfyUI itself sends 23 MB of plain text to every new browser and has it ask for each file again at every load. What is
not a file of the frontend (pages, routes, scripts of custom nodes) stays ComfyUI's to answer.
"""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.base.errors import ConfigError
from proxy.base.logs import events
from user_sessions.light.asset_cache import start_build
from user_sessions.light.assets import Frontend
from user_sessions.runtimes import BOOTSTRAP

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ENTRANCES = frozenset({"", "index.html"})

log = events(__name__)


def find_frontend(server: Any, version: str, cache: Path) -> Frontend | None:
    """The files that server would serve; None where it tells no folder, or one without a frontend."""
    root = getattr(server, "web_root", None)
    if not isinstance(root, str):
        return None
    try:
        return Frontend(Path(root), version or "other", cache)
    except (ConfigError, OSError) as error:
        log.warning("ComfyUI serves its frontend itself", reason=str(error))
        return None


def compress(frontend: Frontend, cache: Path) -> None:
    """Have the compressed copies made; until they are there, and where that fails, plain files go out."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not (cache / frontend.cache_name).is_dir():
            start_build(frontend.root, cache, frontend.cache_name, (sys.executable, str(BOOTSTRAP)))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("frontend files will be served uncompressed", reason=str(error)[:300])


def serving(frontend: Frontend) -> Middleware:
    """Answers what asks for one of the files."""

    @web.middleware
    async def files(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.path[1:]
        answer = None
        if request.method == "GET" and name not in ENTRANCES:
            answer = frontend.answer(name, request)
        return answer if answer is not None else await handler(request)

    return files
