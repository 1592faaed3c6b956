"""What one attempt took of its backend, for the ledger. Pure.

The backend's own history says when it began and ended, also where an earlier process heard the beginning. Its clock
is not believed beyond what our own saw pass.
"""

from typing import Any

from backend_pool.books.ledger import Spent
from backend_pool.comfy.result import TERMINAL, began
from backend_pool.model import Job


def spent(job: Job, messages: list[Any], *, began_ms: int | None, ended_ms: int, load_ms: int, held_ms: int) -> Spent:
    """What is charged for an attempt that counts; nothing when it never began. `held_ms` is how long it has been ours,
    by a clock that nobody sets."""
    run_ms = _by_history(messages)
    if run_ms is None:
        since_ms = began_ms or job.started_ms
        run_ms = 0 if since_ms is None else ended_ms - since_ms
    run_ms = max(0, min(run_ms, held_ms))
    return Spent(gpu_ms=run_ms, load_ms=min(load_ms, run_ms), run_ms=run_ms)


def _by_history(messages: list[Any]) -> int | None:
    since_ms = began(messages)
    ends = [
        message[1]["timestamp"]
        for message in messages
        if message[0] in TERMINAL and isinstance(message[1].get("timestamp"), int | float)
    ]
    return None if since_ms is None or not ends else round(ends[-1] - since_ms)
