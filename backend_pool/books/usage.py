"""What was used, out of the ledger: sums by user, group, day or backend, and single entries by the page. Reads only.

Days are whole days of UTC, written 20260131, and belong to the moment a job ended.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import case
from sqlmodel import Session, col, func, select

from backend_pool.books.tables import LedgerEntry
from backend_pool.job_state import JobState

PAGE_ROWS = 1000
MOST_SUMS = 2000
"""Rows of one table of sums; the ones that used most are kept."""

NO_GROUP = "none"
"""No group is called that."""


class By(StrEnum):
    """What to sum up by."""

    USER = "user"
    GROUP = "group"
    DAY = "day"
    BACKEND = "backend"


@dataclass(frozen=True)
class Span:
    """Days from `first` to `last`, both included; of one user or group only, where given. `group` "" is none."""

    first: int
    last: int
    user_id: int | None = None
    group: str | None = None


@dataclass(frozen=True)
class Sums:
    """Of all jobs of one key that ended in a span."""

    key: str
    jobs: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    gpu_ms: int = 0
    load_ms: int = 0
    run_ms: int = 0
    wait_ms: int = 0


_KEYS = {
    By.USER: col(LedgerEntry.user_id),
    By.GROUP: col(LedgerEntry.group_name),
    By.DAY: col(LedgerEntry.day),
    By.BACKEND: col(LedgerEntry.backend),
}


def group_key(name: str) -> str:
    """A group as the ledger has it, where those that are gone stand too; nothing for jobs of nobody's group."""
    return "" if name.strip() == NO_GROUP else name.strip()


def shown_day(day: int) -> str:
    """2026-01-31."""
    return f"{day // 10_000:04}-{day // 100 % 100:02}-{day % 100:02}"


def sums(session: Session, by: By, span: Span) -> list[Sums]:
    """One row per key: days in their order, others by what they used, most first."""
    key = _KEYS[by]
    gpu = func.coalesce(func.sum(LedgerEntry.gpu_ms), 0)
    totals: list[Any] = [func.count(), *map(_count, (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)), gpu]
    totals += [func.coalesce(func.sum(getattr(LedgerEntry, field.name)), 0) for field in fields(Sums)[6:]]
    order = key if by is By.DAY else gpu.desc()
    query: Any = select(key, *totals).where(*_within(span)).group_by(key).order_by(order, key).limit(MOST_SUMS)
    # PostgreSQL's sum of big integers is a Decimal.
    return [Sums(str(row[0]), *(int(value) for value in row[1:])) for row in session.exec(query).all()]


def total(rows: list[Sums]) -> Sums:
    """All of them together."""
    return Sums("", *(sum(getattr(row, field.name) for row in rows) for field in fields(Sums)[1:]))


def entries(session: Session, span: Span, after_id: int = 0) -> list[LedgerEntry]:
    """The next page of single jobs, in the order they were booked."""
    query = select(LedgerEntry).where(*_within(span), col(LedgerEntry.id) > after_id)
    return list(session.exec(query.order_by(col(LedgerEntry.id)).limit(PAGE_ROWS)).all())


def _within(span: Span) -> list[Any]:
    within: list[Any] = [LedgerEntry.day >= span.first, LedgerEntry.day <= span.last]
    if span.user_id is not None:
        within.append(LedgerEntry.user_id == span.user_id)
    if span.group is not None:
        within.append(LedgerEntry.group_name == span.group)
    return within


def _count(state: JobState) -> Any:
    return func.coalesce(func.sum(case((col(LedgerEntry.result) == state, 1), else_=0)), 0)
