"""The control pages under /cluster/: their routes, who may see them, and what each shows.

Pages read through the same functions as the JSON API and change nothing: every button calls the API. A live page is
fetched again as a whole and compared by the browser, so there is one rendering of everything.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proxy.access.accounts import User
from proxy.access.auth import identity
from proxy.access.cache import Identity
from proxy.api import admin as api_admin
from proxy.api import me as api_me
from proxy.api.errors import MethodNotAllowed, error_headers, error_response, log_unexpected, request_id
from proxy.api.job_story import job_story
from proxy.api.operations import LARGEST_ID
from proxy.base.clock import now_ms
from proxy.base.errors import ClusterError, Forbidden, NotAuthenticated, NotFound
from proxy.bodies.models import JobList, SessionInfo
from proxy.pages.books import BooksPages
from proxy.pages.login import LOGIN, LoginPages, local_path, login_redirect, wants_page
from proxy.pages.render import Renderer
from proxy.pages.static_files import PREFIX
from proxy.pages.texts import Texts
from proxy.views.backends import backend_infos
from proxy.views.deps import Deps
from proxy.views.pool_figures import pool_figures

QUEUE_SHOWN, FINISHED_SHOWN, RECENT_JOBS = 20, 5, 12
GALLERY_JOBS = 36
USERS_SHOWN, QUEUE_ALL_SHOWN, SESSIONS_SHOWN = 100, 50, 200

Handler = Callable[[Request], Awaitable[Response]]


def routes(deps: Deps, texts: Texts | None = None) -> list[Route]:
    """Routes of the pages; the last one answers every other address below /cluster/."""
    renderer = Renderer(texts or Texts())
    pages, login, books = Pages(deps, renderer), LoginPages(deps, renderer), BooksPages(deps, renderer)

    def page(path: str, run: Handler, *methods: str, open_: bool = False, admin: bool = False) -> Route:
        return Route(path, Page(deps, renderer, run, methods or ("GET",), open_=open_, admin=admin))

    return [
        Route(PREFIX + "{name:path}", renderer.static),
        page(LOGIN, login.login, "GET", "POST", open_=True),
        page("/cluster/logout", login.logout, "POST", open_=True),
        page("/cluster/switch", login.switch),
        page("/cluster", pages.to_home, open_=True),
        page("/cluster/", pages.home),
        page("/cluster/account", pages.account),
        page("/cluster/gallery", pages.gallery),
        page("/cluster/starting", pages.starting),
        page("/cluster/admin", pages.to_admin),
        page("/cluster/admin/", pages.admin, admin=True),
        page("/cluster/admin/jobs/{id:int}", pages.job, admin=True),
        page("/cluster/admin/groups", books.groups, admin=True),
        page("/cluster/admin/usage", books.usage, admin=True),
        page("/cluster/{rest:path}", pages.unknown, "GET", "POST"),
    ]


class Page:
    """One page as an ASGI application: judges who asks, turns errors into the error page."""

    def __init__(
        self, deps: Deps, renderer: Renderer, run: Handler, methods: tuple[str, ...], *, open_: bool, admin: bool
    ) -> None:
        self._deps = deps
        self._renderer = renderer
        self._run = run
        self._methods = {*methods, *(["HEAD"] if "GET" in methods else [])}
        self._open = open_
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except ClusterError as error:
            response = error_page(self._renderer, scope, error)
        except Exception as error:
            log_unexpected(scope, error)
            response = error_page(self._renderer, scope, ClusterError(self._renderer.texts("error.oops")))
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        if scope["method"] not in self._methods:
            raise MethodNotAllowed(self._renderer.texts("error.method"))
        scope = await self._deps.access.authenticator.authenticate(scope)
        who = identity(scope)
        if who is None and not self._open:
            if scope["method"] in {"GET", "HEAD"} and not _wants_json(scope):
                return login_redirect(scope)
            raise NotAuthenticated("Sign in, or send an API token (Authorization: Bearer ...).")
        if self._admin and (who is None or not who.is_admin):
            raise Forbidden("This page is for administrators.")
        return await self._run(Request(scope, receive))


def _wants_json(scope: Scope) -> bool:
    return any(name == b"accept" and b"application/json" in value for name, value in scope["headers"])


def error_page(renderer: Renderer, scope: Scope, error: ClusterError) -> Response:
    """The error as a page for people, as JSON for everybody else."""
    if not wants_page(scope):
        return error_response(scope, error)
    response = renderer.page(
        Request(scope), "error.html", error.status, me=None, message=error.message, request_id=request_id(scope)
    )
    response.headers.update(error_headers(error, scope))
    return response


class Pages:
    """What each page shows."""

    def __init__(self, deps: Deps, renderer: Renderer) -> None:
        self._deps = deps
        self._page = renderer.page
        self._texts = renderer.texts
        self._books = BooksPages(deps, renderer)

    async def home(self, request: Request) -> Response:
        """Workspace, own queue, recent pictures."""
        who, views = _who(request), self._deps.views
        found = await views.of_user(who.user_id, QUEUE_SHOWN, FINISHED_SHOWN)
        active = sum(view.job.ended_ms is None for view in found)
        if active >= QUEUE_SHOWN:
            active = await views.active_count(who.user_id)
        recent, _ = await views.pictures(who.user_id, RECENT_JOBS)
        return self._page(
            request,
            "home.html",
            200,
            session=await api_me.session_of(self._deps, who.user_id),
            jobs=JobList(jobs=api_me.job_infos(self._deps, found), active=active),
            recent=[api_me.picture_info(picture) for picture in recent[:RECENT_JOBS]],
            **self._books.notes(who.user_id),
        )

    async def account(self, request: Request) -> Response:
        """Password, tokens, logins."""
        who, access = _who(request), self._deps.access
        return self._page(
            request,
            "account.html",
            200,
            tokens=await access.tokens.of_user(who.user_id),
            logins=[api_me.login_info(row, who.login_id) for row in await access.logins.of_user(who.user_id)],
            **await self._books.own(who.user_id),
        )

    async def gallery(self, request: Request) -> Response:
        """Finished pictures, a page of them."""
        text = request.query_params.get("before", "")
        before = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
        found, following = await self._deps.views.pictures(_who(request).user_id, GALLERY_JOBS, before)
        infos = [api_me.picture_info(picture) for picture in found]
        return self._page(request, "gallery.html", found=infos, following=following, before=before)

    async def starting(self, request: Request) -> Response:
        """Shown while a session starts; its script starts it and then goes on."""
        info = await api_me.session_of(self._deps, _who(request).user_id)
        return self._page(
            request, "starting.html", next=local_path(request.query_params.get("next", "/")), session=info
        )

    async def admin(self, request: Request) -> Response:
        """Users, sessions, backends, queue."""
        deps = self._deps
        users = await deps.access.users.listing()
        listed = await api_admin.session_list(deps)
        sessions = {session.user_id: session for session in listed.sessions}
        backends = await backend_infos(deps)
        views, active = await deps.views.queue(QUEUE_ALL_SHOWN)
        jobs = api_admin.jobs_of_all(deps, views)
        query = request.query_params.get("q", "").strip()[:64]
        people = _people(users, sessions, query)
        names = {user.key: user.name for user in users}
        tiles = [
            ("backends", f"{sum(b.health == 'up' for b in backends)} / {len(backends)}"),
            ("running", sum(job.state != "queued" for job in jobs)),
            ("waiting", active - sum(job.state != "queued" for job in jobs)),
            ("sessions", sum(session.state == "running" for session in sessions.values())),
            ("users", len(users)),
        ]
        return self._page(
            request,
            "admin.html",
            tiles=tiles,
            backends=backends,
            kept=self._books.kept(backends),
            figures=pool_figures(deps.jobs.dispatcher.gaps),
            backend_names={backend.id: backend.name for backend in backends},
            jobs=JobList(jobs=jobs, active=active),
            names=names,
            running=_running(names, listed.sessions),
            outdated=sum(session.outdated for session in listed.sessions),
            refresh=listed.refresh,
            refresh_s=max(0, now_ms() - (listed.refresh.began_ms or 0)) // 1000,
            failed_packs=listed.failed_packs,
            broken=listed.broken,
            people=people[:USERS_SHOWN],
            cut=len(people) > USERS_SHOWN,
            query=query,
        )

    async def job(self, request: Request) -> Response:
        """The whole story of anybody's job."""
        seq = min(int(request.path_params["id"]), LARGEST_ID)
        return self._page(request, "admin_job.html", job=await job_story(self._deps, seq))

    async def to_home(self, request: Request) -> Response:
        """/cluster -> /cluster/."""
        return RedirectResponse("/cluster/", 308)

    async def to_admin(self, request: Request) -> Response:
        """/cluster/admin -> /cluster/admin/."""
        return RedirectResponse("/cluster/admin/", 308)

    async def unknown(self, request: Request) -> Response:
        """Everything else below /cluster/."""
        raise NotFound(self._texts("error.not_found"))


def _people(users: list[User], sessions: dict[int, SessionInfo], query: str) -> list[tuple[User, SessionInfo]]:
    """Users with their sessions; running ones first, then by name."""
    found = [user for user in users if query.casefold() in user.name.casefold()]
    rows = [(user, sessions.get(user.key, SessionInfo(user_id=user.key, state="stopped"))) for user in found]
    return sorted(rows, key=lambda row: row[1].state == "stopped")


def _running(names: dict[int, str], sessions: list[SessionInfo]) -> list[tuple[str, SessionInfo]]:
    """Names with their sessions, as far as there is something to see or do: the ones in trouble first, then by name."""
    rows = [(names[session.user_id], session) for session in sessions if session.user_id in names]
    shown = [row for row in rows if row[1].state != "stopped"]
    return sorted(shown, key=lambda row: (row[1].state != "failed", row[0].casefold()))[:SESSIONS_SHOWN]


def _who(request: Request) -> Identity:
    who = identity(request.scope)
    assert who is not None
    return who
