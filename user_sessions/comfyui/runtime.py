"""The `comfyui` runtime: a real ComfyUI with its shared custom nodes, imported once and forked for each user.

`warm_telling` imports in the zygote, `warm_alone` in a process of one session; `serve` is the same for both.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.base.logs import events
from user_sessions.comfyui import hooks
from user_sessions.comfyui.adopt import Copied, adopt, copied_paths
from user_sessions.comfyui.command_line import Places, scratch_places, user_places
from user_sessions.comfyui.frontend import compress, find_frontend, serving
from user_sessions.comfyui.gate import guard
from user_sessions.comfyui.options import Options
from user_sessions.comfyui.packs import Packs
from user_sessions.comfyui.reading import readable
from user_sessions.comfyui.user_nodes import load_user_nodes
from user_sessions.comfyui.warm import Warm, warm_up
from user_sessions.light.assets import Frontend
from user_sessions.report import FailedNode
from user_sessions.runtime import SessionSpec
from user_sessions.sandbox import OWN_NODES
from user_sessions.warming import Importing

SHUTDOWN_S = 2.0
KEEPALIVE_S = 75.0
THREADS = 4
ADDRESS = "127.0.0.1"
PORT = 8188
"""What custom nodes are told about where they are served; nobody listens there for them."""

log = events(__name__)


class ComfyRuntime:
    """A `Runtime` that is an `ImportsPacks` too."""

    name = "comfyui"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._warm: Warm | None = None
        self._frontend: Frontend | None = None
        self._copied: list[Copied] = []
        self.failed_nodes: list[FailedNode] = []

    def warm(self) -> None:
        """See Runtime."""
        self.warm_telling(lambda pack: None)

    def warm_telling(self, importing: Importing) -> None:
        """See ImportsPacks."""
        warm = self._import(scratch_places(self._options.scratch), importing)
        hooks.check_forkable(warm.hooks)
        hooks.check_cuda()
        self._copied = copied_paths(warm, sys.modules)
        if self._frontend is not None:
            compress(self._frontend, self._options.frontend_cache)

    def warm_alone(self, spec: SessionSpec) -> None:
        """See ImportsPacks."""
        self._import(user_places(spec.directories), lambda pack: None)

    def readable(self) -> tuple[Path, ...]:
        """See ImportsPacks."""
        assert self._warm is not None
        return readable(self._options, self._warm.hooks)

    async def serve(self, spec: SessionSpec, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve one user's session until cancelled."""
        warm = self._warm
        assert warm is not None
        server = warm.server
        # few threads: each costs a session memory of its own, and they serve one user
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="comfyui"))
        os.chdir(self._options.directory)
        adopt(warm, spec, self._copied)
        server.loop, server.messages = loop, asyncio.Queue()
        server.address, server.port = ADDRESS, PORT
        if self._options.user_nodes:
            packs = Packs(self._options.import_timeout_s, hard=False)
            await load_user_nodes(
                warm.hooks.nodes, warm.hooks.folder_paths, spec.directories.user.parent / OWN_NODES, packs
            )
        if not warm.routes_added:
            server.add_routes()
        guard(server.app, spec.secret, *([serving(self._frontend)] if self._frontend else []))
        await server.setup()
        runner = web.AppRunner(
            server.app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=KEEPALIVE_S,
            handle_signals=False,
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            log.info("session ready", user=spec.user, comfyui=self._options.version)
            ready()
            await _publish(server)
        finally:
            await runner.cleanup()
            await _close(server)

    def _import(self, places: Places, importing: Importing) -> Warm:
        options = self._options
        packs = Packs(options.import_timeout_s, frozenset(options.excluded), importing)
        self._warm = warm_up(options, places, packs, hold_routes=options.user_nodes)
        self.failed_nodes = list(packs.failed.values())
        self._frontend = find_frontend(self._warm.server, self._warm.frontend_version, options.frontend_cache)
        return self._warm


async def _publish(server: Any) -> None:
    """ComfyUI's loop that sends messages. A custom node's message that is no JSON ends it; here it goes on."""
    while True:
        try:
            await server.publish_loop()
        except Exception as error:
            log.error("a message to the browser could not be sent", exc_info=error)


async def _close(server: Any) -> None:
    client = getattr(server, "client_session", None)
    if client is not None:
        await client.close()
