"""ComfyUI's /api/jobs, which current frontends use for queue and history, for one user alone.

Parameters and errors as in ComfyUI 0.8.0's server.py; `cancelled` and the cancel routes as in newer versions.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from backend_pool.job_state import JobState
from backend_pool.jobs.queries import JobOrder, JobQueries, Window
from backend_pool.model import Job, JobDocument
from proxy.base.settings import Settings
from proxy.comfy.json_answer import ComfyJson, dumps
from proxy.comfy.request import identity, ids, read_command
from proxy.comfy.shapes import STATUS, job_detail, job_item
from proxy.comfy.stream import entries, response
from proxy.job_control import Jobs

SORTS = ("created_at", "execution_duration")
LIMIT = 2**31


class _Invalid(Exception):
    """A parameter that ComfyUI answers 400 to, in its own words."""


@dataclass(frozen=True)
class JobsRoutes:
    """Handlers; each sees only the sender's own jobs."""

    queries: JobQueries
    jobs: Jobs
    settings: Settings

    async def listing(self, request: Request) -> Response:
        """GET /api/jobs with status, workflow_id, sort_by, sort_order, limit, offset."""
        try:
            states, order = _states(request), _order(request)
            limit, offset = _limit(request), max(0, _integer(request, "offset") or 0)
        except _Invalid as error:
            return ComfyJson({"error": str(error)}, 400)
        page = await self.queries.page(identity(request).user_id, states, order, Window(limit, offset))
        more = offset + len(page.jobs) < page.total
        pagination = {"offset": offset, "limit": limit, "total": page.total, "has_more": more}

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"jobs":['
            async for piece in entries(self.queries, page.jobs, _item, submitted=False):
                yield piece
            yield f'],"pagination":{dumps(pagination)}}}'.encode("ascii")

        return await response(pieces())

    async def one(self, request: Request) -> Response:
        """GET /api/jobs/{id}."""
        found = await self.queries.one(identity(request).user_id, request.path_params["job_id"])
        if found is None:
            return ComfyJson({"error": "Job not found"}, 404)
        return ComfyJson(job_detail(*found))

    async def cancel_one(self, request: Request) -> Response:
        """POST /api/jobs/{id}/cancel: true when there was something to cancel."""
        ended = await self.jobs.cancel(identity(request).user_id, [request.path_params["job_id"]])
        return ComfyJson({"cancelled": bool(ended)})

    async def cancel_many(self, request: Request) -> Response:
        """POST /api/jobs/cancel with `{"job_ids": [...]}`."""
        body = await read_command(request, self.settings)
        job_ids = body.get("job_ids")
        if not isinstance(job_ids, list) or not all(isinstance(item, str) for item in job_ids):
            return ComfyJson({"error": "job_ids must be a list of job ids", "invalid_ids": []}, 400)
        ended = await self.jobs.cancel(identity(request).user_id, ids(body, "job_ids"))
        return ComfyJson({"cancelled": bool(ended)})


def _item(job: Job, document: JobDocument) -> str:
    return dumps(job_item(job, document))


def _states(request: Request) -> frozenset[JobState]:
    text = request.query_params.get("status")
    known = list(dict.fromkeys(STATUS.values()))
    wanted = [word.strip().lower() for word in text.split(",") if word.strip()] if text else known
    invalid = [word for word in wanted if word not in known]
    if invalid:
        raise _Invalid(f"Invalid status value(s): {', '.join(invalid)}. Valid values: {', '.join(known)}")
    return frozenset(state for state, word in STATUS.items() if word in wanted)


def _order(request: Request) -> JobOrder:
    sort_by = request.query_params.get("sort_by", "created_at").lower()
    sort_order = request.query_params.get("sort_order", "desc").lower()
    if sort_by not in SORTS:
        raise _Invalid("sort_by must be 'created_at' or 'execution_duration'")
    if sort_order not in ("asc", "desc"):
        raise _Invalid("sort_order must be 'asc' or 'desc'")
    workflow_id = request.query_params.get("workflow_id") or None
    return JobOrder(sort_by == "execution_duration", sort_order == "desc", workflow_id)


def _limit(request: Request) -> int | None:
    limit = _integer(request, "limit")
    if limit is not None and limit <= 0:
        raise _Invalid("limit must be a positive integer")
    return limit


def _integer(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return min(int(text), LIMIT)
    except ValueError as error:
        raise _Invalid(f"{name} must be an integer") from error
