"""The composition root: every object of a server, made once and passed to those who need it. Nothing is global."""

from dataclasses import dataclass
from functools import partial

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend_pool.backends.consultant import Consultant
from backend_pool.backends.housekeeping import Housekeeping
from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from backend_pool.backends.restart_rows import RestartRows
from backend_pool.backends.restarts import Restarts
from backend_pool.books.groups import Groups
from backend_pool.books.keeper import BooksKeeper
from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.timings import Timings
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.managed.agents import Agents
from backend_pool.workers.registrations import Workers
from proxy.access.access import Access, open_access
from proxy.access.secret_key import load_or_create
from proxy.api import table as api
from proxy.api.errors import error_response, unexpected
from proxy.api.heartbeat_routes import agent_route, worker_route
from proxy.base.database import Database
from proxy.base.errors import ClusterError
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.comfy.info import InfoRoutes
from proxy.comfy.jobs import JobsRoutes
from proxy.comfy.models import ModelRoutes
from proxy.comfy.prompt import PromptRoute
from proxy.comfy.queue import QueueRoutes
from proxy.comfy.routes import ComfyRoutes
from proxy.comfy.session_nodes import SessionNodes
from proxy.edge import Edge, upstream_of
from proxy.forward.upstreams import Upstreams
from proxy.health.readiness import Readiness
from proxy.health.routes import HealthRoutes
from proxy.job_control import Jobs
from proxy.managed_backends import ManagedBackends
from proxy.pages import routes as pages
from proxy.reboot import Reboot
from proxy.starter import Starter, read_workflow
from proxy.tabs.open_sockets import OpenSockets
from proxy.tabs.queue_news import QueueNews
from proxy.tabs.quota_news import QuotaNews
from proxy.tabs.user_events import UserEvents
from proxy.user_folders import UserFolders
from proxy.views.deps import Deps
from proxy.views.jobs import JobViews
from proxy.webui import WebUi
from user_sessions.children import Children
from user_sessions.controller import Sessions
from user_sessions.host_process import HostProcess
from user_sessions.spawner import Keeper, Spawner


class Control:
    """Everything under /cluster/; whatever goes wrong leaves as one JSON object (pages render their own errors)."""

    def __init__(self, routes: list[Route]) -> None:
        self._router = Router(routes, redirect_slashes=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._router({**scope, "app": self}, receive, noted)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            answer = error_response(scope, error) if isinstance(error, ClusterError) else unexpected(scope, error)
            await answer(scope, receive, send)


@dataclass(frozen=True)
class Cluster:
    """The parts of one server that live and die with it; `asgi` is what uvicorn serves."""

    settings: Settings
    db: Database
    tasks: Tasks
    access: Access
    keeper: Keeper
    spawner: Spawner
    sessions: Sessions
    registry: Registry
    pool: Pool
    groups: Groups
    managed: ManagedBackends
    agents: Agents
    queries: JobQueries
    dispatcher: Dispatcher
    timings: Timings
    outlooks: Outlooks
    housekeeping: Housekeeping
    restarts: Restarts
    upstreams: Upstreams
    events: UserEvents
    sockets: OpenSockets
    asgi: ASGIApp


def build(settings: Settings, db: Database) -> Cluster:
    """Make all parts; nothing runs yet. Raises ConfigError."""
    if settings.starter_workflow is not None:
        read_workflow(settings.starter_workflow)  # a wrong file must be noticed now, not by the first newcomer
    tasks = Tasks()
    access = open_access(settings, db, tasks)
    keeper: Keeper = HostProcess(settings) if settings.spawner == "host" else Children(settings)
    spawner = keeper.spawner()
    sessions = Sessions(settings, db, spawner, tasks)
    upstreams = Upstreams(settings)
    registry = Registry(db)
    key = load_or_create(settings.data_dir / "secret.key")
    workers = Workers(db, key, settings.data_dir / "users", settings.heartbeat_interval_s)
    pool = Pool(registry, settings, tasks, workers)
    agents = Agents(db, pool, settings.heartbeat_interval_s)
    store = JobStore(db, settings.queue_limit, settings.history_limit, settings.history_mb)
    groups = Groups(db, settings)
    queries = JobQueries(db)
    events = UserEvents(queries, tasks)
    folders = UserFolders(settings.data_dir, db, key)
    timings = Timings(db)
    outlooks = Outlooks()
    outlooks.on_change.append(QueueNews(outlooks, events).changed)
    dispatcher = Dispatcher(
        store=store,
        pool=pool,
        tasks=tasks,
        listener=events,
        owner_of=folders.owner,
        settings=settings,
        shares=groups,
        timings=timings,
        outlooks=outlooks,
    )
    pool.on_change.append(dispatcher.ring)
    groups.on_quota.append(QuotaNews(groups, events, settings.quota_contact).changed)
    groups.on_change.append(dispatcher.shares_changed)
    store.charged = groups.charged
    restarts = Restarts(RestartRows(db), pool, settings, dispatcher.ring)
    jobs = Jobs(store, dispatcher, events)
    session_nodes = SessionNodes(partial(upstream_of, sessions), upstreams)
    comfy = ComfyRoutes(
        prompt=PromptRoute(
            store, queries, dispatcher, pool, Consultant(pool), session_nodes, events, folders, groups, settings
        ),
        queue=QueueRoutes(queries, store, jobs, settings),
        jobs=JobsRoutes(queries, jobs, settings),
        info=InfoRoutes(pool, folders, settings.max_upload_mb),
        models=ModelRoutes(pool),
    )
    deps = Deps(
        settings, access, sessions, jobs, JobViews(db, outlooks), registry, pool, restarts, BooksKeeper(db, groups)
    )
    starter = Starter(pool, settings)
    readiness = Readiness(db, settings.data_dir, free_mb=settings.free_space_mb, spawner=spawner, tasks=tasks)
    health = HealthRoutes(db, pool, dispatcher, readiness, events, spawner, access.authenticator)
    sockets = OpenSockets(access.authenticator, access.cache, tasks)
    sessions.on_news(events.session_news)
    asgi = Edge(
        control=Control(
            [
                *health.routes(),
                worker_route(workers, settings),
                agent_route(agents, settings),
                *api.routes(deps),
                *pages.routes(deps),
            ]
        ),
        comfy=comfy.app(),
        authenticator=access.authenticator,
        sessions=sessions,
        events=events,
        sockets=sockets,
        webui=WebUi(upstreams, starter),
        starter=starter,
        reboot=Reboot(sessions, events, settings),
        upstreams=upstreams,
        tasks=tasks,
        settings=settings,
    )
    return Cluster(
        settings=settings,
        db=db,
        tasks=tasks,
        access=access,
        keeper=keeper,
        spawner=spawner,
        sessions=sessions,
        registry=registry,
        pool=pool,
        groups=groups,
        agents=agents,
        managed=ManagedBackends(settings, db, keeper.run, registry=registry, pool=pool, tasks=tasks),
        queries=queries,
        dispatcher=dispatcher,
        timings=timings,
        outlooks=outlooks,
        housekeeping=Housekeeping(pool, settings, tasks, dispatcher.ring),
        restarts=restarts,
        upstreams=upstreams,
        events=events,
        sockets=sockets,
        asgi=asgi,
    )
