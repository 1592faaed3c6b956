"""The session host's control API: JSON over a Unix socket, each request with the host's token.

Routes and error mapping only. The token is a file beside the socket: sessions run under our user id and might reach the
socket on kernels without a sandbox, but they can never read that file.
"""

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from aiohttp import web

from proxy.base.errors import BadInput, ClusterError, Forbidden
from proxy.base.logs import events
from user_sessions.memory import Gauge
from user_sessions.refresher import Refresher
from user_sessions.report import Report
from user_sessions.roster import Entry, Roster
from user_sessions.runtime import SessionSpec
from user_sessions.zygotes import Zygotes

BODY_BYTES = 65_536

log = events(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class HostApi:
    """What the routes work on."""

    host_id: str
    token: str
    runtime: str
    roster: Roster
    zygotes: Zygotes
    refresher: Refresher
    shut_down: Callable[[], None]
    sandbox: tuple[dict[str, Any], ...]
    ports: tuple[int, ...] = ()
    gauge: Gauge = field(default_factory=Gauge)

    def app(self) -> web.Application:
        """The application to serve on the control socket."""
        app = web.Application(client_max_size=BODY_BYTES, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/sessions", self.listing),
                web.post("/sessions", self.start),
                web.get("/sessions/{id}", self.poll),
                web.delete("/sessions/{id}", self.stop),
                web.post("/zygote/refresh", self.refresh),
                web.post("/shutdown", self.shutdown),
            ]
        )
        return app

    async def health(self, _request: web.Request) -> web.Response:
        """Who this is and how it is."""
        zygote = self.zygotes.current
        return web.json_response(
            {
                "host": self.host_id,
                "version": metadata.version("comfyui-cluster-proxy"),
                "pid": os.getpid(),
                "runtime": self.runtime,
                "options": dict(self.zygotes.options),
                "zygote": {
                    "pid": zygote.pid if zygote else None,
                    "warm": bool(zygote and zygote.warm),
                    "took_ms": zygote.took_ms if zygote else 0,
                    "error": zygote.error if zygote else "",
                    "retired": len(self.zygotes.retired),
                    "importing": zygote.importing if zygote else "",
                    "unforkable": self.zygotes.unforkable,
                },
                "sessions": {"running": len(self.roster.running()), "exited": self.roster.exits()},
                "sandbox": list(self.sandbox),
                "ports": list(self.ports),
                **Report(self.refresher.last, self.zygotes.failed_nodes, self.zygotes.broken).to_json(),
            }
        )

    async def listing(self, request: web.Request) -> web.Response:
        """Every running session: complete, so that one missing here does not run. `?memory` adds what each takes."""
        views = [self._view(entry) for entry in self.roster.running()]
        if "memory" in request.query:
            pids = {view["session_id"]: view["pid"] for view in views if view["pid"]}
            memory = await asyncio.to_thread(self.gauge.look, pids)
            views = [view | {"memory": memory.get(view["session_id"])} for view in views]
        return web.json_response({"host": self.host_id, "sessions": views})

    async def start(self, request: web.Request) -> web.Response:
        """Start a session and answer once it does."""
        try:
            spec = SessionSpec.from_json(await request.json())
        except ValueError as error:  # malformed JSON, or bytes that are no text
            raise BadInput("The body is not JSON.") from error
        entry = await self.roster.start(spec)
        return web.json_response({"host": self.host_id} | self._view(entry))

    async def poll(self, request: web.Request) -> web.Response:
        """running, exited or unknown."""
        session_id = request.match_info["id"]
        entry = await self.roster.look(session_id)
        found = self._view(entry) if entry else {"session_id": session_id, "state": "unknown"}
        return web.json_response({"host": self.host_id} | found)

    async def stop(self, request: web.Request) -> web.Response:
        """End a session; answers when it is gone. One that is not there is as good as ended."""
        entry = await self.roster.stop(request.match_info["id"])
        found = self._view(entry) if entry else {"session_id": request.match_info["id"], "state": "unknown"}
        return web.json_response({"host": self.host_id} | found)

    async def refresh(self, request: web.Request) -> web.Response:
        """Warm a fresh zygote to fork from: the shared custom nodes or the frontend changed. Answers at once."""
        try:
            by = str((await request.json())["by"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput('The body must say who asks: {"by": "..."}.') from error
        return web.json_response({"refresh": asdict(self.refresher.begin(by))})

    async def shutdown(self, _request: web.Request) -> web.Response:
        """End every session and the host; the answer comes first."""
        self.shut_down()
        return web.json_response({"host": self.host_id, "sessions": len(self.roster.running())})

    def _view(self, entry: Entry) -> dict[str, Any]:
        return entry.view(self.zygotes.current)

    @property
    def _guard(self) -> Any:
        expected = f"Bearer {self.token}".encode()

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                given = request.headers.get("Authorization", "").encode(errors="replace")
                if not hmac.compare_digest(given, expected):
                    raise Forbidden("The session host's token is missing or wrong.")
                return await handler(request)
            except ClusterError as error:
                return web.json_response(error.body(), status=error.status)
            except web.HTTPException:
                raise
            except Exception as error:
                log.error("control request failed", path=request.path, exc_info=error)
                return web.json_response(ClusterError("The session host failed. Its log says why.").body(), status=500)

        return guard
