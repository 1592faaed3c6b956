"""What users may see of their jobs: read-only queries for ComfyUI's queue, history and jobs API, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select

from backend_pool.job_state import ACTIVE, FINAL, JobState
from backend_pool.model import Job, JobDocument
from proxy.base.database import Database

CHUNK = 500
"""Documents read by one statement."""


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
class JobPage:
    """One page and the number of jobs that match in all."""

    jobs: list[tuple[Job, JobDocument]]
    total: int


class JobQueries:
    """Reads of one user's jobs; a job of another user is never found."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def active(self, user_id: int) -> list[tuple[Job, JobDocument]]:
        """The user's waiting and running jobs with their documents, the next to run first."""
        query = _with_documents(user_id, ACTIVE).order_by(col(Job.number), col(Job.seq))
        return await self._db.read(lambda s: list(s.exec(query).all()))

    async def remaining(self, user_id: int) -> int:
        """ComfyUI's queue_remaining for one user: waiting plus running."""
        query = select(func.count()).where(Job.user_id == user_id, col(Job.state).in_(ACTIVE))
        return await self._db.read(lambda s: s.exec(query).one())

    async def history(self, user_id: int, window: Window) -> list[tuple[Job, JobDocument]]:
        """A part of the user's history, oldest first."""

        def work(s: Session) -> list[tuple[Job, JobDocument]]:
            shown, keys = _shown(user_id, FINAL), [col(Job.ended_ms), col(Job.seq)]
            if window.skip is None:  # the last `limit`, as ComfyUI's max_items alone
                return _part(s, shown, [key.desc() for key in keys], Window(window.limit, 0))[::-1]
            return _part(s, shown, keys, window)

        return await self._db.read(work)

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
            return JobPage(_part(s, shown, keys, window), total)

        return await self._db.read(work)

    async def one(self, user_id: int, prompt_id: str) -> tuple[Job, JobDocument] | None:
        """A job of this user, waiting, running or in the history."""
        query = _with_documents(user_id, ACTIVE | FINAL).where(Job.prompt_id == prompt_id)
        return await self._db.read(lambda s: s.exec(query).first())


def _shown(user_id: int, states: frozenset[JobState]) -> list[ColumnElement[bool]]:
    """Jobs in these states, without those cancelled before they began: ComfyUI keeps no history of them."""
    never_began = and_(col(Job.state).in_(FINAL), col(Job.started_ms).is_(None))
    return [col(Job.user_id) == user_id, col(Job.state).in_(states), ~never_began]


def _part(
    s: Session, shown: list[ColumnElement[bool]], keys: Sequence[Any], window: Window
) -> list[tuple[Job, JobDocument]]:
    """A window of jobs. Which ones is settled on the rows alone: sorting would drag every document along."""
    chosen = select(Job.seq).where(*shown).order_by(*keys).offset(window.skip or 0).limit(window.limit)
    seqs = list(s.exec(chosen).all())
    found: dict[int, tuple[Job, JobDocument]] = {}
    for start in range(0, len(seqs), CHUNK):
        chunk = seqs[start : start + CHUNK]
        found |= {job.key: (job, document) for job, document in s.exec(_joined().where(col(Job.seq).in_(chunk)))}
    return [found[seq] for seq in seqs if seq in found]


def _joined() -> Select[Job, JobDocument]:
    return select(Job, JobDocument).join(JobDocument, col(JobDocument.seq) == col(Job.seq))


def _with_documents(user_id: int, states: frozenset[JobState]) -> Select[Job, JobDocument]:
    return _joined().where(*_shown(user_id, states))
