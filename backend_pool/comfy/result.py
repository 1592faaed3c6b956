"""What a backend's history says of an ended prompt: its outputs, how it ended, with which error. Pure.

Custom nodes put anything there: what has another shape than ComfyUI's own is left out.
"""

from dataclasses import dataclass, field
from typing import Any

from backend_pool.comfy.frames import Message
from backend_pool.comfy.verdicts import failed
from backend_pool.job_state import JobState
from backend_pool.model import JsonDict

TERMINAL = frozenset({"execution_success", "execution_error", "execution_interrupted"})


@dataclass(frozen=True)
class Result:
    """What a finished job leaves: ComfyUI's history entry without the prompt."""

    outputs: JsonDict = field(default_factory=dict)
    meta: JsonDict = field(default_factory=dict)
    messages: list[Any] = field(default_factory=list)


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


def error_of(messages: list[Any]) -> JsonDict | None:
    """The error that ended a job, out of its history messages."""
    # A blocked node's error has no timestamp and the job goes on (ComfyUI's execution.py).
    errors = [message[1] for message in messages if message[0] == "execution_error" and "timestamp" in message[1]]
    return errors[-1] if errors else None


def state_of(messages: list[Any]) -> JobState:
    """How a job ended, out of its history messages."""
    if any(message[0] == "execution_interrupted" for message in messages):
        return JobState.CANCELLED
    return JobState.SUCCEEDED if error_of(messages) is None else JobState.FAILED


def count_outputs(outputs: JsonDict) -> int:
    """How many files a job made, as ComfyUI's jobs API counts them: entries of the lists in each node's ui output."""
    uis = [ui for ui in outputs.values() if isinstance(ui, dict)]
    return sum(len(items) for ui in uis for key, items in ui.items() if key != "animated" and _files(items))


def _files(items: object) -> bool:
    return isinstance(items, list) and any(isinstance(item, dict) and "filename" in item for item in items)
