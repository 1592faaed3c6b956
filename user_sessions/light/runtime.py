"""The light runtime: what a session runs when no ComfyUI is installed. The official frontend and the user's files,
CPU only, no torch, no prompts.

`warm` loads all that sessions share into the zygote; `serve` builds one user's application in the forked child.
"""

import asyncio
import logging
import mimetypes
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from aiohttp import web

from proxy.base.logs import events
from proxy.base.tasks import Tasks
from user_sessions.light import mask
from user_sessions.light.app import Shared, build
from user_sessions.light.asset_cache import start_build
from user_sessions.light.assets import Frontend
from user_sessions.light.logs import LogRing
from user_sessions.light.spool import remove_leftovers
from user_sessions.light.templates import Packages
from user_sessions.light.userdata import STARTING_FOLDERS
from user_sessions.runtime import SessionSpec

log = events(__name__)

SHUTDOWN_S = 2.0
THREADS = 2
KEEPALIVE_S = 75.0


class LightRuntime:
    """A `Runtime`. `frontend_cache` holds compressed assets for all sessions; None serves plain ones.

    `frontend_root` is a built frontend to serve instead of the installed package.
    """

    name = "light"

    def __init__(self, frontend_cache: Path | None, frontend_root: Path | None = None) -> None:
        self._cache = frontend_cache
        self._root = frontend_root
        self._shared: Shared | None = None

    def warm(self) -> None:
        """Load everything shareable and have the assets compressed. Raises ConfigError without a frontend."""
        mimetypes.init()
        mask.preload()
        frontend = self._load().frontend
        if self._cache is None:
            return
        try:
            self._cache.mkdir(parents=True, exist_ok=True)  # before the sandbox: a rule needs the directory to exist
            if not (self._cache / frontend.cache_name).is_dir():
                start_build(frontend.root, self._cache, frontend.cache_name)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("frontend files will be served uncompressed", reason=str(error)[:300])

    async def serve(self, spec: SessionSpec, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve one user's session until cancelled."""
        shared = self._load()
        # few threads: each costs a session memory of its own, and they serve one user
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="files"))
        ring = LogRing()
        tasks = Tasks()
        logging.getLogger().addHandler(ring)
        try:
            _prepare(spec)
            app = build(spec, shared, ring, tasks)
            runner = web.AppRunner(
                app, access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=KEEPALIVE_S, handle_signals=False
            )
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                ready_line = {"user": spec.user, "version": shared.version, "frontend": shared.frontend.version}
                log.info("session ready", **ready_line)
                if not ring.entries:  # the server logs warnings only: the terminal should not be an empty box
                    ring.say("session ready", **ready_line)
                ready()
                await asyncio.Event().wait()  # until the host cancels us
            finally:
                await runner.cleanup()
                await tasks.stop(SHUTDOWN_S)
        finally:
            logging.getLogger().removeHandler(ring)

    def _load(self) -> Shared:
        if self._shared is None:
            if self._root is None:
                frontend = Frontend.installed(self._cache)
            else:
                frontend = Frontend(self._root, "custom", self._cache)
            self._shared = Shared(frontend, Packages(), metadata.version("comfyui-cluster-proxy"))
        return self._shared


def _prepare(spec: SessionSpec) -> None:
    """The folders the WebUI asks for first, and no rests of an upload that was killed."""
    home = spec.directories.user / "default"
    for name in STARTING_FOLDERS:
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(spec.directories.input)
