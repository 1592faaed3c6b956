"""/cluster/livez and /cluster/readyz, open to everybody and telling nothing private; /cluster/metrics for admins.

Live: the process answers. Ready: `Readiness` finds no problem.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func
from sqlmodel import select
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backend_pool.backends.health import Health
from backend_pool.backends.pool import Pool
from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.job_state import JobState
from backend_pool.model import Job
from proxy.access.auth import Authenticator, identity
from proxy.base.database import Database
from proxy.base.errors import Forbidden, NotAuthenticated, Unavailable
from proxy.health.pool import METRICS as DISPATCH
from proxy.health.pool import pool_figures
from proxy.health.readiness import Readiness
from proxy.tabs.user_events import UserEvents
from user_sessions.spawner import Spawner


@dataclass(frozen=True)
class HealthRoutes:
    """Handlers."""

    db: Database
    pool: Pool
    dispatcher: Dispatcher
    readiness: Readiness
    events: UserEvents
    spawner: Spawner
    authenticator: Authenticator

    def routes(self) -> list[Route]:
        """The three routes."""
        return [
            Route("/cluster/livez", self.live),
            Route("/cluster/readyz", self.ready),
            Route("/cluster/metrics", self.metrics),
        ]

    async def live(self, _request: Request) -> Response:
        """200 as long as the process answers."""
        return PlainTextResponse("ok")

    async def ready(self, _request: Request) -> Response:
        """200 when users can be served, else 503 naming what is wrong."""
        problems = await self.readiness.problems()
        up = sum(member.health is Health.UP for member in self.pool.members.values())
        body = {"ready": not problems, "problems": problems, "backends_up": up}
        return JSONResponse(body, 503 if problems else 200, headers={"Cache-Control": "no-store"})

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        user = identity(await self.authenticator.authenticate(request.scope))
        if user is None:
            raise NotAuthenticated("Send an administrator's API token (Authorization: Bearer ...).")
        if not user.is_admin:
            raise Forbidden("Metrics are for administrators.")
        counted = await self.db.read(lambda s: s.exec(select(Job.state, func.count()).group_by(Job.state)).all())
        jobs = {JobState(state): count for state, count in counted}
        registry = CollectorRegistry()
        dispatch = pool_figures(self.pool, self.dispatcher)
        registry.register(_Figures([*self._figures(jobs), *await self._sessions(), *dispatch]))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def _sessions(self) -> list[Metric]:
        """Nothing while the session host does not answer: no number is better than a wrong one."""
        try:
            running = len(await self.spawner.listing())
        except Unavailable:
            return []
        return [GaugeMetricFamily("comfy_cluster_sessions", "Running user sessions", running)]

    def _figures(self, jobs: dict[JobState, int]) -> list[Metric]:
        by_state = GaugeMetricFamily("comfy_cluster_jobs", "Jobs in the database by state", labels=["state"])
        for state in JobState:
            by_state.add_metric([state.value], jobs.get(state, 0))
        backends = GaugeMetricFamily("comfy_cluster_backends", "Backends by health", labels=["health"])
        for health in Health:
            backends.add_metric([health.value], sum(m.health is health for m in self.pool.members.values()))
        busy = sum(member.job is not None for member in self.pool.members.values())
        return [
            by_state,
            backends,
            GaugeMetricFamily("comfy_cluster_backends_busy", "Backends that carry a job", busy),
            GaugeMetricFamily("comfy_cluster_tabs", "Connected browser tabs", self.events.connected()),
        ]


@dataclass(frozen=True, eq=False)
class _Figures:
    """What prometheus_client calls a collector; it keeps collectors in a dict, so they are told apart by identity."""

    figures: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.figures


METRICS = (
    "comfy_cluster_jobs",
    "comfy_cluster_backends",
    "comfy_cluster_backends_busy",
    "comfy_cluster_sessions",
    "comfy_cluster_tabs",
    *DISPATCH,
)
"""Names, for the test that compares them with docs/metrics.md."""
