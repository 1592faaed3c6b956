"""The ASGI entry of the data plane: say who asks, then answer, refuse, or forward to that user's session.

Paths under /cluster/ belong to the control pages, ComfyUI's queue routes to the proxy, all others to the session.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from proxy.access.auth import Authenticator, identity, no_referrer
from proxy.access.cache import Identity
from proxy.access.origin import SAFE_METHODS, same_origin
from proxy.api.errors import error_response, unexpected
from proxy.base.errors import BadInput, ClusterError, Forbidden, NotAuthenticated, Unavailable
from proxy.base.names import new_id
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.comfy.routes import owns
from proxy.forward.http import forward_http
from proxy.forward.session_leg import SessionLeg
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.forward.ws import forward_ws
from proxy.http_server import MESSAGE_LIMIT
from proxy.pages.login import login_redirect
from proxy.reboot import Reboot
from proxy.starter import Starter
from proxy.tabs.open_sockets import AccessEnded, OpenSockets
from proxy.tabs.user_events import UserEvents
from proxy.tabs.user_socket import MESSAGE_BYTES, UserSocket
from proxy.webui import WebUi
from user_sessions.controller import Sessions
from user_sessions.live import Address
from user_sessions.runtime import SECRET_HEADER

CONTROL = "/cluster"
ASSETS = "/assets/"
"""The frontend's own files, named after their content and the same for everybody: any cache may keep them."""
PAGE_WAIT_S = 2.0
"""How long opening the canvas waits for a session before the starting page is shown."""
SID_LENGTH = 200
ACCESS_ENDED = 1008


