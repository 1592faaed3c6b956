"""The session host's control API: JSON over a Unix socket, each request with the host's token.

Routes and error mapping only. The token is a file beside the socket: sessions run under our user id and might reach the
socket on kernels without a sandbox, but they can never read that file.
"""

import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from aiohttp import web

from proxy.base.errors import BadInput, ClusterError, Forbidden
from proxy.base.logs import events
from user_sessions.roster import Roster
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
    warm_timeout_s: float
    shut_down: Callable[[], None]
    sandbox: tuple[dict[str, Any], ...]

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
                "zygote": {
                    "pid": zygote.pid if zygote else None,
                    "warm": bool(zygote and zygote.warm),
                    "took_ms": zygote.took_ms if zygote else 0,
                    "error": zygote.error if zygote else "",
                    "retired": len(self.zygotes.retired),
                },
                "sessions": {"running": len(self.roster.running()), "exited": self.roster.exits()},
                "sandbox": list(self.sandbox),
            }
        )

    async def listing(self, _request: web.Request) -> web.Response:
        """Every running session: complete, so that one missing here does not run."""
        return web.json_response({"host": self.host_id, "sessions": [e.view() for e in self.roster.running()]})

    async def start(self, request: web.Request) -> web.Response:
        """Start a session and answer once it does."""
        try:
            spec = SessionSpec.from_json(await request.json())
        except ValueError as error:  # malformed JSON, or bytes that are no text
            raise BadInput("The body is not JSON.") from error
        entry = await self.roster.start(spec)
        return web.json_response({"host": self.host_id} | entry.view())

    async def poll(self, request: web.Request) -> web.Response:
        """running, exited or unknown."""
        session_id = request.match_info["id"]
        entry = await self.roster.look(session_id)
        found = entry.view() if entry else {"session_id": session_id, "state": "unknown"}
        return web.json_response({"host": self.host_id} | found)

    async def stop(self, request: web.Request) -> web.Response:
        """End a session; answers when it is gone. One that is not there is as good as ended."""
        entry = await self.roster.stop(request.match_info["id"])
        found = entry.view() if entry else {"session_id": request.match_info["id"], "state": "unknown"}
        return web.json_response({"host": self.host_id} | found)

    async def refresh(self, _request: web.Request) -> web.Response:
        """Fork from a fresh zygote from now on: the shared custom nodes or the frontend changed."""
        zygote = await self.zygotes.refresh(self.warm_timeout_s)
        return web.json_response({"pid": zygote.pid, "took_ms": zygote.took_ms})

    async def shutdown(self, _request: web.Request) -> web.Response:
        """End every session and the host; the answer comes first."""
        self.shut_down()
        return web.json_response({"host": self.host_id, "sessions": len(self.roster.running())})

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
