"""The frames and history messages of a job's end when no backend made them. Pure.

Shapes as in ComfyUI's execution.py; `timestamp` in milliseconds.
"""

from backend_pool.comfy.frames import Message
from backend_pool.errors import BackendRefused
from backend_pool.model import JsonDict
from proxy.base.clock import now_ms


def failed(prompt_id: str, kind: str, message: str, node: tuple[str, str] = ("", "")) -> Message:
    """An `execution_error` with every field a client reads; `node` is its id and class."""
    return Message(
        "execution_error",
        {
            "prompt_id": prompt_id,
            "node_id": node[0],
            "node_type": node[1],
            "executed": [],
            "exception_message": message,
            "exception_type": kind,
            "traceback": [],
            "current_inputs": {},
            "current_outputs": [],
            "timestamp": now_ms(),
        },
    )


def interrupted(prompt_id: str) -> Message:
    """The `execution_interrupted` of a job that ended before a node ran."""
    return Message(
        "execution_interrupted",
        {"prompt_id": prompt_id, "node_id": "", "node_type": "", "executed": [], "timestamp": now_ms()},
    )


def refusal(prompt_id: str, prompt: JsonDict, refused: BackendRefused) -> Message:
    """A backend's 400 to a prompt that the pool's own validation let through, as the job's error."""
    body = refused.body if isinstance(refused.body, dict) else {}
    error = body.get("error")
    message = error.get("message", refused.message) if isinstance(error, dict) else str(error or refused.message)
    node_id, lines = "", []
    node_errors = body.get("node_errors")
    for key, value in node_errors.items() if isinstance(node_errors, dict) else ():
        node_id = node_id or str(key)
        errors = value.get("errors") if isinstance(value, dict) else None
        lines += [f"{e.get('message')}: {e.get('details')}" for e in errors or () if isinstance(e, dict)]
    text = "\n".join([str(message), *lines])
    node = prompt.get(node_id)
    node_type = str(node.get("class_type", "")) if isinstance(node, dict) else ""
    return failed(prompt_id, "PromptRefused", text, (node_id, node_type))
