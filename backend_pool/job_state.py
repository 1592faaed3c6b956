"""The life of a job as pure functions over values, a compare-and-set each (docs/design.md, "Decisions").

queued -> assigned -> running -> collecting -> succeeded | failed | cancelled. A lost backend sends assigned or running
back to queued, running out of memory sends running back to assigned. `collecting` exists so that a crash while files
are fetched never renders again. Cancel is a flag.
"""

from collections.abc import Sequence
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; stored."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    COLLECTING = "collecting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ON_BACKEND = frozenset({JobState.ASSIGNED, JobState.RUNNING, JobState.COLLECTING})
ACTIVE = ON_BACKEND | {JobState.QUEUED}

ALLOWED: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.ASSIGNED, JobState.CANCELLED, JobState.FAILED}),
    JobState.ASSIGNED: frozenset({JobState.RUNNING, JobState.COLLECTING, JobState.QUEUED}) | FINAL,
    # Back to assigned: another attempt at the same backend, its memory freed.
    JobState.RUNNING: frozenset({JobState.COLLECTING, JobState.QUEUED, JobState.ASSIGNED}) | FINAL,
    JobState.COLLECTING: FINAL | {JobState.QUEUED},  # only when the backend is gone and its files with it
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class IllegalTransition(Exception):
    """A change the state machine does not know: a bug or a fenced owner, shown with the row's recent history."""


def check(current: JobState, target: JobState, trail: Sequence[object]) -> None:
    """Raise IllegalTransition unless `current` may become `target`."""
    if target not in ALLOWED[current]:
        recent = ", ".join(map(str, trail[-6:])) or "none"
        raise IllegalTransition(f"A {current} job cannot become {target}. Recent history: {recent}")
