"""A validated prompt on its way into the queue, as a value."""

from dataclasses import dataclass, field
from typing import Any

from backend_pool.lane import Lane
from backend_pool.model import JsonDict


@dataclass(frozen=True)
class Submission:
    """With what its submitter may ask for."""

    user_id: int
    prompt_id: str
    client_id: str | None
    prompt: JsonDict
    extra_data: JsonDict
    targets: list[str]
    number: float | None = None
    front: bool = False
    withheld: list[str] = field(default_factory=list)
    """Keys of extra_data that came with it and are not stored: API tokens."""
    lane: Lane = Lane.INTERACTIVE
    priority: int = 0
    labels: list[str] = field(default_factory=list)
    vram_mb: int = 0
    queue_limit: int | None = None
    """Waiting jobs its user may have; None: the setting's."""


def workflow_id(extra_data: JsonDict) -> str | None:
    """The id of the workflow a prompt came from; extra_data is the caller's and may have any shape."""
    found: Any = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None
