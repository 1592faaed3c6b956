"""Signing in and out with a browser. Owns the login cookie's attributes and where a sign-in may lead."""

import hashlib
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from proxy.access.accounts import name_key
from proxy.access.auth import identity
from proxy.access.csrf import require_same_origin
from proxy.access.logins import COOKIE, COOKIE_MAX_AGE_S
from proxy.access.origin import is_https
from proxy.api.errors import error_headers
from proxy.base.errors import BadInput, CallerError, Unavailable
from proxy.base.settings import Settings
from proxy.pages.render import Renderer
from proxy.request_body import read_body
from proxy.views.deps import Deps

LOGIN = "/cluster/login"
HOME = "/cluster/"
LAST_USER = "comfy_cluster_last"
"""Cookie with a mark of who signed in here last: ComfyUI keeps drafts in the browser, and the next user of a shared
computer must not find them."""
FORM_LIMIT = 16 * 1024
NEXT_LENGTH = 2000


def local_path(target: str) -> str:
    """`target` if it is a path on this server, else the home page: a link may not send people elsewhere."""
    usable = (
        target.startswith("/")
        and not target.startswith(("//", "/\\", LOGIN, "/cluster/logout"))
        and "\\" not in target
        and target.isprintable()
        and len(target) <= NEXT_LENGTH
    )
    return target if usable else HOME


def login_redirect(scope: Scope) -> Response:
    """Send a page request without a login to the login page, and afterwards back to where it wanted."""
    target = quote(scope["path"], safe="/")
    if scope.get("query_string"):
        target += "?" + scope["query_string"].decode("latin-1")
    # A sign-in from the home page needs no `next`, and an address without it is nicer to look at.
    query = "" if local_path(target) == HOME else f"?next={quote(target, safe='/')}"
    return RedirectResponse(LOGIN + query, 303, {"Cache-Control": "no-store"})


class LoginPages:
    """Handlers of /cluster/login, /cluster/logout and /cluster/switch."""

    def __init__(self, deps: Deps, renderer: Renderer) -> None:
        self._deps = deps
        self._renderer = renderer

    async def login(self, request: Request) -> Response:
        """The form, and what it sends."""
        if request.method == "POST":
            return await self._sign_in(request)
        target = local_path(request.query_params.get("next", HOME))
        if identity(request.scope) is not None:
            return RedirectResponse(target, 303)
        return self._renderer.page(request, "login.html", next=target, username="", error="")

    async def logout(self, request: Request) -> Response:
        """End this browser's login."""
        require_same_origin(request.scope, self._deps.settings.allowed_origins)
        await self._end_login(request)
        response = RedirectResponse(LOGIN, 303, {"Cache-Control": "no-store"})
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response

    async def switch(self, request: Request) -> Response:
        """Forget what the last user of this browser left in it, then go on."""
        return self._renderer.page(request, "switch.html", next=local_path(request.query_params.get("next", HOME)))

    async def _sign_in(self, request: Request) -> Response:
        require_same_origin(request.scope, self._deps.settings.allowed_origins)
        body = await read_body(request, FORM_LIMIT, self._deps.settings.transfer_timeout_s)
        form = _form(body, request.headers.get("content-type", ""))
        name, target = form.get("username", ""), local_path(form.get("next", HOME))
        agent = request.headers.get("user-agent", "")
        try:
            cookie = await self._deps.access.sign_in(name, form.get("password", ""), request.scope, agent)
        except (CallerError, Unavailable) as error:
            if not wants_page(request.scope):
                raise
            page = self._renderer.page(
                request, "login.html", error.status, next=target, username=name[:64], error=error.message
            )
            page.headers.update(error_headers(error, request.scope))
            return page
        await self._end_login(request)
        mark = hashlib.sha256(f"last {name_key(name)}".encode()).hexdigest()[:16]
        if request.cookies.get(LAST_USER, mark) != mark:
            target = f"/cluster/switch?next={quote(target, safe='/')}"
        response = RedirectResponse(target, 303, {"Cache-Control": "no-store"})
        for key, value in ((COOKIE, cookie), (LAST_USER, mark)):
            set_cookie(response, key, value, secure=wants_secure(self._deps.settings, request.scope))
        return response

    async def _end_login(self, request: Request) -> None:
        """Revoke the login that this browser's cookie names, whatever else the request carries."""
        login_id = self._deps.access.logins.id_of(request.cookies.get(COOKIE, ""))
        found = await self._deps.access.logins.find(login_id) if login_id else None
        if found is not None:
            await self._deps.access.logins.revoke(found[1].key, found[0].id)


def wants_page(scope: Scope) -> bool:
    """Whether a person's browser asks: API clients must get JSON, never a page or a redirect (client demands E1)."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def wants_secure(settings: Settings, scope: Scope) -> bool:
    """Whether cookies are for HTTPS only."""
    return is_https(scope) if settings.cookie_secure is None else settings.cookie_secure


def set_cookie(response: Response, key: str, value: str, *, secure: bool) -> None:
    """A cookie of ours: out of scripts' reach, not sent from other sites' forms."""
    response.set_cookie(key, value, max_age=COOKIE_MAX_AGE_S, path="/", secure=secure, httponly=True, samesite="lax")


def _form(body: bytes, content_type: str) -> dict[str, str]:
    if content_type.partition(";")[0].strip().lower() not in {"application/x-www-form-urlencoded", ""}:
        raise BadInput("Send the form as application/x-www-form-urlencoded.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise BadInput("The form is malformed.") from error
    return {name: values[-1] for name, values in fields.items()}
