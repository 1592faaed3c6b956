"""The engine's HTTP application: every route bare and under /api, as ComfyUI registers them."""

from aiohttp import web

from backend_pool.engine import routes_engine, routes_files, routes_info, routes_jobs, routes_prompt, routes_ws
from backend_pool.engine.answers import ENGINE, guard
from backend_pool.engine.door import door
from backend_pool.engine.engine import Engine
from backend_pool.engine.models import MB
from backend_pool.worker_pack.pack import Pack
from backend_pool.worker_pack.routes import Routes
from backend_pool.worker_pack.routes import door as pack_door

TABLES = (routes_ws.routes, routes_prompt.routes, routes_jobs.routes, routes_files.routes, routes_info.routes)


def make_app(engine: Engine, secret: str | None = None, pack: Pack | None = None) -> web.Application:
    """Routes over an engine, for those who know the secret; with a worker pack, for its dispatcher."""
    middlewares = [door(engine.options.host, secret), *([] if pack is None else [pack_door(pack)]), guard]
    app = web.Application(client_max_size=engine.options.max_upload_mb * MB, middlewares=middlewares)
    app[ENGINE] = engine
    plain = [route for table in TABLES for route in table if isinstance(route, web.RouteDef)]
    for route in plain:
        web.route(route.method, "/api" + route.path, route.handler, **route.kwargs).register(app.router)
    app.router.add_routes(plain)
    app.router.add_routes(routes_engine.routes)
    internal = web.Application()
    internal.router.add_routes(routes_info.internal)
    app.add_subapp("/internal", internal)
    if pack is not None:
        Routes(pack).add_to(app.router)
    return app
