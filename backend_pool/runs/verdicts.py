"""The frames and history messages a job's end makes when a backend did not make them. Pure.

Shapes as in ComfyUI's execution.py; `timestamp` in milliseconds.
"""

from typing import Any

from backend_pool.backends.frames import Message
from backend_pool.errors import BackendRefused
from backend_pool.jobs.state import JobState
from backend_pool.jobs.submission import Result
from backend_pool.model import JsonDict
from proxy.base.clock import now_ms

TERMINAL = frozenset({"execution_success", "execution_error", "execution_interrupted"})


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


def began(messages: list[Any]) -> float | None:
    """When the backend began a prompt, in milliseconds by its own clock, out of its history's messages."""
    for message in messages:
        match message:
            case ["execution_start", {"timestamp": int() | float() as timestamp}]:
                return float(timestamp)
    return None


def as_history(message: Message) -> list[Any]:
    """A message as the history's `status.messages` holds it."""
    return [message.type, message.data]


def result_of(entry: JsonDict, prompt_id: str) -> Result:
    """The parts of a backend's history entry that are kept, whatever shape custom nodes gave them."""
    outputs, meta = (part if isinstance(part, dict) else {} for part in (entry.get("outputs"), entry.get("meta")))
    status = entry.get("status")
    told = status.get("messages") if isinstance(status, dict) else None
    messages = [
        [m[0], m[1]]
        for m in (told if isinstance(told, list) else ())
        if isinstance(m, list) and len(m) == 2 and isinstance(m[0], str) and isinstance(m[1], dict)
    ]
    ended_well = not isinstance(status, dict) or status.get("status_str") != "error"
    if not ended_well and not any(m[0] in TERMINAL for m in messages):
        messages.append(as_history(failed(prompt_id, "ExecutionFailed", "The backend failed without saying why.")))
    return Result(outputs, meta, messages)


def state_of(messages: list[Any]) -> JobState:
    """How a job ended, out of its history messages."""
    kinds = {message[0] for message in messages}
    if "execution_interrupted" in kinds:
        return JobState.CANCELLED
    # A blocked node's error has no timestamp and the job goes on (ComfyUI's execution.py).
    errors = [message for message in messages if message[0] == "execution_error" and "timestamp" in message[1]]
    return JobState.FAILED if errors else JobState.SUCCEEDED
