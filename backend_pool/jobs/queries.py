"""What users may see of their jobs: read-only queries for ComfyUI's queue, history and jobs API, a page at a time."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func
from sqlalchemy.orm import defer
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import Select

from backend_pool.job_state import ACTIVE, FINAL, JobState
from backend_pool.model import Job, JobDocument
from proxy.base.database import Database

SUBMITTED = ("prompt", "extra_data")
PART_ROWS = 100
PART_SIZE = 4 * 1024 * 1024
"""What one part of a long list holds at most, unless one document alone is larger."""


@dataclass(frozen=True)
class Window:
    """Which part of a list: `skip` None means the end of it, `limit` None all."""

    limit: int | None = None
    skip: int | None = 0


@dataclass(frozen=True)
class JobOrder:
    """How the jobs API sorts and filters."""

    by_duration: bool = False
    descending: bool = True
    workflow_id: str | None = None


@dataclass(frozen=True)
class Listed:
    """A job in a list whose documents have not been read yet."""

    seq: int
    state: JobState
    size: int


@dataclass(frozen=True)
class JobPage:
    """One page, and the number of jobs that match in all."""

    jobs: list[Listed]
    total: int


class JobQueries:
    """Reads of one user's jobs; a job of another user is never found."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def active(self, user_id: int) -> list[Listed]:
        """The user's waiting and running jobs, the next to run first."""
        query = _listed().where(*_shown(user_id, ACTIVE)).order_by(col(Job.number), col(Job.seq))
        return [Listed(*row) for row in await self._db.read(lambda s: s.exec(query).all())]

    async def remaining(self, user_id: int) -> int:
        """ComfyUI's queue_remaining for one user: waiting plus running."""
        query = select(func.count()).where(Job.user_id == user_id, col(Job.state).in_(ACTIVE))
        return await self._db.read(lambda s: s.exec(query).one())

    async def history(self, user_id: int, window: Window) -> list[Listed]:
        """A part of the user's history, oldest first."""
        keys: list[Any] = [col(Job.ended_ms), col(Job.seq)]
        last = window.skip is None  # the last `limit`, as ComfyUI's max_items alone
        if last:
            keys = [key.desc() for key in keys]
        query = _listed().where(*_shown(user_id, FINAL)).order_by(*keys).offset(window.skip or 0).limit(window.limit)
        listed = [Listed(*row) for row in await self._db.read(lambda s: s.exec(query).all())]
        return listed[::-1] if last else listed

    async def parts(
        self, listed: Sequence[Listed], *, submitted: bool = True
    ) -> AsyncIterator[list[tuple[Job, JobDocument]]]:
        """Those jobs with their documents, in order, never more than a part of them in memory; what was deleted
        meanwhile is left out. Without `submitted` what people sent, most of a document, is not read."""
        for seqs in _parts(listed):
            query = _joined().where(col(Job.seq).in_(seqs))
            if not submitted:
                query = query.options(*(defer(_column(JobDocument, name), raiseload=True) for name in SUBMITTED))

            def work(s: Session, query: Select[Job, JobDocument] = query) -> dict[int, tuple[Job, JobDocument]]:
                return {job.key: (job, document) for job, document in s.exec(query)}

            found = await self._db.read(work)
            yield [found[seq] for seq in seqs if seq in found]

    async def page(self, user_id: int, states: frozenset[JobState], order: JobOrder, window: Window) -> JobPage:
        """Jobs for the jobs API: filtered, sorted, one page, and how many there are in all."""

        def work(s: Session) -> JobPage:
            shown = _shown(user_id, states)
            if order.workflow_id is not None:
                shown.append(col(Job.workflow_id) == order.workflow_id)
            total = s.exec(select(func.count()).where(*shown)).one()
            key = (
                func.coalesce(col(Job.ended_ms) - col(Job.started_ms), 0) if order.by_duration else col(Job.created_ms)
            )
            keys: list[Any] = [key, col(Job.seq)]
            if order.descending:
                keys = [key.desc() for key in keys]
            query = _listed().where(*shown).order_by(*keys).offset(window.skip or 0).limit(window.limit)
            return JobPage([Listed(*row) for row in s.exec(query).all()], total)

        return await self._db.read(work)

    async def one(self, user_id: int, prompt_id: str) -> tuple[Job, JobDocument] | None:
        """A job of this user, waiting, running or in the history."""
        query = _joined().where(*_shown(user_id, ACTIVE | FINAL), Job.prompt_id == prompt_id)
        return await self._db.read(lambda s: s.exec(query).first())


def _shown(user_id: int, states: frozenset[JobState]) -> list[ColumnElement[bool]]:
    """Jobs in these states, without those cancelled before they began: ComfyUI keeps no history of them."""
    never_began = and_(col(Job.state).in_(FINAL), col(Job.started_ms).is_(None))
    return [col(Job.user_id) == user_id, col(Job.state).in_(states), ~never_began]


def _parts(listed: Sequence[Listed]) -> Iterator[list[int]]:
    seqs: list[int] = []
    size = 0
    for job in listed:
        if seqs and (len(seqs) >= PART_ROWS or size + job.size > PART_SIZE):
            yield seqs
            seqs, size = [], 0
        seqs.append(job.seq)
        size += job.size
    if seqs:
        yield seqs


def _listed() -> Select[Any, Any, Any]:
    return select(_column(Job, "seq"), _column(Job, "state"), _column(Job, "document_size"))


def _column(table: type[SQLModel], name: str) -> Any:
    return getattr(table, name)  # SQLModel types it as the row's value


def _joined() -> Select[Job, JobDocument]:
    return select(Job, JobDocument).join(JobDocument, col(JobDocument.seq) == col(Job.seq))
