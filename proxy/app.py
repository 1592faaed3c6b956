"""The composition root: every object of a server, made once and passed to those who need it. Nothing is global."""

import socket
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from backend_pool.backends.consultant import Consultant
from backend_pool.backends.housekeeping import Housekeeping
from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from backend_pool.backends.restart_rows import RestartRows
from backend_pool.backends.restarts import Restarts
from backend_pool.books.groups import Groups
from backend_pool.books.keeper import BooksKeeper
from backend_pool.dispatch.assembly import Surroundings, assemble
from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.timings import Timings
from backend_pool.jobs.lease import Lease
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.managed.agents import Agents
from backend_pool.workers.registrations import Workers
from proxy.access.access import Access, open_access
from proxy.access.secret_key import load_or_create
from proxy.api import table as api
from proxy.api.heartbeat_routes import agent_route, worker_route
from proxy.base.database import Database
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.comfy.info import InfoRoutes
from proxy.comfy.jobs import JobsRoutes
from proxy.comfy.models import ModelRoutes
from proxy.comfy.prompt import PromptRoute
from proxy.comfy.queue import QueueRoutes
from proxy.comfy.routes import ComfyRoutes
from proxy.comfy.session_nodes import SessionNodes
from proxy.control import Control
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


@dataclass(frozen=True)
class People:
    """Who comes in, and their sessions."""

    access: Access
    folders: UserFolders
    keeper: Keeper
    spawner: Spawner
    sessions: Sessions
    upstreams: Upstreams


@dataclass(frozen=True)
class Work:
    """The queue, and the pool behind it."""

    registry: Registry
    workers: Workers
    pool: Pool
    agents: Agents
    managed: ManagedBackends
    store: JobStore
    lease: Lease
    queries: JobQueries
    groups: Groups
    timings: Timings
    dispatcher: Dispatcher
    housekeeping: Housekeeping
    restarts: Restarts


@dataclass(frozen=True)
class Cluster:
    """The parts of one server that live and die with it; `asgi` is what uvicorn serves."""

    settings: Settings
    db: Database
    tasks: Tasks
    people: People
    work: Work
    events: UserEvents
    sockets: OpenSockets
    asgi: ASGIApp


def build(settings: Settings, db: Database) -> Cluster:
    """Make all parts; nothing runs yet. Raises ConfigError."""
    if settings.starter_workflow is not None:
        read_workflow(settings.starter_workflow)  # a wrong file must be noticed now, not by the first newcomer
    tasks = Tasks()
    key = load_or_create(settings.data_dir / "secret.key")
    people = _people(settings, db, tasks, key)
    events = UserEvents(JobQueries(db), tasks)
    people.sessions.on_news(events.session_news)
    work = _work(settings, db, tasks, key, people=people, events=events)
    _connect(work, events, settings.quota_contact)
    sockets = OpenSockets(people.access.authenticator, people.access.cache, tasks)
    starter = Starter(work.pool, settings)
    jobs = Jobs(work.store, work.dispatcher, events)
    asgi = Edge(
        control=_control(settings, db, tasks, people=people, work=work, events=events, jobs=jobs),
        comfy=_comfy(settings, people, work, events, jobs).app(),
        authenticator=people.access.authenticator,
        sessions=people.sessions,
        events=events,
        sockets=sockets,
        webui=WebUi(people.upstreams, starter),
        starter=starter,
        reboot=Reboot(people.sessions, events, settings),
        upstreams=people.upstreams,
        tasks=tasks,
        settings=settings,
    )
    return Cluster(settings, db, tasks, people, work, events, sockets, asgi)


def _people(settings: Settings, db: Database, tasks: Tasks, key: bytes) -> People:
    keeper: Keeper = HostProcess(settings) if settings.spawner == "host" else Children(settings)
    spawner = keeper.spawner()
    return People(
        access=open_access(settings, db, tasks),
        folders=UserFolders(settings.data_dir, db, key),
        keeper=keeper,
        spawner=spawner,
        sessions=Sessions(settings, db, spawner, tasks),
        upstreams=Upstreams(settings),
    )


