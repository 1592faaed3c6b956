"""Reservations: between two moments some backends run jobs of one group only. Rules, rows, and who has a backend when.

Functions that take a SQLModel session are transactions' bodies. Past reservations are taken out by the upkeep.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, delete, select

from backend_pool.backends.labels import cleaned
from backend_pool.books.shares import Reserved
from backend_pool.books.tables import Reservation
from backend_pool.model import Backend
from proxy.base.clock import DAY_MS, now_ms
from proxy.base.errors import BadInput, Conflict, NotFound

LONGEST_MS = 31 * DAY_MS
FARTHEST_MS = 5 * 366 * DAY_MS
"""Ahead of now. What is shown in dates must be one: they end with the year 9999."""
LIMIT = 500
NOTE_LENGTH = 200
KEPT_MS = DAY_MS
"""A past reservation stays in the list for a day, for who asks what happened."""


@dataclass(frozen=True)
class Wish:
    """A reservation to be made: backends by id, or those that have all of the labels, or both."""

    group_id: int
    begin_ms: int
    end_ms: int
    backends: Sequence[int] = ()
    labels: Sequence[str] = ()
    note: str = ""


def covers(row: Reservation, backend_id: int, labels: Iterable[str]) -> bool:
    """Whether it is about that backend."""
    return backend_id in row.backends or bool(row.labels and set(row.labels) <= set(labels))


def reserved(rows: Iterable[Reservation], backend_id: int, labels: Iterable[str], moment_ms: int) -> Reserved | None:
    """Who has the backend at that moment, else who has it next; the older row wins where labels made two overlap."""
    labels = frozenset(labels)
    due = [row for row in rows if row.end_ms > moment_ms and covers(row, backend_id, labels)]
    if not due:
        return None
    row = min(due, key=lambda row: (max(row.begin_ms, moment_ms), row.id or 0))
    return Reserved(row.group_id, row.begin_ms, row.end_ms)


def add(session: Session, wish: Wish) -> Reservation:
    """A new one. Raises BadInput for what makes no sense, Conflict for a backend that is another's meanwhile."""
    row = _checked(session, wish)
    backends = session.exec(select(Backend)).all()
    meant = [backend for backend in backends if covers(row, backend.id or 0, backend.labels)]
    for other in everything(session):
        if other.begin_ms >= row.end_ms or other.end_ms <= row.begin_ms:
            continue
        taken = [backend.name for backend in meant if covers(other, backend.id or 0, backend.labels)]
        if taken or (row.labels and row.labels == other.labels):
            what = ", ".join(taken) or "backends with these labels"
            raise Conflict(f"Reserved already within that time, by reservation {other.id}: {what}. Remove it first.")
    session.add(row)
    session.flush()
    return row


def everything(session: Session) -> list[Reservation]:
    """All of them, the next one first."""
    return list(session.exec(select(Reservation).order_by(col(Reservation.begin_ms), col(Reservation.id))).all())


def remove(session: Session, reservation_id: int) -> Reservation:
    """Take one out. Raises NotFound."""
    row = session.get(Reservation, reservation_id)
    if row is None:
        raise NotFound(f"There is no reservation {reservation_id}.")
    session.delete(row)
    return row


def prune(session: Session, moment_ms: int) -> int:
    """Take out those that ended long ago; returns how many."""
    return session.exec(delete(Reservation).where(col(Reservation.end_ms) < moment_ms - KEPT_MS)).rowcount


def _checked(session: Session, wish: Wish) -> Reservation:
    if wish.end_ms <= wish.begin_ms:
        raise BadInput("A reservation ends after it begins.")
    if wish.end_ms <= now_ms():
        raise BadInput("That time is past.")
    if wish.end_ms - wish.begin_ms > LONGEST_MS:
        raise BadInput("A reservation lasts 31 days at most.")
    if wish.end_ms - now_ms() > FARTHEST_MS:
        raise BadInput("A reservation is for the next five years at most.")
    labels, backends = cleaned(wish.labels), sorted(set(wish.backends))
    if not labels and not backends:
        raise BadInput("Name at least one backend or label.")
    if len(wish.note) > NOTE_LENGTH or not (wish.note.isprintable() or not wish.note):
        raise BadInput(f"A note has up to {NOTE_LENGTH} printable characters.")
    known = set(session.exec(select(Backend.id).where(col(Backend.id).in_(backends))).all())
    if missing := [str(one) for one in backends if one not in known]:
        raise NotFound(f"There is no backend {', '.join(missing)}.")
    if len(everything(session)) >= LIMIT:
        raise Conflict(f"There are {LIMIT} reservations, the most allowed. Remove some first.")
    return Reservation(
        group_id=wish.group_id,
        backends=backends,
        labels=labels,
        begin_ms=wish.begin_ms,
        end_ms=wish.end_ms,
        note=wish.note,
    )
