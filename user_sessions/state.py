"""The states of a session's row and which change may follow which; pure functions over values.

`stopped -> starting -> running -> stopping -> stopped`, and `failed` wherever a process turned out to be gone. What is
wanted (`desired`) is a column of its own, not a state.
"""

import enum
import json
from dataclasses import asdict, dataclass

HISTORY_KEPT = 10


class SessionState(enum.StrEnum):
    """Where a session is."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


class Desired(enum.StrEnum):
    """Where it should be."""

    RUNNING = "running"
    STOPPED = "stopped"


ALLOWED: dict[SessionState, frozenset[SessionState]] = {
    SessionState.STOPPED: frozenset({SessionState.STARTING}),
    SessionState.STARTING: frozenset({SessionState.RUNNING, SessionState.STOPPING, SessionState.FAILED}),
    SessionState.RUNNING: frozenset({SessionState.STOPPING, SessionState.FAILED}),
    SessionState.STOPPING: frozenset({SessionState.STOPPED}),
    SessionState.FAILED: frozenset({SessionState.STARTING, SessionState.STOPPED}),
}
WITH_PROCESS = frozenset({SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING})


@dataclass(frozen=True)
class Transition:
    """One change, as kept in the row's history."""

    at_ms: int
    before: SessionState
    after: SessionState
    why: str


class IllegalTransition(Exception):
    """A change that must not happen: a defect, so it carries what happened to the row lately."""


def check(before: SessionState, after: SessionState, history: str) -> None:
    """Raise IllegalTransition unless `after` may follow `before`."""
    if after not in ALLOWED[before]:
        recent = "; ".join(f"{t.before}>{t.after} ({t.why})" for t in transitions(history)) or "none"
        raise IllegalTransition(f"A session cannot go from {before} to {after}. Recent changes: {recent}.")


def remember(history: str, transition: Transition) -> str:
    """The history with that change appended; the oldest are dropped."""
    return json.dumps([asdict(entry) for entry in [*transitions(history), transition][-HISTORY_KEPT:]])


def transitions(history: str) -> list[Transition]:
    """The changes in a stored history, oldest first; a damaged one counts as empty."""
    try:
        return [
            Transition(int(t["at_ms"]), SessionState(t["before"]), SessionState(t["after"]), str(t["why"]))
            for t in json.loads(history or "[]")
        ]
    except (ValueError, KeyError, TypeError):
        return []


CRASHES = 3
CRASH_WINDOW_MS = 60_000
CRASH_REST_MS = 300_000


def crashes(history: str) -> list[int]:
    """When the session ended without being asked to, since it was last stopped; milliseconds, oldest first."""
    found: list[int] = []
    for change in transitions(history):
        if change.after is SessionState.STOPPED:
            found = []
        elif (change.before, change.after) == (SessionState.RUNNING, SessionState.FAILED):
            found.append(change.at_ms)
    return found


def crashed_last(history: str) -> bool:
    """Whether the latest change was such an end."""
    return any((t.before, t.after) == (SessionState.RUNNING, SessionState.FAILED) for t in transitions(history)[-1:])


def gave_up(history: str, at_ms: int) -> bool:
    """Whether it crashed so often so fast that nothing but its user's wish, or a rest, starts it again."""
    last = crashes(history)[-CRASHES:]
    return len(last) == CRASHES and last[-1] - last[0] <= CRASH_WINDOW_MS and at_ms - last[-1] < CRASH_REST_MS
