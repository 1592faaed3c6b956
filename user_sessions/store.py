"""Rows of `sessions`: read them, and change their state in the one place where that is allowed.

Each function is the body of one transaction (`db.write(lambda s: ...)`); none does anything but touch the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlmodel import Session, col, func, select

from proxy.base.clock import now_ms
from proxy.base.errors import Unavailable
from user_sessions.model import SessionRow
from user_sessions.state import WITH_PROCESS, Desired, SessionState, Transition, check, remember


def get(session: Session, user_id: int) -> SessionRow | None:
    """The row of that user."""
    return session.get(SessionRow, user_id)


def every(session: Session) -> list[SessionRow]:
    """All rows, by user."""
    return list(session.exec(select(SessionRow).order_by(col(SessionRow.user_id))))


def with_process(session: Session) -> list[SessionRow]:
    """Rows that say a process runs, or may."""
    states = [state.value for state in WITH_PROCESS]
    return list(session.exec(select(SessionRow).where(col(SessionRow.state).in_(states))))


@dataclass(frozen=True)
class Start:
    """What a new generation of a user's session is called and where it will listen."""

    user_id: int
    slug: str
    socket: str
    session_id: str
    secret: str = field(repr=False)
    active_ms: int | None = None
    """Last action of its user; None for now."""


def begin(session: Session, start: Start, *, limit: int) -> SessionRow:
    """Make the row `starting` under a new generation. Raises Unavailable at the limit, and IllegalTransition when a
    process may run already."""
    states = [state.value for state in WITH_PROCESS]
    others = select(func.count()).where(col(SessionRow.state).in_(states), col(SessionRow.user_id) != start.user_id)
    if session.exec(others).one() >= limit:
        raise Unavailable(
            f"All {limit} sessions are in use. Try again when someone has left, or ask the administrator for more."
        )
    row = _locked(session, start.user_id)
    if row is None:
        row = SessionRow(user_id=start.user_id, slug=start.slug)
        session.add(row)
    _change(row, SessionState.STARTING, "asked for")
    row.generation += 1
    row.slug, row.socket, row.session_id, row.secret = start.slug, start.socket, start.session_id, start.secret
    row.desired, row.error, row.pid = Desired.RUNNING.value, "", None
    row.started_ms = now_ms()
    row.active_ms = row.started_ms if start.active_ms is None else start.active_ms
    return row


@dataclass(frozen=True)
class Change:
    """A change of state of that generation, if its state is still one of `expected`."""

    user_id: int
    generation: int
    expected: frozenset[SessionState]
    after: SessionState
    why: str
    values: Mapping[str, object] = field(default_factory=dict)


def compare_and_set(session: Session, change: Change) -> SessionRow | None:
    """Make that change and return the row; None when the row is not as expected, and nothing changed."""
    row = _locked(session, change.user_id)
    if row is None or row.generation != change.generation or SessionState(row.state) not in change.expected:
        return None
    _change(row, change.after, change.why)
    for name, value in change.values.items():
        setattr(row, name, value)
    session.add(row)
    return row


def touch(session: Session, times_ms: Mapping[int, int]) -> None:
    """Move the last activity of these users forward, never back."""
    for user_id, at_ms in times_ms.items():
        row = session.get(SessionRow, user_id)
        if row is not None and row.active_ms < at_ms:
            row.active_ms = at_ms
            session.add(row)


def _locked(session: Session, user_id: int) -> SessionRow | None:
    """The row, held until the transaction ends; SQLite holds the whole file anyway."""
    return session.get(SessionRow, user_id, with_for_update=True)


def _change(row: SessionRow, after: SessionState, why: str) -> None:
    before = SessionState(row.state)
    check(before, after, row.history)
    row.state = after.value
    row.history = remember(row.history, Transition(now_ms(), before, after, why))
