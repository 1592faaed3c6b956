"""The shapes of /api/jobs, made of queue items and history entries. Pure.

As in comfy_execution/jobs.py of 0.8.0; an interrupted job is `cancelled`, the newer word that frontends ask for.
"""

from collections.abc import Iterator
from typing import Any

from backend_pool.engine.prompt_queue import Item

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
PREVIEWABLE = ("images", "video", "audio")
MODELS_3D = (".obj", ".fbx", ".gltf", ".glb")


def queued_job(item: Item, status: str) -> dict[str, Any]:
    """A pending or running job."""
    return _pruned(
        {"id": item.prompt_id, "status": status, **_origin(item.number, item.extra_data), "outputs_count": 0}
    )


def finished_job(prompt_id: str, entry: dict[str, Any], *, whole: bool = False) -> dict[str, Any]:
    """A job of the history; `whole` adds outputs, status and workflow."""
    number, _, prompt, extra_data, _ = entry["prompt"]
    times: dict[str, Any] = {}
    status = "completed" if entry["status"]["status_str"] == "success" else "failed"
    for event, data in entry["status"]["messages"]:
        if event == "execution_start":
            times["execution_start_time"] = data.get("timestamp")
        elif event in ("execution_success", "execution_error", "execution_interrupted"):
            times["execution_end_time"] = data.get("timestamp")
        if event == "execution_error":
            times["execution_error"] = data
        if event == "execution_interrupted":
            status = "cancelled"
    count, preview = summary(entry["outputs"])
    job = _pruned(
        {"id": prompt_id, "status": status, **_origin(number, extra_data), **times}
        | {"outputs_count": count, "preview_output": preview}
    )
    if whole:
        job["outputs"] = entry["outputs"]
        job["execution_status"] = entry["status"]
        job["workflow"] = {"prompt": prompt, "extra_data": extra_data}
    return job


def summary(outputs: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """How many files, and the one to show: a saved one before a temporary one."""
    shown = [
        (media, item | {"nodeId": node_id, "mediaType": media})
        for node_id, node_outputs in outputs.items()
        for media, items in node_outputs.items()
        if media != "animated" and isinstance(items, list)
        for item in items
        if isinstance(item, dict)
    ]
    previews = [item for media, item in shown if _previewable(media, item)]
    saved = [item for item in previews if item.get("type") == "output"]
    return len(shown), next(iter(saved + previews), None)


def ordered(jobs: list[dict[str, Any]], by: str, order: str) -> list[dict[str, Any]]:
    """Sorted by `created_at` or `execution_duration`, `asc` or `desc`."""

    def duration(job: dict[str, Any]) -> int:
        start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
        return int(end - start) if start and end else 0

    def created(job: dict[str, Any]) -> int:
        return int(job.get("create_time", 0))

    return sorted(jobs, key=duration if by == "execution_duration" else created, reverse=order == "desc")


def all_jobs(
    running: list[Item], pending: list[Item], history: dict[str, dict[str, Any]], statuses: list[str]
) -> Iterator[dict[str, Any]]:
    """Jobs of the wanted statuses."""
    for items, status in ((running, "in_progress"), (pending, "pending")):
        if status in statuses:
            yield from (queued_job(item, status) for item in items)
    for prompt_id, entry in history.items():
        job = finished_job(prompt_id, entry)
        if job["status"] in statuses:
            yield job


def _origin(number: float, extra_data: dict[str, Any]) -> dict[str, Any]:
    info = extra_data.get("extra_pnginfo")
    workflow = info.get("workflow") if isinstance(info, dict) else None
    workflow_id = workflow.get("id") if isinstance(workflow, dict) else None
    return {"priority": number, "create_time": extra_data.get("create_time"), "workflow_id": workflow_id}


def _previewable(media: str, item: dict[str, Any]) -> bool:
    kind, name = str(item.get("format") or ""), str(item.get("filename") or "").lower()
    return media in PREVIEWABLE or kind.startswith(("video/", "audio/")) or name.endswith(MODELS_3D)


def _pruned(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if value is not None}