@dataclass(frozen=True)
class Edge:
    """The whole application; `control` serves /cluster/."""

    control: ASGIApp
    comfy: ASGIApp
    authenticator: Authenticator
    sessions: Sessions
    events: UserEvents
    sockets: OpenSockets
    webui: WebUi
    starter: Starter
    reboot: Reboot
    upstreams: Upstreams
    tasks: Tasks
    settings: Settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == CONTROL or scope["path"].startswith(f"{CONTROL}/"):
            await self.control(scope, receive, send)
            return
        if not scope["path"].startswith("/"):  # `OPTIONS *`
            await self._refuse(scope, receive, send, BadInput("The address must begin with a slash."))
            return
        try:
            given, scope = scope, await self.authenticator.authenticate(scope)
            send = no_referrer(scope, send)
            user = identity(scope)
            if user is None:
                raise NotAuthenticated("Sign in, or send an API token (Authorization: Bearer ...).")
            self._check_origin(scope, user)
            if scope["path"] == CONTROL or scope["path"].startswith(f"{CONTROL}/"):  # behind a token in the path
                await self.control(scope, receive, send)
            elif scope["type"] == "websocket":
                async with self.sockets.watched(given, user.user_id):
                    await self._websocket(scope, receive, send, user)
            else:
                await self._http(scope, receive, send, user)
        except ClusterError as error:
            await self._refuse(scope, receive, send, error)
        except AccessEnded:
            with contextlib.suppress(OSError, RuntimeError):  # the browser has left already
                await send({"type": "websocket.close", "code": ACCESS_ENDED, "reason": "signed out"})
        except Exception as error:
            if scope["type"] != "http":
                raise
            await unexpected(scope, error)(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send, user: Identity) -> None:
        path: str = scope["path"]
        if scope["method"] not in SAFE_METHODS or path == "/":
            self.sessions.touch(user.user_id)  # a person did something; polling and reconnects do not come here
        if owns(path):
            await self.comfy(scope, receive, send)
            return
        if path == "/" and (redirect := await self._page(scope, user)):
            await redirect(scope, receive, send)
            return
        if self.reboot.answers(path):
            await (await self.reboot.answer(scope, user))(scope, receive, send)
            return
        upstream = await self._session(user)
        if self.webui.answers(path) and scope["method"] in SAFE_METHODS:
            await (await self._webui(scope, upstream, user))(scope, receive, send)
            return
        private = not path.startswith(ASSETS)

        async def again() -> Upstream | None:
            return await self._replacement(user, upstream.key)

        await forward_http(scope, receive, send, upstream, self.upstreams, self.settings, private=private, again=again)

    async def _webui(self, scope: Scope, upstream: Upstream, user: Identity) -> Response:
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        try:
            return await self.webui.answer(path, upstream, query)
        except Unavailable:
            fresh = await self._replacement(user, upstream.key)
            if fresh is None:
                raise
            return await self.webui.answer(path, fresh, query)

    async def _page(self, scope: Scope, user: Identity) -> Response | None:
        """The canvas waits a moment for its session, then the starting page takes over and shows what happens."""
        if self.sessions.address(user.user_id) is None and _wants_html(scope):
            start = self.tasks.start(f"start {user.slug}", self.sessions.ensure(user.user_id, user.slug))
            await asyncio.wait({start}, timeout=PAGE_WAIT_S)
            if not start.done() or start.exception() is not None:
                return RedirectResponse(f"{CONTROL}/starting", 303)
        if _wants_html(scope) and not scope["query_string"]:
            target = await asyncio.to_thread(self.starter.first_visit, user.slug)
            return RedirectResponse(target, 303) if target else None
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, user: Identity) -> None:
        if scope["path"] not in ("/ws", "/api/ws"):
            upstream = await self._session(user)
            await forward_ws(scope, receive, send, upstream, self.upstreams, self.settings)
            return
        socket = WebSocket(scope, receive, send)
        sid = socket.query_params.get("clientId", "")
        if not sid or len(sid) > SID_LENGTH or not sid.isprintable():
            sid = new_id().replace("-", "")
        tab = UserSocket(
            socket,
            user.user_id,
            sid,
            limit=self.settings.replay_buffer,
            max_upload_mb=self.settings.max_upload_mb,
        )

        async def revive(key: str | None) -> None:
            await self.sessions.revive(user.user_id, user.slug, key)

        leg = SessionLeg(lambda: upstream_of(self.sessions, user.user_id), revive, self.upstreams, self.settings, tab)
        _limit_messages(scope)
        await self.events.join(tab)  # before the handshake is answered: what fails here still gets its status
        try:
            await socket.accept()
            await tab.serve(beside=leg.run())
        finally:
            self.events.leave(tab)

    async def _session(self, user: Identity) -> Upstream:
        """The user's session, started if need be; one that was killed a moment ago is noticed and replaced."""
        upstream = session_upstream(await self.sessions.ensure(user.user_id, user.slug))
        try:
            await self.upstreams.http(upstream).ready()
        except (OSError, TimeoutError):
            if await self.sessions.is_gone(user.user_id, upstream.key):
                return session_upstream(await self.sessions.ensure(user.user_id, user.slug))
        return upstream

    async def _replacement(self, user: Identity, key: str) -> Upstream | None:
        """What answers in place of a session whose connection broke; None when it still runs."""
        return await self._session(user) if await self.sessions.is_gone(user.user_id, key) else None

    def _check_origin(self, scope: Scope, user: Identity) -> None:
        """A cookie comes with every request a browser sends, whoever made it; a token was put there on purpose."""
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if unsafe and user.via == "login" and not same_origin(scope, self.settings.allowed_origins):
            raise Forbidden("This request came from another site's page. Open the page here and try again.")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: ClusterError) -> None:
        response: Response = error_response(scope, error)
        if scope["type"] == "websocket":
            await receive()
            await WebSocket(scope, receive, send).send_denial_response(response)
            return
        if _wants_html(scope):
            if isinstance(error, NotAuthenticated):
                response = login_redirect(scope)
            elif isinstance(error, Unavailable) and scope["path"] == "/":
                response = RedirectResponse(f"{CONTROL}/starting", 303)
        await response(scope, receive, send)


def upstream_of(sessions: Sessions, user_id: int) -> Upstream | None:
    """Where a user's session is reached, None when it does not run."""
    address = sessions.address(user_id)
    return None if address is None else session_upstream(address)


def session_upstream(address: Address) -> Upstream:
    """Where a session is reached, with the secret it asks for."""
    return Upstream(
        key=address.session_id,
        socket=address.socket,
        base_url="http://127.0.0.1",
        headers={SECRET_HEADER: address.secret},
    )


def _limit_messages(scope: Scope) -> None:
    """Let the server refuse long messages to our own socket while they come in, fragment by fragment."""
    extension = (scope.get("extensions") or {}).get(MESSAGE_LIMIT)
    if extension is not None:
        extension["set"](MESSAGE_BYTES)


def _wants_html(scope: Scope) -> bool:
    """A page request of a browser; API requests must never be redirected to a login page (client demands E1)."""
    return (
        scope["type"] == "http" and scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")
    )
