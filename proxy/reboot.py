"""ComfyUI-Manager's "Restart": its user's own session, never the server.

The routes are answered here whether or not that Manager is installed, since it would end the process and leave its
replacement to chance. Its pages wait for their websocket to come back, so the user's tabs are told to reconnect.
"""

from dataclasses import dataclass

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from proxy.access.cache import Identity
from proxy.access.origin import same_origin
from proxy.api.errors import MethodNotAllowed
from proxy.base.errors import Forbidden
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.tabs.user_events import UserEvents
from user_sessions.controller import Sessions

PATHS = frozenset(f"{api}{version}/manager/reboot" for api in ("", "/api") for version in ("", "/v2"))
METHODS = frozenset({"GET", "POST"})
"""Managers before version 4 restart by GET."""

log = events(__name__)


@dataclass(frozen=True)
class Reboot:
    """Answers those routes."""

    sessions: Sessions
    events: UserEvents
    settings: Settings

    def answers(self, path: str) -> bool:
        """Whether the path is one of them."""
        return path in PATHS

    async def answer(self, scope: Scope, user: Identity) -> Response:
        """Restart, then have the tabs reconnect. Raises Forbidden, MethodNotAllowed or Unavailable."""
        if scope["method"] not in METHODS:
            raise MethodNotAllowed("A restart is asked for by POST.")
        # Unlike every other GET this one does something, so another site's picture tag must not reach it.
        if user.via == "login" and not same_origin(scope, self.settings.allowed_origins):
            raise Forbidden("This request came from another site's page. Open the page here and try again.")
        log.info("restart asked for by the manager", user=user.slug)
        await self.sessions.restart(user.user_id, user.slug)
        self.events.reconnect(user.user_id)
        return JSONResponse({}, headers={"Cache-Control": "no-store"})
