"""/api/jobs: list, one, cancel. Declared with the prefix, so the twin is /api/api/jobs, never /jobs, as in ComfyUI."""

import uuid
from typing import Any

from aiohttp import web

from backend_pool.engine.answers import engine_of, json_object
from backend_pool.engine.engine import Engine
from backend_pool.engine.jobs import STATUSES, all_jobs, finished_job, ordered, queued_job

routes = web.RouteTableDef()


@routes.get("/api/jobs")
async def get_jobs(request: web.Request) -> web.Response:
    """Jobs by status and workflow, sorted and paged."""
    query = request.query
    statuses = [part.strip().lower() for part in query.get("status", "").split(",") if part.strip()]
    wrong = [status for status in statuses if status not in STATUSES]
    if wrong:
        return _error(f"Invalid status value(s): {', '.join(wrong)}. Valid values: {', '.join(STATUSES)}")
    by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if by not in ("created_at", "execution_duration"):
        return _error("sort_by must be 'created_at' or 'execution_duration'")
    if order not in ("asc", "desc"):
        return _error("sort_order must be 'asc' or 'desc'")
    try:
        limit = int(query["limit"]) if "limit" in query else None
    except ValueError:
        return _error("limit must be an integer")
    if limit is not None and limit <= 0:
        return _error("limit must be a positive integer")
    try:
        offset = max(0, int(query.get("offset", 0)))
    except ValueError:
        return _error("offset must be an integer")
    engine = engine_of(request)
    jobs = ordered(list(all_jobs(*engine.queue.items(), engine.queue.history(), statuses or list(STATUSES))), by, order)
    if workflow_id := query.get("workflow_id"):
        jobs = [job for job in jobs if job.get("workflow_id") == workflow_id]
    page = jobs[offset : None if limit is None else offset + limit]
    total = len(jobs)
    pagination = {"offset": offset, "limit": limit, "total": total, "has_more": offset + len(page) < total}
    return web.json_response({"jobs": page, "pagination": pagination})


@routes.get("/api/jobs/{job_id}")
async def get_job(request: web.Request) -> web.Response:
    """One job, with its outputs and workflow once it ended."""
    queue, job_id = engine_of(request).queue, request.match_info["job_id"]
    for prompt_id, entry in queue.history(job_id).items():
        return web.json_response(finished_job(prompt_id, entry, whole=True))
    for items, status in zip(queue.items(), ("in_progress", "pending"), strict=True):
        for item in items:
            if item.prompt_id == job_id:
                return web.json_response(queued_job(item, status))
    return web.json_response({"error": "Job not found"}, status=404)


@routes.post("/api/jobs/{job_id}/cancel")
async def cancel_job(request: web.Request) -> web.Response:
    """Stop a job wherever it is; saying so twice does no harm."""
    return web.json_response({"cancelled": _cancel(engine_of(request), request.match_info["job_id"])})


@routes.post("/api/jobs/cancel")
async def cancel_jobs(request: web.Request) -> web.Response:
    """Stop several jobs."""
    ids = (await json_object(request)).get("job_ids")
    if not isinstance(ids, list) or not ids:
        return _error("job_ids must be a list of job ids", invalid_ids=[])
    invalid = [job_id for job_id in ids if not _is_uuid(job_id)]
    if invalid:
        return _error("job_ids must be UUIDs", invalid_ids=invalid)
    engine = engine_of(request)
    cancelled = [_cancel(engine, job_id) for job_id in ids]
    return web.json_response({"cancelled": any(cancelled)})


def _cancel(engine: Engine, job_id: str) -> bool:
    return engine.queue.delete(job_id) or engine.queue.interrupt(job_id)


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _error(message: str, **more: Any) -> web.Response:
    return web.json_response({"error": message} | more, status=400)
