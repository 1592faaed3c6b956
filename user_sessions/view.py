"""A session for people and the JSON API: what the row says, without its secret and paths, and what was seen of it."""

from dataclasses import dataclass

from proxy.base.clock import now_ms
from user_sessions.model import SessionRow
from user_sessions.spawner import Poll
from user_sessions.state import SessionState, Transition, crashes, gave_up, transitions


@dataclass(frozen=True)
class SessionView:
    """One user's session. Times are milliseconds since the epoch."""

    user_id: int
    slug: str
    session_id: str
    state: SessionState
    desired: str
    pid: int | None
    started_ms: int | None
    active_ms: int
    error: str
    history: tuple[Transition, ...]
    outdated: bool
    """It runs, from before the latest refresh."""
    memory: int | None
    """Bytes, where they were asked for."""
    crashed_ms: int | None
    """When it last ended without being asked to, unless it was stopped since."""
    gave_up: bool
    """It crashed so often that only its user's wish starts it again."""


def view(row: SessionRow, poll: Poll | None = None) -> SessionView:
    """The row as people may see it; `poll` is the latest look at its process."""
    state = SessionState(row.state)
    return SessionView(
        user_id=row.user_id,
        slug=row.slug,
        session_id=row.session_id,
        state=state,
        desired=row.desired,
        pid=row.pid,
        started_ms=row.started_ms,
        active_ms=row.active_ms,
        error=row.error,
        history=tuple(transitions(row.history)),
        outdated=poll is not None and poll.outdated and state is SessionState.RUNNING,
        memory=poll.memory if poll is not None else None,
        crashed_ms=next(reversed(crashes(row.history)), None),
        gave_up=state is SessionState.FAILED and gave_up(row.history, now_ms()),
    )
