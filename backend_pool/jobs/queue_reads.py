"""What dispatch reads of the queue: how much each user has waiting, each one's first jobs, documents, virtual times.

Its cost grows with the users asked for, not with their jobs; the census alone counts all, in an index.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select, SelectOfScalar

from backend_pool.books.tables import UserShare
from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from backend_pool.model import Job, JobDocument
from proxy.base.database import Database

DOCUMENTS_AT_ONCE = 100


class Census(NamedTuple):
    """What one user has waiting. Equal ones are taken to be of the same jobs: a seq is given once."""

    jobs: int
    seqs: int
    """The sum of their seqs."""


class QueueReads:
    """Reads of the queue, each a snapshot."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def census(self) -> dict[int, Census]:
        """Every user who has something waiting."""
        rows = await self._db.read(lambda s: s.exec(CENSUS).all())
        return {user_id: Census(jobs, int(seqs or 0)) for user_id, jobs, seqs in rows}

    async def firsts(self, depths: Mapping[int, int]) -> dict[int, list[Job]]:
        """The first jobs of each of these users, so many of each lane, in their order."""

        def work(s: Session) -> dict[int, list[Job]]:
            return {user: [job for lane in Lane for job in _firsts(s, user, lane, n)] for user, n in depths.items()}

        return await self._db.read(work) if depths else {}

    async def documents(self, seqs: Collection[int]) -> dict[int, JobDocument]:
        """The documents of these jobs; those that are gone are left out."""
        found: dict[int, JobDocument] = {}
        wanted = list(seqs)
        for start in range(0, len(wanted), DOCUMENTS_AT_ONCE):
            query = select(JobDocument).where(col(JobDocument.seq).in_(wanted[start : start + DOCUMENTS_AT_ONCE]))

            def work(s: Session, query: SelectOfScalar[JobDocument] = query) -> dict[int, JobDocument]:
                return {row.seq: row for row in s.exec(query)}

            found |= await self._db.read(work)
        return found

    async def virtual_times(self) -> dict[int, float]:
        """By user, as last stored."""
        return {row.user_id: row.virtual_s for row in await self._db.read(lambda s: s.exec(select(UserShare)).all())}

    async def store_virtual_times(self, times: Mapping[int, float]) -> None:
        """Put these down."""
        await self._db.write(lambda s: put_virtual_times(s, times.items()))


def put_virtual_times(s: Session, times: Iterable[tuple[int, float]]) -> None:
    """In a transaction that does something else too."""
    for user_id, virtual_s in times:
        s.merge(UserShare(user_id=user_id, virtual_s=virtual_s))


def _firsts(s: Session, user_id: int, lane: Lane, depth: int) -> list[Job]:
    """A user's next jobs of one lane: no index has priorities downwards and numbers upwards, so one by one."""
    found: list[Job] = []
    priority = s.exec(highest(user_id, lane)).one()
    while priority is not None and len(found) < depth:
        found += s.exec(firsts(user_id, lane, priority, depth - len(found)))
        if len(found) < depth:
            priority = s.exec(highest(user_id, lane, priority)).one()
    return found


def highest(user_id: int, lane: Lane, below: int | None = None) -> SelectOfScalar[Any]:
    """The highest priority of a user's waiting jobs of one lane."""
    query = select(func.max(Job.priority)).where(*_waiting(user_id, lane))
    return query if below is None else query.where(Job.priority < below)


def firsts(user_id: int, lane: Lane, priority: int, depth: int) -> SelectOfScalar[Job]:
    """A user's next jobs of one lane and priority."""
    mine = select(Job).where(*_waiting(user_id, lane), Job.priority == priority)
    return mine.order_by(col(Job.number), col(Job.seq)).limit(depth)


def _waiting(user_id: int, lane: Lane) -> list[ColumnElement[bool]]:
    return [col(Job.state) == JobState.QUEUED, col(Job.user_id) == user_id, col(Job.lane) == lane]


def _census() -> Select[int, int, int | None]:
    waiting = select(col(Job.user_id), func.count(), func.sum(Job.seq)).where(Job.state == JobState.QUEUED)
    return waiting.group_by(col(Job.user_id))


CENSUS = _census()
