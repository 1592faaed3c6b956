"""Jobs in the shapes of ComfyUI's queue, history and jobs API. Pure (execution.py, comfy_execution/jobs.py)."""

from collections.abc import Mapping
from typing import Any

from backend_pool.job_state import JobState
from backend_pool.model import Job, JobDocument, JsonDict

STATUS = {
    JobState.QUEUED: "pending",
    JobState.ASSIGNED: "in_progress",
    JobState.RUNNING: "in_progress",
    JobState.COLLECTING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
"""ComfyUI 0.8.0 knows no `cancelled`; newer ones do, and the current frontend asks for it."""

PREVIEWABLE = frozenset({"images", "video", "audio"})
MODELS_3D = (".obj", ".fbx", ".gltf", ".glb")


def queue_item(job: Job, document: JobDocument) -> list[Any]:
    """The 5-tuple of /queue and of a history entry's `prompt`."""
    return [shown_number(job.number), job.prompt_id, document.prompt, document.extra_data, document.targets]


def shown_number(number: float) -> float:
    """A place in the queue as ComfyUI writes it: whole numbers without a fraction."""
    return int(number) if number.is_integer() else number


def history_entry(job: Job, document: JobDocument) -> JsonDict:
    """One entry of /history."""
    succeeded = job.state is JobState.SUCCEEDED
    return {
        "prompt": queue_item(job, document),
        "outputs": document.outputs,
        "status": {
            "status_str": "success" if succeeded else "error",
            "completed": succeeded,
            "messages": document.messages,
        },
        "meta": document.meta,
    }


def job_item(job: Job, document: JobDocument) -> JsonDict:
    """One entry of /api/jobs; absent values are left out."""
    told = {message[0]: message[1] for message in document.messages if isinstance(message[1], dict)}
    ends = ("execution_success", "execution_error", "execution_interrupted")
    end = next((told[kind] for kind in ends if kind in told), {})
    count, preview = outputs_summary(document.outputs)
    item = {
        "id": job.prompt_id,
        "status": STATUS[job.state],
        "priority": shown_number(job.number),
        "create_time": job.created_ms,
        "execution_start_time": told.get("execution_start", {}).get("timestamp", job.started_ms),
        "execution_end_time": end.get("timestamp", job.ended_ms),
        "execution_error": told.get("execution_error"),
        "outputs_count": count,
        "preview_output": preview,
        "workflow_id": job.workflow_id,
    }
    return {key: value for key, value in item.items() if value is not None}


def job_detail(job: Job, document: JobDocument) -> JsonDict:
    """The answer of /api/jobs/{id}."""
    item = job_item(job, document)
    item["workflow"] = {"prompt": document.prompt, "extra_data": document.extra_data}
    if job.ended_ms is not None:
        item["outputs"] = document.outputs
        item["execution_status"] = history_entry(job, document)["status"]
    return item


def outputs_summary(outputs: Mapping[str, Any]) -> tuple[int, JsonDict | None]:
    """How many items were made, and the one to show: a saved previewable file, else any previewable one."""
    count, saved, other = 0, None, None
    for node_id, ui in outputs.items():
        for kind, items in ui.items() if isinstance(ui, dict) else ():
            if kind == "animated" or not isinstance(items, list):
                continue
            for item in items:
                if not isinstance(item, dict):
                    continue
                count += 1
                if _previewable(kind, item):
                    shown = {**item, "nodeId": node_id, "mediaType": kind}
                    if item.get("type") == "output":
                        saved = saved or shown
                    other = other or shown
    return count, saved or other


def _previewable(kind: str, item: Mapping[str, Any]) -> bool:
    form, name = str(item.get("format") or ""), str(item.get("filename") or "").lower()
    return kind in PREVIEWABLE or form.startswith(("video/", "audio/")) or name.endswith(MODELS_3D)
