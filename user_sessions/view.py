"""A session for people and the JSON API: what the row says, without its secret and paths."""

from dataclasses import dataclass

from user_sessions.model import SessionRow
from user_sessions.state import SessionState, Transition, transitions


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


def view(row: SessionRow) -> SessionView:
    """The row as people may see it."""
    return SessionView(
        user_id=row.user_id,
        slug=row.slug,
        session_id=row.session_id,
        state=SessionState(row.state),
        desired=row.desired,
        pid=row.pid,
        started_ms=row.started_ms,
        active_ms=row.active_ms,
        error=row.error,
        history=tuple(transitions(row.history)),
    )
