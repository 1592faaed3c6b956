"""The table of ComfyUI routes that the proxy answers itself: bare path and `/api` twin (server.py add_routes).

Everything that is not in here goes to the user's session.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api.errors import MethodNotAllowed, error_response, unexpected
from proxy.base.errors import ClusterError, NotFound
from proxy.comfy.info import InfoRoutes
from proxy.comfy.jobs import JobsRoutes
from proxy.comfy.models import ModelRoutes
from proxy.comfy.prompt import PromptRoute
from proxy.comfy.queue import QueueRoutes

Handler = Callable[[Request], Awaitable[Response]]

OWNED = frozenset(
    {
        "prompt", "queue", "history", "history_v2", "interrupt", "free", "object_info", "models", "embeddings",
        "system_stats", "view_metadata", "features",
    }
)  # fmt: skip
"""First path segments that never reach a session, with or without `/api` before them."""
OWNED_API = frozenset({"jobs"})
"""Those that exist below `/api` only."""


def owns(path: str) -> bool:
    """Whether the proxy answers this path itself."""
    segments = path.split("/")[1:]
    if segments[0] == "api":
        segments = segments[1:]
        if segments and segments[0] in OWNED_API:
            return True
    if segments[:2] == ["experiment", "models"]:
        return True
    return bool(segments) and segments[0] in OWNED


@dataclass(frozen=True)
class ComfyRoutes:
    """All handlers."""

    prompt: PromptRoute
    queue: QueueRoutes
    jobs: JobsRoutes
    info: InfoRoutes
    models: ModelRoutes

    def app(self) -> ASGIApp:
        """The router; errors leave as ComfyUI-shaped JSON."""
        queue, jobs, info, models = self.queue, self.jobs, self.info, self.models
        twins: list[tuple[str, Handler, list[str]]] = [
            ("/queue", queue.queue, ["GET"]),
            ("/queue", queue.change_queue, ["POST"]),
            ("/history", queue.history, ["GET"]),
            ("/history", queue.change_history, ["POST"]),
            ("/history/{prompt_id}", queue.history_one, ["GET"]),
            ("/history_v2/{prompt_id}", queue.history_one, ["GET"]),
            ("/interrupt", queue.interrupt, ["POST"]),
            ("/free", queue.free, ["POST"]),
            ("/object_info", info.object_info, ["GET"]),
            ("/object_info/{node_class:path}", info.object_info_one, ["GET"]),
            ("/embeddings", models.embeddings, ["GET"]),
            ("/models", models.models, ["GET"]),
            ("/models/{folder}", models.models_in, ["GET"]),
            ("/experiment/models", models.experiment_models, ["GET"]),
            ("/experiment/models/preview/{folder}/{index:int}/{filename:path}", models.preview, ["GET"]),
            ("/experiment/models/{folder}", models.experiment_models_in, ["GET"]),
            ("/view_metadata/{folder}", models.view_metadata, ["GET"]),
            ("/system_stats", info.system_stats, ["GET"]),
            ("/features", info.features, ["GET"]),
        ]
        routes: list[BaseRoute] = [
            Route("/api/jobs", jobs.listing, methods=["GET"]),
            Route("/api/jobs/cancel", jobs.cancel_many, methods=["POST"]),
            Route("/api/jobs/{job_id}", jobs.one, methods=["GET"]),
            Route("/api/jobs/{job_id}/cancel", jobs.cancel_one, methods=["POST"]),
        ]
        for prefix in ("", "/api"):
            routes += [Route(f"{prefix}/prompt", self.prompt, methods=["GET", "POST"])]
            routes += [Route(prefix + path, handler, methods=methods) for path, handler, methods in twins]
        return _Errors(Router(routes, redirect_slashes=False))


class _Errors:
    """The innermost frame of every answer: whatever goes wrong leaves as one JSON object."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app({**scope, "app": self}, receive, send)
        except ClusterError as error:
            await error_response(scope, error)(scope, receive, send)
        except HTTPException as error:
            known = MethodNotAllowed if error.status_code == 405 else NotFound
            await error_response(scope, known("There is nothing here of that name."))(scope, receive, send)
        except Exception as error:
            await unexpected(scope, error)(scope, receive, send)