def _work(settings: Settings, db: Database, tasks: Tasks, key: bytes, *, people: People, events: UserEvents) -> Work:
    registry = Registry(db)
    workers = Workers(db, key, settings.data_dir / "users", settings.heartbeat_interval_s)
    pool = Pool(registry, settings, tasks, workers)
    store = JobStore(db, settings.queue_limit, settings.history_limit, settings.history_mb)
    groups, timings = Groups(db, settings), Timings(db)
    dispatcher = assemble(
        Surroundings(
            store=store,
            pool=pool,
            tasks=tasks,
            listener=events,
            owner_of=people.folders.owner,
            settings=settings,
            shares=groups,
            timings=timings,
            outlooks=Outlooks(),
        )
    )
    return Work(
        registry=registry,
        workers=workers,
        pool=pool,
        agents=Agents(db, pool, settings.heartbeat_interval_s),
        managed=ManagedBackends(settings, db, people.keeper.run, registry=registry, pool=pool, tasks=tasks),
        store=store,
        lease=_lease(settings, db),
        queries=JobQueries(db),
        groups=groups,
        timings=timings,
        dispatcher=dispatcher,
        housekeeping=Housekeeping(pool, settings, tasks, dispatcher.ring),
        restarts=Restarts(RestartRows(db), pool, settings, dispatcher.ring),
    )


def _lease(settings: Settings, db: Database) -> Lease:
    """One server at a time has a data directory; a SQLite database in it is that server's alone."""
    alone = db.is_sqlite and settings.database_url is None
    holder = f"{socket.gethostname()}:{settings.data_dir.resolve()}"
    return Lease(db, holder, settings.lease_s, alone=alone)


def _connect(work: Work, events: UserEvents, quota_contact: str) -> None:
    """Let parts hear of each other what they do not know each other for."""
    work.pool.on_change.append(work.dispatcher.ring)
    work.groups.on_change.append(work.dispatcher.shares_changed)
    work.groups.on_quota.append(QuotaNews(work.groups, events, quota_contact).changed)
    work.dispatcher.outlooks.on_change.append(QueueNews(work.dispatcher.outlooks, events).changed)
    work.store.charged = work.groups.charged
    work.store.may_place = work.lease.check


def _comfy(settings: Settings, people: People, work: Work, events: UserEvents, jobs: Jobs) -> ComfyRoutes:
    """ComfyUI's own API."""
    prompt = PromptRoute(
        work.store,
        work.queries,
        work.dispatcher,
        work.pool,
        Consultant(work.pool),
        SessionNodes(partial(upstream_of, people.sessions), people.upstreams),
        events,
        people.folders,
        work.groups,
        settings,
    )
    return ComfyRoutes(
        prompt=prompt,
        queue=QueueRoutes(work.queries, work.store, jobs, settings),
        jobs=JobsRoutes(work.queries, jobs, settings),
        info=InfoRoutes(work.pool, people.folders, settings.max_upload_mb),
        models=ModelRoutes(work.pool),
    )


def _control(
    settings: Settings, db: Database, tasks: Tasks, *, people: People, work: Work, events: UserEvents, jobs: Jobs
) -> Control:
    """Everything under /cluster/."""
    readiness = Readiness(db, settings.data_dir, free_mb=settings.free_space_mb, spawner=people.spawner, tasks=tasks)
    authenticator = people.access.authenticator
    health = HealthRoutes(db, work.pool, work.dispatcher, readiness, events, people.spawner, authenticator)
    deps = Deps(
        settings,
        people.access,
        people.sessions,
        jobs,
        JobViews(db, work.dispatcher.outlooks),
        work.registry,
        work.pool,
        work.restarts,
        BooksKeeper(db, work.groups),
    )
    heartbeats = [worker_route(work.workers, settings), agent_route(work.agents, settings)]
    return Control([*health.routes(), *heartbeats, *api.routes(deps), *pages.routes(deps)])
