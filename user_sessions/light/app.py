"""The light runtime's application: which handlers there are, on which paths, behind which middlewares.

ComfyUI registers its API bare and under `/api`; statics and `/internal` have no twin. What the proxy answers itself
(prompts, queue, history, models, object_info) is not here and is a 404.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from proxy.base.errors import BadInput
from proxy.base.tasks import Tasks
from user_sessions.first_settings import first_settings
from user_sessions.light.answers import errors_as_json
from user_sessions.light.assets import Frontend
from user_sessions.light.catalog import Catalog
from user_sessions.light.files import Areas
from user_sessions.light.internal import Internal
from user_sessions.light.logs import LogRing
from user_sessions.light.secret import only_with
from user_sessions.light.settings_store import SettingsStore
from user_sessions.light.socket import Sockets
from user_sessions.light.templates import Packages, Templates
from user_sessions.light.upload import Upload
from user_sessions.light.userdata import UserData
from user_sessions.light.view import View
from user_sessions.runtime import SessionSpec


@dataclass(frozen=True)
class Shared:
    """What all sessions share, made before the fork."""

    frontend: Frontend
    packages: Packages
    version: str
    """The server's own."""


def build(spec: SessionSpec, shared: Shared, ring: LogRing, tasks: Tasks) -> web.Application:
    """The application of one session; needs a running loop."""
    limit = spec.max_upload_mb * 1024 * 1024
    areas = Areas(spec.directories, spec.public)
    home = spec.directories.user / "default"
    features: dict[str, object] = {
        "supports_preview_metadata": True,
        "max_upload_size": limit,
        "extension": {"manager": {"supports_v4": True}},
    }
    sockets = Sockets(features, ring, tasks)
    drawing = asyncio.Semaphore(1)  # decoded pictures are large: one at a time, and a thread stays free for files
    catalog = Catalog(spec.public, shared.frontend)
    twinned = [
        *sockets.routes(),
        *Upload(areas, limit, drawing).routes(),
        *View(areas, drawing).routes(),
        *SettingsStore(home, first_settings(shared.frontend.version)).routes(),
        *UserData(home, limit).routes(),
        *catalog.routes(),
        *_user_routes(),
        _features_route(features),
    ]
    app = web.Application(middlewares=[errors_as_json, only_with(spec.secret)], client_max_size=limit)
    app.add_routes(catalog.static_routes())
    app.add_routes(with_api(twinned))
    app.add_routes(Internal(areas, spec.public, ring, sockets).routes())
    app.add_routes(Templates(spec.public / "workflows", shared.packages).routes())
    app.add_routes(shared.frontend.routes())
    app.on_shutdown.append(sockets.close)
    return app


def with_api(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """Each route under `/api` first and then bare, as ComfyUI registers them."""
    bare = list(routes)
    return [web.route(route.method, f"/api{route.path}", route.handler, **route.kwargs) for route in bare] + bare


def _features_route(features: dict[str, object]) -> web.RouteDef:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(features)

    return web.get("/features", answer)


def _user_routes() -> list[web.RouteDef]:
    """`/users` as a single-user ComfyUI answers: the session has exactly one, known to the proxy by the login."""

    async def users(request: web.Request) -> web.Response:
        return web.json_response({"storage": "server", "migrated": True})

    async def refuse(request: web.Request) -> web.Response:
        raise BadInput("Accounts of this server are managed under /cluster/.")

    return [web.get("/users", users), web.post("/users", refuse)]
